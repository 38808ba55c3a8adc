"""What masking hid undecided is given back to who rebuilds a decoder, and to nobody else."""

from __future__ import annotations

from uuid import UUID

from capd.daemon.masking.undecided import BYTES_MAX, Undecided
from capd.enforcer.masking.place import Place, filled
from capd.recording.record import Direction, Kind, Record, Value

SESSION = UUID(int=5)
UNDECIDED, DECIDED = ("undecided", "cut off"), ("credential", "header authorization")


def data(position: int, payload: bytes, **facts: Value) -> Record:
    """Give a DATA record of a request."""
    return Record(Kind.DATA, SESSION, 0, Direction.REQUEST, {"position": position, "payload": payload, **facts})


def test_only_what_was_undecided_comes_back() -> None:
    """A message's first line that was cut off is there again, a credential is not; and so it is after the recorder's death."""
    raw = b"Authorization: secret\r\n\r\nGET /"
    places = [Place(115, 121, *DECIDED), Place(125, 130, *UNDECIDED)]
    stored = filled(raw, places, 100)
    before = Undecided()
    before.keep(0, 100, raw, places)
    after = Undecided()
    after.restore(before.save())
    for kept in (before, after):
        found = kept.restored(data(100, stored))
        assert found is not None
        assert b"Authorization: ******\r\n\r\nGET /" == found.body["payload"]
    assert data(100, stored, layer="wire") == after.restored(data(100, stored, layer="wire"))
    other = Record(Kind.DATA, SESSION, 0, Direction.RESPONSE, {"position": 100, "payload": stored})
    assert other.body == after.restored(other).body  # type: ignore[union-attr]


def test_what_is_too_much_is_let_go_and_told() -> None:
    """Beyond the limit the oldest bytes go, and what lies before their end cannot be given any more."""
    kept = Undecided()
    for number in range(3):
        kept.keep(0, number * BYTES_MAX, b"x" * BYTES_MAX, [Place(number * BYTES_MAX, (number + 1) * BYTES_MAX, *UNDECIDED)])
    assert kept.restored(data(0, b"*")) is None
    assert kept.restored(data(2 * BYTES_MAX - 1, b"*")) is None
    found = kept.restored(data(2 * BYTES_MAX, b"*" * BYTES_MAX))
    assert found is not None
    assert b"x" * BYTES_MAX == found.body["payload"]
