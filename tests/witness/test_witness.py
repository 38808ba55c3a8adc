"""The witness: who is who, what is written where, what is an alarm and what is none. Time comes as an argument."""

from __future__ import annotations

import copy
from dataclasses import replace
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.daemon.masking.levels import Level
from capd.daemon.witness.pending import PENDING_MAX
from capd.daemon.witness.witness import AWAY_MAX, Witness
from capd.enforcer.obligations.obligation import CarriedOut, Obligations
from capd.enforcer.policy.rule import Form, Injection, Mask
from capd.enforcer.proxy import entry
from capd.enforcer.proxy.commands import Report
from capd.enforcer.proxy.question import Destination, Question
from capd.enforcer.proxy.question import Kind as Kinds
from capd.recording.record import Direction, Kind, Record, Value, from_fields, pack, unpack_arrays
from tests.witness.world import RUN, SAID_KEY, SECOND, START, Connection, findings, hear, later, numbered, packed, seen, witness

ONE = Connection(number=1, requests=2)
OTHERS = [ONE.opened(run=UUID(int=9).bytes), ONE.closed()]
HELD = Question(number=1, kind=Kinds.REQUEST, destination=Destination(address="192.0.2.1", port=80), protocol="http1")
CUT = ONE.ended(received=99, all_of_it=False)
HEARD_ONE = ONE.data(direction=Direction.RESPONSE)


def verdicts(records: list[Record]) -> list[tuple[UUID, str, Value]]:
    """Give session, outcome and exchange of the verdicts among records."""
    return [(one.session, str(one.body["outcome"]), one.body["exchange"]) for one in records if one.kind is Kind.VERDICT]


def test_verdicts_stand_behind_their_messages() -> None:
    """Decisions that are there when their requests come stand right behind them, with totals that grow."""
    made = witness()
    assert [] == hear(made, ONE.let_in(), ONE.decided(0), ONE.decided(1))
    out = seen(made, ONE.probes())
    assert ["OPEN", "DATA", "MESSAGE", "VERDICT", "MESSAGE", "VERDICT", "CLOSE"] == [record.kind.name for record in out]
    assert [(ONE.session, "allow", 0), (ONE.session, "deny", 1)] == verdicts(out)
    totals = [record.body["so_far"] for record in out if record.kind is Kind.VERDICT]
    assert [{"allowed": 1, "denied": 0, "held": 0}, {"allowed": 1, "denied": 1, "held": 0}] == totals


def test_a_decision_that_is_read_late_is_written_at_once() -> None:
    """Decisions that come after their messages, or after the end of the session, are written when they come."""
    made = witness()
    assert [] == verdicts(seen(made, ONE.probes()[:-1]))
    assert [(ONE.session, "allow", 0)] == verdicts(hear(made, ONE.let_in(), ONE.decided(0)))
    seen(made, [ONE.closed()])
    assert [(ONE.session, "deny", 1)] == verdicts(hear(made, ONE.decided(1), ONE.ended()))
    assert ([], {}) == (findings(later(made)), made.books.flows)


def test_a_body_that_is_wanted_first_is_the_same_exchange() -> None:
    """A decision that wants the body counts neither as a request nor in the totals."""
    made = witness()
    seen(made, ONE.probes()[:-1])
    out = hear(made, ONE.let_in(), ONE.decided(0, body_wanted=True), ONE.decided(0), ONE.decided(1))
    assert [(ONE.session, "body_wanted", 0), (ONE.session, "allow", 0), (ONE.session, "deny", 1)] == verdicts(out)
    assert {"allowed": 0, "denied": 0, "held": 0} == out[0].body["so_far"]


def test_messages_that_are_not_recorded_cost_no_verdict() -> None:
    """Where level `metadata` keeps requests out, their decisions are written after some patience, and at the end."""
    made = witness(level=Level.METADATA)
    seen(made, [ONE.opened()])
    assert [] == hear(made, ONE.let_in(), ONE.decided(0))
    assert [] == verdicts(later(made, 1))
    assert [] == verdicts(later(made, 3, seen_seconds=1))
    assert [(ONE.session, "allow", 0)] == verdicts(later(made, 3))
    assert [] == hear(made, ONE.decided(1), now_ns=START + 3 * SECOND)
    assert ["VERDICT", "CLOSE"] == [record.kind.name for record in seen(made, [ONE.closed()])]


@pytest.mark.parametrize(("seconds", "seen_seconds"), [(20.0, 20.0), (600.0, 1.0)], ids=["late", "much later"])
def test_a_message_that_is_late_comes_before_its_verdict(seconds: float, seen_seconds: float) -> None:
    """Where messages are recorded, a decision waits for its own however long the probes take to tell of it."""
    made = witness()
    opened, *said = ONE.probes()
    seen(made, [opened])
    assert [] == hear(made, ONE.let_in(), ONE.decided(0), ONE.decided(1))
    assert [] == verdicts(later(made, seconds, seen_seconds))
    assert ["DATA", "MESSAGE", "VERDICT", "MESSAGE", "VERDICT", "CLOSE"] == [record.kind.name for record in seen(made, said)]


@pytest.mark.parametrize(
    ("probes", "enforcer", "seconds", "expected"),
    [
        pytest.param([ONE.opened(), ONE.data()], [], 1, [], id="too early to say"),
        pytest.param([ONE.opened(), ONE.data(), HEARD_ONE], [], 6, ["undecided flow"], id="open, was answered, no decision"),
        pytest.param([ONE.opened(), ONE.data()], [], 59, [], id="waits for an enforcer that is started anew"),
        pytest.param([ONE.opened(), ONE.data()], [ONE.let_in(50 * SECOND)], 60, [], id="waited for one"),
        pytest.param([ONE.opened(), ONE.data()], [], 61, ["undecided flow"], id="open, spoke, no decision"),
        pytest.param([ONE.opened()], [], 60, [], id="refused by the rules: nothing moved"),
        pytest.param(ONE.probes(), [], 60, ["undecided flow"], id="closed, no decision"),
        pytest.param([ONE.opened(), ONE.closed()], [], 60, ["undecided flow"], id="level metadata: its socket moved bytes"),
        pytest.param(ONE.probes(), [ONE.turned_away()], 60, [], id="turned away"),
        pytest.param(ONE.probes(), ONE.enforcer(), 60, [], id="both"),
        pytest.param([], [ONE.let_in()], 6, ["unseen flow"], id="no probe saw it"),
        pytest.param(OTHERS, [ONE.let_in()], 60, ["unseen flow", "undecided flow"], id="another run"),
        pytest.param([ONE.opened(mid_stream=True), ONE.data()], [], 60, [], id="began before capture"),
        pytest.param([ONE.opened(role="server"), ONE.data()], [], 60, [], id="the agent is the server"),
        pytest.param([ONE.opened(role="unknown"), ONE.data()], [], 61, ["undecided flow"], id="passed to the run"),
        pytest.param([ONE.opened(role="unknown", mid_stream=True), ONE.data()], [], 61, ["undecided flow"], id="passed late"),
        pytest.param([ONE.opened(role="unknown")], [], 60, [], id="passed to the run, silent"),
        pytest.param([ONE.opened(role="unknown"), ONE.data()], ONE.enforcer(), 60, [], id="opened while nobody captured"),
        pytest.param([ONE.opened(role="unknown"), ONE.opened(role="server"), ONE.data()], [], 60, [], id="a server, told late"),
        pytest.param([ONE.opened(role="unknown"), *ONE.probes()], [], 60, ["undecided flow"], id="a client, told late"),
        pytest.param([ONE.opened(transport="udp"), ONE.data()], [], 60, [], id="not TCP"),
        pytest.param([replace(ONE, begins_ns=1).opened(), ONE.data()], [], 60, [], id="before runs were forced"),
        pytest.param(ONE.probes(), [ONE.let_in(), ONE.ended(received=101)], 60, ["bytes differ"], id="read more than was sent"),
        pytest.param(ONE.probes(), [ONE.let_in(), ONE.ended(received=99)], 60, ["bytes differ"], id="read less than all"),
        pytest.param(ONE.probes(), [ONE.let_in(), CUT], 60, [], id="the enforcer left first"),
        pytest.param(ONE.probes(), [ONE.let_in(), ONE.ended(sent=199)], 60, ["bytes differ"], id="somebody else answered"),
        pytest.param(ONE.probes(), [ONE.let_in(), ONE.ended(sent=300)], 60, [], id="the agent left first"),
    ],
)  # fmt: skip
def test_what_is_an_alarm(probes: list[Record], enforcer: list[bytes], seconds: float, expected: list[str]) -> None:
    """Each disagreement is found once, whoever is read first, and nothing that is explained is one."""
    for log_first in (True, False):
        made = witness()
        out = hear(made, *enforcer) if log_first else []
        out += seen(made, probes)
        out += [] if log_first else hear(made, *enforcer)
        out += later(made, seconds)
        assert expected == findings(out)
        assert [] == findings(later(made, seconds))


SAID, HEARD = b"INSERT 1", b"done" * 9


def spoken(*, said: bytes = SAID, heard: bytes = HEARD) -> list[Record]:
    """Give what the probes tell of a connection on which something is said, in pieces, beside a handshake."""
    return [
        ONE.opened(),
        ONE.data(b"\x16\x03", layer="wire"),
        ONE.data(said[:3]),
        ONE.data(heard, direction=Direction.RESPONSE),
        ONE.data(said[3:], 3),
        ONE.closed(),
    ]


LOST = Record(Kind.GAP, ONE.session, START, Direction.REQUEST, {"position": 3, "length": 5})
OTHER_KEY = b"o" * 32
PARTLY = Record(
    Kind.CLOSE, ONE.session, START, None, {**ONE.closed().body, "completeness": {"verdict": "partial", "reasons": ["r"]}}
)


@pytest.mark.parametrize(
    ("probes", "key", "expected", "compared"),
    [
        pytest.param(spoken(), SAID_KEY, [], 1, id="the same"),
        pytest.param(spoken(said=b"DELETE 1"), SAID_KEY, ["bytes differ"], 1, id="the agent said another thing"),
        pytest.param(spoken(heard=b"gone" * 9), SAID_KEY, ["bytes differ"], 1, id="it had another answer"),
        pytest.param(spoken(said=SAID + b";", heard=HEARD + b";"), SAID_KEY, [], 0, id="not all of it was read"),
        pytest.param(spoken(said=SAID[:-1]), SAID_KEY, ["bytes differ"], 1, id="the enforcer read more than was seen"),
        pytest.param([*spoken(said=SAID[:-1])[:-1], PARTLY], SAID_KEY, [], 1, id="and that something is missing was told"),
        pytest.param(spoken(said=b"DELETE 1", heard=b"gone" * 9), OTHER_KEY, [], 0, id="another key"),
        pytest.param([*spoken(said=b"DELETE 1")[:4], LOST, ONE.closed()], SAID_KEY, [], 1, id="a part was not seen"),
        pytest.param([*spoken()[:4], ONE.data(SAID[3:], 8), ONE.closed()], SAID_KEY, [], 1, id="a part is elsewhere"),
    ],
)
def test_what_is_said_is_compared(probes: list[Record], key: bytes, expected: list[str], compared: int) -> None:
    """Of what both have seen whole, the content must be the same, not only its length."""
    made = witness()
    out = [*hear(made, ONE.let_in()), *seen(made, probes), *hear(made, ONE.ended(said=(SAID, HEARD), key=key)), *later(made)]
    assert (expected, compared) == (findings(out), made.books.counts.digested)


def test_what_capd_did_not_open_is_not_more_than_was_seen() -> None:
    """Of a session that begins in clear the enforcer counts all that crosses the socket, handshake and ciphertext too."""
    made, all_of_it = witness(), (b"x" * ONE.moved[0], HEARD)
    out = [*hear(made, ONE.let_in()), *seen(made, spoken()), *hear(made, ONE.ended(said=all_of_it)), *later(made)]
    assert [] == findings(out)


def test_a_recorder_that_begins_anew_compares_no_content() -> None:
    """Of a connection that was open then it has not seen all, and takes no part for the whole."""
    first = witness()
    seen(first, spoken(said=b"DELETE 1", heard=b"gone" * 9)[:3])
    made = witness(books=first.books)
    out = [*hear(made, ONE.let_in()), *seen(made, spoken()[3:]), *hear(made, ONE.ended(said=(SAID, HEARD))), *later(made)]
    assert ([], 0) == (findings(out), made.books.counts.digested)


def test_without_enforcement_nothing_is_an_alarm() -> None:
    """In mode `observe` verdicts are recorded, and no disagreement is an alarm."""
    nothing: list[bytes] = []
    for enforcer in (nothing, [ONE.let_in(), ONE.ended(received=1)]):
        made = witness(enforced=False)
        assert [] == findings([*seen(made, ONE.probes()), *hear(made, *enforcer), *later(made)])
    assert 0 == made.books.counts.differing
    made = witness(enforced=False)
    out = [*hear(made, *ONE.enforcer()), *later(made)]
    assert ([], 2) == (findings(out), len(verdicts(out)))


def test_lost_capture_is_no_agreement() -> None:
    """Where nobody counted all bytes of a socket, that is said: it is neither agreement nor an alarm."""
    made = witness()
    hear(made, *ONE.enforcer())
    out = [*seen(made, [ONE.opened(), ONE.data(), ONE.closed(counted=False)]), *later(made)]
    assert (["cannot be compared with what the enforcer says"], []) == (findings(out, alarm=False), findings(out))
    assert 1 == made.books.counts.incomparable


def test_an_alarm_changes_the_completeness() -> None:
    """A session with an alarm is not complete, whether it was found before its end or after."""
    made = witness()
    seen(made, [ONE.opened(), ONE.data(), HEARD_ONE])
    assert ["MARKER"] == [record.kind.name for record in later(made, 6)]
    (close,) = seen(made, [ONE.closed()])
    after = witness()
    after.watch(ONE.probes())
    marker, again = later(after)
    assert (Kind.MARKER, Kind.CLOSE) == (marker.kind, again.kind)
    for record in (close, again):
        told = record.body["completeness"]
        assert isinstance(told, dict)
        assert ("partial", True) == (told["verdict"], str(told["reasons"][0]).startswith("undecided flow"))


def test_a_connection_that_no_probe_saw_is_a_session_of_its_own() -> None:
    """Its decisions are in the recording all the same, under the enforcer's id, with an end."""
    made = witness()
    hear(made, *ONE.enforcer()[:-1])
    out = later(made)
    assert ["OPEN", "MARKER", "VERDICT", "VERDICT"] == [record.kind.name for record in out]
    assert {UUID(ONE.flow)} == {record.session for record in out} == made.alone()
    (close,) = hear(made, ONE.ended())
    assert ((Kind.CLOSE, UUID(ONE.flow)), {}) == ((close.kind, close.session), made.books.flows)


def test_a_port_is_used_again() -> None:
    """Without cookies, as in the classic tier, decisions go to the connection that had begun last when they were made."""
    first = replace(ONE, cookie=1 << 62 | 5)
    second = replace(first, number=2, begins_ns=START + 2 * SECOND, cookie=1 << 62 | 6)
    for order in ((first, second), (second, first)):
        made = witness()
        out = seen(made, [first.opened(), first.closed(), second.opened()])
        for one in order:
            out += hear(made, one.let_in(), one.decided(0))
        out += [*seen(made, [first.closed(), second.closed()]), *later(made)]
        assert {(first.session, first.flow), (second.session, second.flow)} == {
            (one.session, str(one.body["decision"]).partition("/")[0]) for one in out if one.kind is Kind.VERDICT
        }
        assert [] == findings(out)


def test_turned_away_connections_of_one_port() -> None:
    """Of two connections with the same ends each gets what was decided about it."""
    second = replace(ONE, number=2, begins_ns=START + 2 * SECOND)
    made = witness()
    hear(made, ONE.turned_away())
    out = seen(made, [ONE.opened(), ONE.data(), ONE.closed(), second.opened(), second.data()])
    out += [*hear(made, second.let_in()), *later(made, 60)]
    assert ([], [(ONE.session, "deny", None)]) == (findings(out), verdicts(out))


def test_what_waits_is_bounded() -> None:
    """Neither decisions without messages nor connections that were turned away fill the memory."""
    made = witness()
    seen(made, [ONE.opened()])
    hear(made, ONE.let_in(), *(ONE.decided(number) for number in range(PENDING_MAX + 50)))
    (flow,) = made.books.flows.values()
    assert PENDING_MAX >= len(flow.pending)
    hear(made, *(replace(ONE, port=number % 60_000).turned_away() for number in range(AWAY_MAX + 50)))
    assert AWAY_MAX == len(made.books.away)


def test_a_held_request_is_told_twice() -> None:
    """That a request waits for a person is a verdict of its own; what became of it is the next one, of the same exchange."""
    made = witness()
    seen(made, ONE.probes()[:-1])
    held = packed(entry.held_entry(ONE.flow, HELD, "approval-1", START))
    out = hear(made, ONE.let_in(), held, ONE.decided(0), ONE.decided(1))
    assert [(ONE.session, "held", 0), (ONE.session, "allow", 0), (ONE.session, "deny", 1)] == verdicts(out)
    assert ({"allowed": 1, "denied": 1, "held": 1}, {"id": "approval-1"}) == (out[2].body["so_far"], out[0].body["approval"])


OBLIGATIONS = Obligations(
    masks=(("hide", Mask(keys=("pin",))),), injections=(("put", Injection(credential="key", form=Form.BEARER)),)
)


def test_what_else_was_done_is_told() -> None:
    """A verdict names the rules that hid something and the credentials that were put in; how often stays in the log."""
    made = witness()
    seen(made, ONE.probes()[:-1])
    done = Report(number=1, carried_out=CarriedOut(masked={"hide": 2}, reflected={"key": 1}))
    out = hear(made, ONE.let_in(), ONE.decided(0, obligations=OBLIGATIONS), packed(entry.report_entry(ONE.flow, done, START)))
    assert [{"masks": ["hide"], "credentials": [["put", "key"]]}] == [record.body["obligations"] for record in out]
    assert 0 == made.books.counts.malformed


def test_verdicts_of_streams_name_their_streams() -> None:
    """Where requests are side by side a verdict names the stream that it is about, in whatever order they were decided."""
    made = witness()
    seen(made, [ONE.opened(), ONE.request(1), ONE.request(3)])
    out = hear(made, ONE.let_in(), ONE.decided(0, stream=3), ONE.decided(1, stream=1), ONE.decided(2, stream=5))
    assert [(ONE.session, "allow", 3), (ONE.session, "deny", 1)] == verdicts(out)
    assert [(ONE.session, "allow", 5)] == verdicts(seen(made, [ONE.request(5)]))


KINDS = [
    ONE.decided(0, obligations=OBLIGATIONS),
    packed(entry.held_entry(ONE.flow, HELD, "approval-1", START)),
    ONE.let_in(),
    ONE.turned_away(),
    ONE.decided(0),
    ONE.ended(),
]
VALUES = st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=8) | st.binary(max_size=40) | st.none() | st.booleans()


@given(st.sampled_from(KINDS), st.data())
def test_whatever_is_in_the_log_stops_nothing(body: bytes, data: st.DataObject) -> None:
    """An entry of which any field is anything is taken or counted, and those after it are taken."""
    facts = msgpack.unpackb(body)
    for key in data.draw(st.lists(st.sampled_from(sorted(facts)), min_size=1, max_size=3)):
        facts[key] = data.draw(VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=8), VALUES, max_size=3))
    made = witness()
    out = hear(made, data.draw(st.binary(max_size=50)), packed(facts), *ONE.enforcer())
    out += [*seen(made, ONE.probes()), *later(made)]
    assert (len(ONE.enforcer()) + 2, True) == (made.books.counts.entries, 2 <= len(verdicts(out)) <= 3)
    for record in out:
        assert pack(record) == pack(from_fields(next(unpack_arrays(pack(record)))))


def assert_in_order(records: list[Record]) -> None:
    """Time never goes back within a session: `capd verify` would call that a fault."""
    last: dict[UUID, int] = {}
    for record in records:
        assert last.setdefault(record.session, 0) <= record.time_ns
        last[record.session] = record.time_ns


def again(made: Witness, records: list[Record]) -> None:
    """Let it take records that are stored already."""
    made.observe(records)
    made.watch_again(records)


CONNECTIONS = [Connection(number=number, port=40_000 + number % 2, requests=number) for number in range(4)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_interleaving_and_any_deaths_record_everything_once(data: st.DataObject) -> None:
    """However log and journal come side by side, and wherever the recorder is killed: each verdict once, and no alarm."""
    probes = [record for one in CONNECTIONS for record in one.probes()]
    bodies = [body for one in CONNECTIONS for body in one.enforcer()]
    log = [(f"w0-00000001.log:{number}", numbered(body, number)) for number, body in enumerate(bodies, 1)]
    books, saved_probes, saved_log, keys = copy.deepcopy(witness().books), 0, 0, set[str]()
    made, read, heard = witness(books=copy.deepcopy(books)), 0, 0
    stored: list[Record] = []
    for step in data.draw(st.lists(st.sampled_from(["probes", "log", "due", "save", "kill"]), max_size=40)):
        match step:
            case "probes":
                more = data.draw(st.integers(1, 6))
                stored += seen(made, probes[read : read + more])
                read = min(read + more, len(probes))
            case "log":
                for key, body in log[heard : heard + 3]:
                    made.take(key, body, START)
                heard = min(heard + 3, len(log))
            case "due":
                made.due(heard_ns=START + SECOND, seen_ns=START + SECOND)
            case "save":
                stored += made.ready()
                keys.update(made.written())
                books, saved_probes, saved_log = copy.deepcopy(made.books), read, heard
                made.remembered()
                keys.clear()
            case _:
                stored += made.ready()
                keys.update(made.written())
                made = witness(books=copy.deepcopy(books), recorded=set(keys))
                again(made, probes[saved_probes:read])
                heard = saved_log
        stored += made.ready()
        keys.update(made.written())
    stored += seen(made, probes[read:])
    for key, body in log[heard:]:
        made.take(key, body, START)
    stored += [*made.ready(), *later(made)]
    expected = sorted((one.session, one.flow, number) for one in CONNECTIONS for number in range(one.requests))
    found = sorted((one.session, *str(one.body["decision"]).split("/")) for one in stored if one.kind is Kind.VERDICT)
    assert [(session, flow, str(number + 1)) for session, flow, number in expected] == found
    assert [] == findings(stored)
    assert_in_order(stored)
    assert RUN not in {record.session for record in stored}
