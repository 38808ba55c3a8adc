"""What holds of masking whatever is said, however it is cut and wherever bytes are lost, over the recorder's end too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Final, cast

import pytest

from capd.cli.verify_thread import follow
from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.side import Side
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.place import filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.recording.projection import Projection
from capd.recording.record import Kind, Record, Value, pack
from tests.assembly.world import REQUEST, RESPONSE, of_kind, stream
from tests.masking.random_talks import SECRET, TALKS, Maker
from tests.masking.test_stage import cycles

OWN = Rules(
    Choice(
        columns=["ssn"],
        json_paths=["$.user.ssn", "$..x"],
        redis_keys=["session:*"],
        patterns={"own": "id=[^ ]{5}"},
        keys=["pin"],
    )
)
RULES = (Rules(Choice()), OWN)
FORMS = (SECRET, SECRET.hex().encode(), b"".join(b"\\x%02x" % byte for byte in SECRET))
"""The secret, and how records write what is no text."""


MET: Final = (("redis", 708),)
"""One that is rare: bytes judged behind a loss before it was known whose they are."""


@pytest.mark.parametrize(("protocol", "seed"), [*product(TALKS, range(25)), *MET])
def test_no_secret_no_failure_no_difference(protocol: str, seed: int) -> None:
    """A secret is in no record in any form, nothing fails, lengths and verdicts stay, a restored stage says the same."""
    chance = random.Random(f"{protocol} {seed}")
    make, port = TALKS[protocol]
    talk = make(Maker(chance))
    said = sum(len(data) for _, data in talk)
    size = chance.choice([100_000, 1_000, 333, 64, *([7] if said < 4_000 else [])])
    pieces = sum(-(-len(data) // size) for _, data in talk)
    lost = {chance.randrange(1, pieces + 1) for _ in range(chance.choice([0, 0, 1, 2]))}
    batches = cycles(talk, port, size, chance.choice([1, 3, 100]), lost=lost)
    rules = chance.choice(RULES)
    stage, restored = Stage(rules, Levels()), Stage(rules, Levels())
    shown, again = list[Record](), list[Record]()
    for batch in batches:
        shown += stage.take(batch)
        again += restored.take(batch)
        if chance.random() < 0.3:
            saved, restored = restored.save(), Stage(rules, Levels())
            assert restored.restore(saved)
    assert [pack(record) for record in shown] == [pack(record) for record in again]
    _assert_hidden(shown)
    plain = [record for batch in batches for record in batch]
    for direction in (REQUEST, RESPONSE):
        before, after = stream(plain, direction), stream(shown, direction)
        assert len(before) == len(after)
        assert all(now in (was, ord("*")) for was, now in zip(before, after, strict=True))
    assert _verdict(plain) == _verdict(shown)
    assert not lost or "complete" != _verdict(shown)
    for level in (Level.MASKED, Level.METADATA):
        other = Stage(rules, Levels(default=level))
        kept = [
            Record(Kind.OPEN, plain[0].session, 0, None, {}),
            *(record for batch in batches for record in other.take(batch)),
        ]
        assert ([], []) == follow(kept), "the sums of the end hold"


def _verdict(records: Sequence[Record]) -> Value:
    (end,) = of_kind(records, Kind.CLOSE)
    completeness = end.body["completeness"]
    assert isinstance(completeness, dict)
    return cast("Value", completeness["verdict"])


def _assert_hidden(records: Sequence[Record]) -> None:
    """No record has the secret; in the payload it may stand only over a cut that the protocol, or a loss, makes."""
    projection = Projection()
    projection.receive(records)
    held = [pack(record) for record in records if record.kind is not Kind.DATA] + [repr(projection.changes()).encode()]
    assert [] == [form for form in FORMS for one in held if form in one]
    assert [] == [record.body for record in of_kind(records, Kind.MARKER) if record.body.get("name") == "masking"]
    for direction in (REQUEST, RESPONSE):
        own = [record.body for record in records if record.direction == direction]
        cuts = {body.get(name) for body in own for name in ("start", "end", "position")} - {None}
        payload = stream(records, direction)
        at = payload.find(SECRET)
        while at >= 0:
            assert any(at < cut < at + len(SECRET) for cut in cuts if isinstance(cut, int)), payload[at - 99 : at + 99]
            at = payload.find(SECRET, at + 1)


def test_what_waits_before_a_message_is_judged() -> None:
    """What a decoder passed over up to a message waits for no rest: it is judged before the message is."""
    said = b"x " * 300 + b"and sk-ant here, " + SECRET + b" "
    side = Side(RULES[0])
    side.append(0, said + b"GET / HTTP/1.1\r\n\r\n")
    side.scan(len(said), final=False)
    assert side.judged < said.index(SECRET)
    side.stop_scanning()
    assert SECRET not in filled(said, joined(side.places))
