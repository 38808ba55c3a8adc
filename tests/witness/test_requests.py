"""Request by request: what is decided and what was sent belong together, or that is told; and what is no disagreement."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capd.daemon.witness import pairs, requests
from capd.daemon.witness.witness import Witness
from capd.enforcer.proxy import entry
from capd.enforcer.proxy.commands import Refused
from capd.enforcer.proxy.question import Kind as About
from capd.enforcer.proxy.question import Question, Request, Verdict
from capd.recording.record import Direction, Kind, Record, Value
from tests.witness.world import DESTINATION, START, Connection, findings, hear, later, packed, seen, witness

ONE = Connection(number=1)
Said = list[Record]
Heard = list[bytes]


def decided(
    number: int,
    path: str,
    *,
    query: str | None = None,
    method: str = "GET",
    host: str = "api.test",
    about: About = About.REQUEST,
    stream: int | None = None,
    allowed: bool = True,
    body_wanted: bool = False,
) -> bytes:
    """Give the entry of a decision."""
    request = Request(method=method, host=host, path=path, query=query) if about is About.REQUEST else None
    protocol = "http1" if stream is None else "http2"
    question = Question(number=number, kind=about, destination=DESTINATION, protocol=protocol, request=request)
    verdict = Verdict(number=number, allowed=allowed, reason="" if allowed else "denied_by_policy", body_bytes=10 * body_wanted)
    told = entry.decision_entry(ONE.flow, question, verdict, START)
    return packed(told if stream is None else {**told, "exchange": stream})


def refused() -> bytes:
    """Give the entry that the proxy refused something by itself."""
    return packed(entry.refused_entry(ONE.flow, Refused(9, "two Host fields", ""), START))


def asked(number: int, target: str, *, protocol: str = "http1", **fields: str) -> Record:
    """Give the record of a request."""
    return ONE.request(number, protocol=protocol, target=target, **fields)


def restarted(target: str, *, sent: int = 1) -> list[str]:
    """Give what is found when the recorder ends between a connection's beginning and so many requests with a target."""
    made = witness()
    hear(made, ONE.let_in())
    seen(made, [ONE.opened()])
    made = witness(books=made.books)
    path, _, query = "/a?token=s3cret".partition("?")
    hear(made, *(decided(number + 1, path, query=query) for number in range(sent)))
    said = [record for number in range(sent) for record in (asked(number, target), ONE.answer(number))]
    return findings([*seen(made, said), *later(made)])


def test_a_path_that_was_read_again_from_the_recording_is_no_other_one() -> None:
    """The beginning of what goes on behind a recorder's end is known as it is recorded: masked. Of what follows it is not."""
    assert [] == restarted("/a?token=s3cret")
    assert [] == restarted("/a?token=******")
    assert ["request differs"] == restarted("/a?token=******", sent=2)
    assert ["request differs"] == restarted("/b?token=s3cret")


def gap(direction: Direction) -> Record:
    """Give the record of bytes that are missing."""
    body: dict[str, Value] = {"position": 0, "length": 9, "layer": "application", "reason": "ring full"}
    return Record(Kind.GAP, ONE.session, START, direction, body)


A, B = asked(0, "/a"), asked(1, "/b?x=1")
OK_A, OK_B = ONE.answer(0), ONE.answer(1)
DA, DB = decided(1, "/a"), decided(2, "/b", query="x=1")
PUT = asked(1, "/b?x=1", method="PUT")
CASES: dict[str, tuple[Said, Heard, list[str]]] = {
    "both say the same": ([A, OK_A, B, OK_B], [DA, DB], []),
    "pipelined": ([A, B, OK_A, OK_B], [DA, DB], []),
    "one form of a path": ([asked(0, "/x/../%61"), OK_A], [DA], []),
    "an absolute target": ([asked(0, "http://api.test/a"), OK_A], [DA], []),
    "denied": ([A, OK_A], [decided(1, "/a", allowed=False)], []),
    "a body was wanted first": ([A, OK_A], [decided(1, "/a", allowed=False, body_wanted=True), DA], []),
    "answered without a decision": ([A, OK_A, B, OK_B], [DA], ["undecided request"]),
    "answered without any": ([A, OK_A], [], ["undecided request"]),
    "an interim answer is none": ([A, OK_A, B, ONE.answer(1, interim=True)], [DA], []),
    "sent behind the last answer": ([A, B, OK_A], [DA], []),
    "aborted at once": ([A], [], []),
    "refused before any policy": ([A, OK_A, asked(1, "/b%2fc"), OK_B], [DA, refused()], []),
    "refused once, answered twice": ([A, OK_A, B, OK_B, asked(2, "/c"), ONE.answer(2)], [DA, refused()], ["undecided request"]),
    "cut while it was judged": ([A], [decided(1, "/a", allowed=False, body_wanted=True), refused()], []),
    "a decision too many": ([A, OK_A], [DA, DB], ["unseen request"]),
    "decisions without any": ([], [DA], ["unseen request"]),
    "another path": ([A, OK_A], [decided(1, "/other")], ["request differs"]),
    "another query": ([B, OK_B], [decided(1, "/b", query="x=2")], ["request differs"]),
    "another method": ([PUT, OK_B], [decided(1, "/b", query="x=1")], ["request differs"]),
    "another host": ([A, OK_A], [decided(1, "/a", host="other.test")], ["request differs"]),
    "another order": ([A, OK_A, B, OK_B], [DB, DA], ["request differs"]),
    "bytes are missing before": ([A, OK_A, gap(Direction.REQUEST), B, OK_B], [DA], []),
    "bytes are missing, so are requests": ([gap(Direction.REQUEST), B, OK_B], [DA, DB], []),
    "bytes of answers are missing": ([A, OK_A, gap(Direction.RESPONSE), B, OK_B], [DA], ["undecided request"]),
    "relayed unread": ([A, OK_A, B, OK_B], [decided(1, "", about=About.OPAQUE)], []),
    "tls passes": ([A, OK_A], [decided(1, "", about=About.PASSTHROUGH)], []),
    "tls is opened": ([A, OK_A], [decided(1, "", about=About.PASSTHROUGH, allowed=False)], ["undecided request"]),
    "streams in any order": (
        [asked(1, "/a", protocol="http2"), asked(3, "/b?x=1", protocol="http2"), ONE.answer(3), ONE.answer(1)],
        [decided(1, "/b", query="x=1", stream=3), decided(2, "/a", stream=1)],
        [],
    ),
    "streams that were changed for each other": (
        [asked(1, "/a", protocol="http2"), asked(3, "/b?x=1", protocol="http2")],
        [decided(1, "/b", query="x=1", stream=1), decided(2, "/a", stream=3)],
        ["request differs"],
    ),
    "a stream without a decision": (
        [asked(1, "/a", protocol="http2"), asked(3, "/b?x=1", protocol="http2"), ONE.answer(1), ONE.answer(3)],
        [decided(1, "/b", query="x=1", stream=3)],
        ["undecided request"],
    ),
}


def log_first(made: Witness, said: Said, heard: Heard) -> Said:
    """Hear the log, then the probes."""
    return [*hear(made, ONE.let_in(), *heard), *seen(made, [ONE.opened(), ONE.data(), *said]), *hear(made, ONE.ended())]


def probes_first(made: Witness, said: Said, heard: Heard) -> Said:
    """Hear the probes, then the log."""
    return [*seen(made, [ONE.opened(), ONE.data(), *said]), *hear(made, ONE.let_in(), *heard, ONE.ended())]


@pytest.mark.parametrize("order", [log_first, probes_first])
@pytest.mark.parametrize("name", CASES)
def test_what_is_an_alarm(name: str, order: Callable[[Witness, Said, Heard], Said]) -> None:
    """Each disagreement about requests is told once, whoever is read first; what can be explained is none."""
    said, heard, expected = CASES[name]
    made = witness()
    out = [*order(made, said, heard), *later(made), *seen(made, [ONE.closed()]), *later(made), *later(made)]
    assert expected == findings(out)
    assert len(expected) == made.books.counts.requests
    assert ({}, {}) == (made.books.flows, made.books.seen)


def test_without_enforcement_nothing_is_an_alarm() -> None:
    """Where runs are not forced through the enforcer a request without a decision is none of its."""
    made = witness(enforced=False)
    out = [*log_first(made, [A, OK_A, B, OK_B], [DB]), *seen(made, [ONE.closed()]), *later(made)]
    assert ([], 0) == (findings(out), made.books.counts.requests)


def test_an_unfinished_recording_proves_nothing() -> None:
    """A decision about a request that was not seen is counted, not told, where the session is not completely recorded."""
    made = witness()
    close = ONE.closed()
    partial = {**close.body, "completeness": {"verdict": "opaque", "reasons": ["no plaintext"]}}
    out = log_first(made, [], [DA])
    out += [*seen(made, [Record(close.kind, close.session, close.time_ns, None, partial)]), *later(made)]
    assert ([], 1) == (findings(out), made.books.counts.unpaired)


def test_what_is_not_compared_is_counted() -> None:
    """A connection of which requests may be missing in the recording is counted: it is neither agreement nor an alarm."""
    made = witness()
    out = [*log_first(made, [A, OK_A, gap(Direction.REQUEST), B, OK_B], [DA]), *seen(made, [ONE.closed()]), *later(made)]
    assert ([], 1) == (findings(out), made.books.counts.unpaired)
    made = witness()
    hear(made, ONE.let_in(), DA, ONE.ended())
    seen(made, [ONE.opened(), ONE.data(), A, OK_A, ONE.closed()])
    assert ([], 0) == (findings(later(made)), made.books.counts.unpaired)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither requests nor decisions fill the memory, of one connection or of all; what is over is not compared."""
    made = witness()
    seen(made, [ONE.opened(), *(asked(number, "/a") for number in range(requests.WAITING_MAX + 10))])
    assert [[]] == [one.asked for one in made.books.seen.values()]
    hear(made, ONE.let_in(), *(decided(number, "/a") for number in range(requests.WAITING_MAX + 10)))
    assert [[]] == [one.ruled for one in made.books.flows.values()]
    monkeypatch.setattr(pairs, "WAITING_MAX", 3)
    made = witness()
    for number in range(5):
        one = Connection(number=number)
        seen(made, [one.opened(), one.request(0)])
    assert 3 == sum(len(one.asked) for one in made.books.seen.values())
    assert [] == findings(later(made))


def missing(number: int) -> bytes:
    """Give an entry that stands behind one that is missing."""
    return packed(entry.refused_entry(ONE.flow, Refused(9, "x", ""), START), number)


def test_a_missing_entry_makes_verdicts_unknown() -> None:
    """Of connections that were open when an entry went missing it is told that what was decided is not known; of others not."""
    made, other, after = witness(), Connection(number=2), Connection(number=3)
    seen(made, [*other.probes(), ONE.opened(), ONE.data(), A, OK_A])
    out = hear(made, *other.enforcer(), ONE.let_in(), missing(9))
    out += [*hear(made, packed({"kind": "later"}, 10), *after.enforcer()), *seen(made, [*after.probes(), ONE.closed()])]
    out += [*hear(made, ONE.ended()), *later(made)]
    told = [record for record in out if record.body.get("alarm") is True]
    assert [(ONE.session, "verdicts not known: 5 entries of the decision log missing")] == [
        (record.session, record.body["finding"]) for record in told
    ]
    close = [record for record in out if record.kind is Kind.CLOSE and record.session == ONE.session][-1]
    assert "partial" == close.body["completeness"]["verdict"]  # type: ignore[index, call-overload]
    assert (5, 1, True) == (made.books.counts.missing, made.books.counts.unknown, made.books.counts.missing_ns is not None)


def test_a_process_that_begins_anew_loses_nothing() -> None:
    """Numbers begin with 1 in each process of a worker; what the one before had open is over, and that is no alarm."""
    made = witness()
    seen(made, [ONE.opened(), ONE.data(), A, OK_A])
    out = hear(made, ONE.let_in(), DA, packed({"kind": "later"}, 1))
    out += [*seen(made, [ONE.closed()]), *later(made)]
    assert ([], 0) == (findings(out), made.books.counts.missing)
    assert ["cannot be compared with what the enforcer says"] == findings(out, alarm=False)
    assert ({}, {}) == (made.books.flows, made.books.seen)


def test_a_lost_file_makes_verdicts_unknown() -> None:
    """Where a part of a writer's log cannot be read, its open connections are told of, those that no probe saw too."""
    made = witness()
    seen(made, [ONE.opened(), ONE.data()])
    alone = Connection(number=2, port=41_000)
    hear(made, ONE.let_in(), alone.let_in())
    made.lose("w1", "another's", START)
    made.lose("w0", "a part is gone", START)
    out = [*later(made), *hear(made, ONE.ended(), alone.ended()), *seen(made, [ONE.closed()]), *later(made)]
    assert ["verdicts not known", "unseen flow"] == sorted(findings(out), reverse=True)
    (close,) = [record for record in out if record.kind is Kind.CLOSE and str(record.session) == alone.flow]
    assert "verdicts not known: a part is gone" in close.body["completeness"]["reasons"]  # type: ignore[index, call-overload, operator]
