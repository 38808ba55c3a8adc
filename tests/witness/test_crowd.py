"""More connections at once than there is room for: what an agent pushes out of the books does not go unsaid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from capd.daemon.witness import connections, verdicts
from capd.daemon.witness import witness as witnesses
from capd.daemon.witness.witness import Witness
from capd.recording.record import Direction, Record
from capd.recording.record import Kind as RecordKind
from tests.witness.world import SECOND, START, Connection, findings, hear, later, seen, witness

ROOM = 8
ONE = Connection(number=1)
UNKNOWN = [verdicts.UNKNOWN]


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "SEEN_MAX", ROOM)
    monkeypatch.setattr(witnesses, "FLOWS_MAX", ROOM)


def flood(made: Witness, *, spoke: bool = False, after_ns: int = 2 * SECOND) -> list[Record]:
    """Begin and end many more connections than there is room for; give what is stored."""
    many = [Connection(number=10 + at, port=50_000 + at, begins_ns=START + after_ns, moved=(0, 0)) for at in range(3 * ROOM)]
    return [record for one in many for record in seen(made, [one.opened(), *([one.data()] if spoke else []), one.closed()])]


def reasons(records: Iterable[Record]) -> list[str]:
    """Give what the last CLOSE record of ONE says."""
    closes = [one.body["completeness"] for one in records if one.kind is RecordKind.CLOSE and one.session == ONE.session]
    assert isinstance(closes[-1], dict)
    return [str(reason).partition(":")[0] for reason in closes[-1]["reasons"]]


def test_a_flood_hides_no_connection_that_spoke() -> None:
    """One that ended and waits for the enforcer's word is an alarm when it is pushed out, and its session is not complete."""
    made = witness()
    out = [*seen(made, ONE.probes()), *flood(made), *made.ready()]
    assert (UNKNOWN, UNKNOWN, 1) == (findings(out), reasons(out), made.books.counts.unknown)
    assert made.books.counts.forgotten


def test_a_flood_pushes_out_its_own() -> None:
    """Those that go on, and are decided, are compared to their end; what said nothing goes without a word."""
    made = witness()
    out = [*hear(made, ONE.let_in()), *seen(made, [ONE.opened(), ONE.data()]), *flood(made)]
    out += [*seen(made, [ONE.closed()]), *hear(made, ONE.ended()), *later(made)]
    assert ([], [], {}) == (findings(out), reasons(out), made.books.flows)


def test_open_ones_say_so_at_their_end() -> None:
    """Where all are open the oldest goes: its decisions are recorded, it is an alarm, and its end says so, as it does once."""
    made = witness()
    out = [*hear(made, ONE.let_in(), ONE.decided(0)), *seen(made, [ONE.opened(), ONE.data()])]
    out += [record for at in range(ROOM) for record in seen(made, [Connection(number=10 + at, port=50_000 + at).opened()])]
    out += [*made.ready(), *seen(made, [ONE.opened(), ONE.data(b"more", 1)]), *later(made, 1), *seen(made, [ONE.closed()])]
    assert (UNKNOWN, UNKNOWN, set()) == (findings(out), reasons(out), made.books.given_up)
    assert 1 == sum(record.kind is RecordKind.VERDICT for record in out)


def test_open_ones_that_nobody_remembers_say_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more were let go of than is remembered, none that began by then ends as complete, and those after it may."""
    monkeypatch.setattr(connections, "GIVEN_UP_MAX", 2)
    made = witness()
    out = [*hear(made, ONE.let_in(), ONE.decided(0)), *seen(made, [ONE.opened(), ONE.data()])]
    many = [Connection(number=10 + at, port=50_000 + at) for at in range(3 * ROOM)]
    out += seen(made, [record for one in many for record in (one.opened(), one.data())])
    out += [*made.ready(), *seen(made, [ONE.closed(), *(one.closed() for one in many)])]
    ends = [record.body["completeness"] for record in out if record.kind is RecordKind.CLOSE]
    complete = sum(isinstance(end, dict) and end["verdict"] == "complete" for end in ends)
    assert (UNKNOWN, ROOM) == (reasons(out), complete), "those that are in the books are judged by them"
    after = Connection(number=10_000, port=60_000)
    assert seen(made, [after.opened()]) + seen(made, [after.closed()]) == [after.opened(), after.closed()]


def test_those_that_were_turned_away_make_room_at_once() -> None:
    """What the enforcer said of a connection was all that was waited for."""
    made = witness()
    out = [*seen(made, ONE.probes()), *hear(made, ONE.turned_away()), *later(made, 1.5)]
    assert ([], {}) == (findings(out), made.books.seen)


def test_without_enforcement_a_crowd_is_no_alarm() -> None:
    """In mode `observe` nothing is missed by it."""
    made = witness(enforced=False)
    assert [] == findings([*seen(made, ONE.probes()), *flood(made, spoke=True), *made.ready()])


def test_two_that_were_turned_away_from_one_port() -> None:
    """Both are known, however fast the port is used again, whichever is told first."""
    second = replace(ONE, number=2, begins_ns=START + 1_000)
    heard = [ONE.data(direction=Direction.RESPONSE), second.data(direction=Direction.RESPONSE)]
    made = witness()
    out = seen(made, [ONE.opened(), second.opened(), *heard])
    out += [*hear(made, ONE.turned_away(), second.turned_away()), *later(made, 60)]
    assert ([], 2) == (findings(out), sum(record.kind is RecordKind.VERDICT for record in out))
