"""Entries of the log that are filled into a form are what they would be, packed as a whole."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.decision_log import DecisionLog, read_entries
from capd.enforcer.entry_form import Form, packed_hash, packed_number
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.policy.rule import Mask
from capd.enforcer.proxy.decision_form import filled_decision
from capd.enforcer.proxy.entry import decision_entry
from capd.enforcer.proxy.question import Destination, Kin, Kind, Login, Question, Statement, Verdict

EDGES = [0, 1, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]
HERE = Destination(address="192.0.2.1", port=5432)


@pytest.mark.parametrize("number", EDGES)
def test_numbers(number: int) -> None:
    """A number is packed to the byte as msgpack packs it; one that has no room is refused."""
    assert msgpack.packb(number) == packed_number(number)
    with pytest.raises(OverflowError):
        packed_number(number + (1 << 64))


@given(
    st.dictionaries(st.text(max_size=40), st.none() | st.integers(0, 1 << 60) | st.text() | st.lists(st.text()), max_size=40),
    st.sampled_from(EDGES),
    st.data(),
)
def test_a_form_is_the_whole(entry: dict[str, object], sequence: int, data: st.DataObject) -> None:
    """Whatever is left open, and filled in, the bytes are those of the whole."""
    entry.pop("sequence", None)
    left_open = {key: data.draw(st.integers(0, 1 << 63)) for key in entry if data.draw(st.booleans())}
    filled = Form(entry, left_open).filled(sequence, [packed_number(value) for value in left_open.values()])
    assert msgpack.packb({"sequence": sequence, **entry, **left_open}) == filled


def _question(number: int, content: bytes, text: str | None, kin: Kin | None) -> Question:
    statement = Statement(
        operation="SELECT", content=content, text=text, effects=frozenset({"select"}), resources=(("public.t", "read"),)
    )
    login = Login(user="agent", database="shop")
    return Question(
        number=number,
        kind=Kind.STATEMENT,
        destination=HERE,
        protocol="postgresql",
        login=login,
        statement=statement,
        carries_out=True,
        kin=kin,
    )


HIDDEN = Obligations(masks=(("hide", Mask(columns=("t.a",))),))
SAID = [
    (b"select 1", "select 1"),
    (b"select 22", "select 22"),
    (b"\xe4", "ä"),
    (b"\xff", None),
    (b"a\0\1", "a"),
    (b"a\0\2", "a"),
]


def test_decisions_of_kin(tmp_path: Path) -> None:
    """What is logged about questions that are kin is what is logged about each alone, however verdicts change."""
    kin, numbers = Kin(), iter(range(1, 1_000))
    whole, by_form = DecisionLog(tmp_path, "a"), DecisionLog(tmp_path, "b")
    used = 0
    for session in ("s1", "s2"):
        for allowed, rule, obligations in (
            (True, "r", NOTHING),
            (True, "r", HIDDEN),
            (False, "r", HIDDEN),
            (True, "q", NOTHING),
            (True, "r", NOTHING),
        ):
            for content, text in SAID:
                question = _question(next(numbers), content, text, kin)
                verdict = Verdict(number=question.number, allowed=allowed, rule=rule, policy="p", obligations=obligations)
                whole.append(decision_entry(session, question, verdict, 1 << 60))
                filled = filled_decision(session, question, verdict, 1 << 60)
                assert filled is not None
                by_form.append_filled(*filled)
                used += 1
    for log in (whole, by_form):
        log.close()
    one, other = ((tmp_path / f"{name}-00000001.log").read_bytes() for name in "ab")
    assert one == other
    last = list(read_entries(tmp_path / "b-00000001.log"))[-1]
    assert (used, sha256(b"a\0\2").digest(), sha256(b"a").digest()) == (
        last["sequence"],
        last["content_sha256"],
        last["text_sha256"],
    )


def test_what_has_no_form() -> None:
    """What a person decided, what needs more, and what has no kin, is logged as a whole."""
    plain = Verdict(number=1, allowed=True)
    approved = Verdict(number=1, allowed=True, approval={"id": "a"})
    wanting = Verdict(number=1, allowed=False, body_bytes=1)
    question = _question(1, b"x", "x", Kin())
    assert filled_decision("s", question, plain, 1) is not None
    for asked, verdict in ((question, approved), (question, wanting), (_question(1, b"x", "x", None), plain)):
        assert filled_decision("s", asked, verdict, 1) is None


def test_no_hash() -> None:
    """That there is no hash is packed as msgpack packs it."""
    assert msgpack.packb(None) == packed_hash(None)
    assert msgpack.packb(bytes(32)) == packed_hash(bytes(32))
