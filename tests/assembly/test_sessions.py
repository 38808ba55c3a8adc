"""Sessions: when they begin, what is known of them, when they end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from capd.daemon.assembly import sessions as table
from capd.daemon.assembly.completeness import FOREIGN, URING
from capd.daemon.assembly.waiting import DRAINED_FORM
from capd.probes.layouts import EventKind, MidStream, Role
from capd.recording.journal import Block
from capd.recording.record import Kind, Record, Value
from tests.assembly.world import (
    BOOT,
    HOST,
    MS,
    PID,
    REQUEST,
    RESPONSE,
    RUN,
    RUN_ID,
    START,
    Daemon,
    assemble,
    assembler,
    closed,
    event,
    executed,
    exited,
    forked,
    moved,
    of_kind,
    opened,
    sessions,
    stream,
    verdicts,
)

UDP = {"kind": 2, "protocol": 17}


def begin(daemon: Daemon) -> list[list[Block]]:
    """Give the cycles that every story begins with."""
    return [daemon.started(), daemon.run_started()]


def markers(records: Iterable[Record]) -> list[Value]:
    """Give the names of the markers."""
    return [record.body["name"] for record in of_kind(records, Kind.MARKER)]


def test_a_library_that_is_not_watched_is_told_in_its_run() -> None:
    """The note of a file that cannot be watched becomes a marker of the run that mapped it."""
    daemon = Daemon()
    note = daemon.note(3 * MS, note="attach_failed", device=1, inode=2, path="/opt/libssl.so", reason="why", run=RUN)
    records = assemble([daemon.started(), daemon.run_started(), note])
    gap = {"name": "coverage_gap", "path": "/opt/libssl.so", "reason": "why", "device": 1, "inode": 2}
    assert [(RUN_ID, gap)] == [(record.session, record.body) for record in records if record.body.get("name") == "coverage_gap"]


def test_a_conversation_becomes_one_session_from_open_to_close() -> None:
    """What one socket carried is one session: facts, bytes both ways, messages, a verdict."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(
        daemon.cycle(
            10 * MS,
            control=[executed(1_000, b"/usr/bin/curl", b"curl", b"http://x/"), opened(2_000, 9)],
            data=[
                moved(3_000, 9, REQUEST, 0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                moved(4_000, 9, RESPONSE, 0, b"HTTP/1.1 204 No Content\r\n\r\n"),
            ],
        )
    )
    story.append(daemon.cycle(20 * MS, control=[closed(5_000, 9, 27, 27, (27, 27))]))
    ((session, records),) = sessions(assemble(story)).items()
    assert [Kind.OPEN, Kind.DATA, Kind.MARKER, Kind.MESSAGE] == [record.kind for record in records[:4]]
    assert Kind.CLOSE is records[-1].kind
    assert [("complete", [])] == verdicts(records)
    opening = records[0].body
    assert (RUN_ID.bytes, HOST.bytes, BOOT.bytes) == (opening["run"], opening["host"], opening["boot"])
    assert {"host": "192.0.2.7", "port": 80, "name": None} == opening["target"]
    assert {
        "pid": PID,
        "start_ns": START,
        "exe": "/usr/bin/curl",
        "argv": ["curl", "http://x/"],
        "uid": 1000,
        "user": "ann",
        "comm": "curl",
    } == opening["process"]
    assert 7 == session.version


def test_facts_that_come_late_repeat_the_open_record() -> None:
    """Data before its SOCKET_OPEN and its EXEC opens the session at once; both are told by a repeated OPEN."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, data=[moved(3_000, 9, REQUEST, 0, b"EHLO a\r\n")]))
    story.append(daemon.cycle(20 * MS, control=[opened(2_000, 9, role=Role.SERVER), executed(1_000, b"/bin/mail", b"mail")]))
    openings = [record.body for record in of_kind(assemble(story), Kind.OPEN)]
    assert [None, "tcp"] == [body["transport"] for body in openings]
    assert ["unknown", "server"] == [body["role"] for body in openings]
    first, last = (body["process"] for body in openings)
    assert isinstance(first, dict)
    assert isinstance(last, dict)
    assert (None, "/bin/mail") == (first["exe"], last["exe"])


@pytest.mark.parametrize(
    ("role", "peer", "count"),
    [(Role.CLIENT, ("192.0.2.7", 80), 1), (Role.SERVER, ("192.0.2.7", 80), 1), (Role.UNKNOWN, ("", 0), 0)],
)
def test_a_silent_socket_is_a_session_if_it_was_connected(role: Role, peer: tuple[str, int], count: int) -> None:
    """A connection without a byte is recorded; a socket that never was connected nor carried anything is not."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9, role=role, peer=peer), closed(2_000, 9, 0, 0)]))
    records = assemble(story)
    assert count == len(of_kind(records, Kind.OPEN)) == len(of_kind(records, Kind.CLOSE))


def test_an_unconnected_datagram_socket_has_the_first_peer_as_its_target() -> None:
    """Whom it spoke with first is its target, and each datagram says its own peer."""
    daemon = Daemon()
    story = begin(daemon)
    peers = [(2, 53, bytes([192, 0, 2, last]) + bytes(12)) for last in (9, 10)]
    data = [moved(2_000 + number, 9, REQUEST, number, b"q", peer=peer) for number, peer in enumerate(peers)]
    udp = opened(1_000, 9, kind=2, protocol=17, role=0, peer=("", 0))
    story.append(daemon.cycle(10 * MS, control=[udp], data=data))
    records = assemble(story)
    told = [record.body["target"] for record in of_kind(records, Kind.OPEN)]
    assert {"host": "192.0.2.9", "port": 53, "name": None} == told[-1]
    hosts = [{"host": "192.0.2.9", "port": 53}, {"host": "192.0.2.10", "port": 53}]
    assert hosts == [record.body["peer"] for record in of_kind(records, Kind.DATA)]


def test_a_passed_descriptor_stays_one_session() -> None:
    """Two processes that use one socket make one session, of the first; the second is told by a marker."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(
        daemon.cycle(
            10 * MS,
            control=[opened(1_000, 9), forked(1_500, 77, 1_500)],
            data=[moved(2_000, 9, REQUEST, 0, b"ab"), moved(3_000, 9, REQUEST, 2, b"cd", pid=77, start=1_500)],
        )
    )
    records = assemble(story)
    assert 1 == len(sessions(records))
    assert b"abcd" == stream(records, REQUEST)
    users = [record.body["pid"] for record in of_kind(records, Kind.MARKER) if record.body["name"] == "process"]
    assert [77] == users
    assert [None, 77] == [record.body.get("pid") for record in of_kind(records, Kind.DATA)]


def test_lineage_is_told_on_the_run() -> None:
    """Fork, exec and exit are markers of the run, in their order."""
    daemon = Daemon()
    story = begin(daemon)
    events = [
        executed(1_000, b"/bin/sh", b"sh"),
        forked(2_000, 77, 1_500),
        executed(3_000, b"/bin/ls", b"ls", b"-l", pid=77, start=1_500),
        exited(4_000, pid=77, start=1_500, status=256),
    ]
    story.append(daemon.cycle(10 * MS, control=events))
    of_run = [record for record in assemble(story) if record.session == RUN_ID]
    assert ["run", "exec", "fork", "exec", "exit"] == markers(of_run)
    assert 256 == of_run[-1].body["status"]


def test_the_end_of_a_run_closes_what_is_open() -> None:
    """After run_ended no session of the run stays open, and the run's end is the last that is said of it."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9)], data=[moved(2_000, 9, REQUEST, 0, b"ab")]))
    story.append(daemon.note(20 * MS, note="run_ended", key=RUN))
    records = assemble(story)
    assert ["closed"] == [record.body["state"] for record in of_kind(records, Kind.CLOSE)]
    assert "run_end" == records[-1].body["name"]


def test_a_run_whose_note_comes_late_is_not_another_run() -> None:
    """Sessions that were opened before the note of their run are announced again with the run's own id."""
    daemon = Daemon()
    story = [daemon.started()]
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9)]))
    story.append(daemon.run_started(20 * MS))
    openings = of_kind(assemble(story), Kind.OPEN)
    assert RUN_ID.bytes == openings[-1].body["run"]
    assert RUN_ID.bytes != openings[0].body["run"]


@pytest.mark.parametrize(
    ("socket", "later_ns", "closes"),
    [
        (UDP, 1_000 * MS, 0),
        (UDP, 3_000 * MS, 1),
        ({"family": 1, "protocol": 0, "path": b"/run/x", "peer": ("", 0), "local": ("", 0)}, 3_000 * MS, 1),
        ({}, 3_000 * MS, 0),
    ],
)
def test_a_datagram_session_ends_when_its_users_are_gone(socket: dict[str, object], later_ns: int, closes: int) -> None:
    """Two seconds after its last user a unix or UDP session ends by itself; TCP tells its end."""
    daemon = Daemon()
    story = begin(daemon)
    facts = opened(1_000, 9, **socket)  # type: ignore[arg-type]
    story.append(daemon.cycle(10 * MS, control=[facts, exited(5_000)], data=[moved(2_000, 9, REQUEST, 0, b"q")]))
    story.append(daemon.cycle(10 * MS + later_ns, control=[executed(11 * MS, b"/bin/true", pid=5, start=6)]))
    assert closes == len(of_kind(assemble(story), Kind.CLOSE))


@pytest.mark.parametrize(
    ("told", "completeness"),
    [
        (MidStream.NO, ("complete", [])),
        (MidStream.MOVED, ("partial", ["started before capture"])),
        (MidStream.FOREIGN, ("partial", [FOREIGN])),
    ],
)
def test_a_socket_that_may_have_spoken_before_is_partial(told: int, completeness: tuple[str, list[str]]) -> None:
    """The verdict says which it was: bytes that TCP counted, or a socket from outside on which nobody counts."""
    daemon = Daemon()
    story = begin(daemon)
    facts = opened(1_000, 9, kind=2, protocol=17, mid_stream=told)
    story.append(daemon.cycle(10 * MS, control=[facts, exited(5_000)], data=[moved(2_000, 9, REQUEST, 0, b"q")]))
    story.append(daemon.cycle(3_000 * MS, control=[executed(11 * MS, b"/bin/true", pid=5, start=6)]))
    records = assemble(story)
    (close,) = of_kind(records, Kind.CLOSE)
    verdict, reasons = completeness
    assert {"verdict": verdict, "reasons": reasons} == close.body["completeness"]
    assert (told != MidStream.NO) == of_kind(records, Kind.OPEN)[-1].body["mid_stream"]


@pytest.mark.parametrize(("transport", "counted"), [(UDP, False), ({}, True)])
@pytest.mark.parametrize("when_ns", [500, 2_500])
def test_a_process_that_uses_io_uring_is_trusted_where_the_kernel_counts(
    transport: dict[str, int], *, counted: bool, when_ns: int
) -> None:
    """Told before or after it spoke: its UDP session is partial and its run says so; TCP counts for itself."""
    daemon = Daemon()
    story = begin(daemon)
    facts = opened(1_000, 9, **transport)  # type: ignore[arg-type]
    uses = event(EventKind.URING_USED, when_ns, b"")
    ends = [closed(4_000, 9, 1, 0, (1, 0)), exited(5_000)]
    story.append(daemon.cycle(10 * MS, control=[facts, uses, *ends], data=[moved(2_000, 9, REQUEST, 0, b"q")]))
    records = assemble(story)
    assert [("complete", []) if counted else ("partial", [URING])] == verdicts(records)
    assert "io_uring" in markers(records)


def test_a_child_that_may_have_inherited_a_socket_keeps_it_open() -> None:
    """A UDP session goes on while a living child of its user may hold its descriptor."""
    daemon = Daemon()
    story = begin(daemon)
    control = [opened(1_000, 9, kind=2, protocol=17), forked(1_500, 77, 1_500), exited(5_000)]
    story.append(daemon.cycle(10 * MS, control=control, data=[moved(1_200, 9, REQUEST, 0, b"q")]))
    story.append(daemon.cycle(9_000 * MS, control=[executed(8_000 * MS, b"/bin/true", pid=5, start=6)]))
    story.append(daemon.cycle(9_100 * MS, control=[exited(9_000 * MS, pid=77, start=1_500)]))
    assert [] == of_kind(assemble(story), Kind.CLOSE)
    story.append(daemon.cycle(13_000 * MS, control=[executed(12_000 * MS, b"/bin/true", pid=5, start=6)]))
    assert 1 == len(of_kind(assemble(story), Kind.CLOSE))


def test_a_reboot_abandons_what_was_open() -> None:
    """A start note of another boot closes every session as abandoned and ends the runs."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9)], data=[moved(2_000, 9, REQUEST, 0, b"ab")]))
    story.append(daemon.started(5, epoch=HOST, boot=HOST))
    records = assemble(story)
    assert ["abandoned"] == [record.body["state"] for record in of_kind(records, Kind.CLOSE)]
    assert "run_end" in markers(records)


def test_too_many_open_sessions_end_the_silent_ones_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the longest silent session is closed with a marker; speaking again it is a session that began before."""
    monkeypatch.setattr(table, "SESSIONS_MAX", 4)
    monkeypatch.setattr(table, "EVICTED_AT_ONCE", 1)
    daemon = Daemon()
    story = begin(daemon)
    for number in range(5):
        story.append(daemon.cycle((10 + number) * MS, data=[moved((10 + number) * MS, 100 + number, REQUEST, 0, b"ab")]))
    story.append(daemon.cycle(30 * MS, data=[moved(29 * MS, 100, REQUEST, 2, b"cd")]))
    made = assembler()
    records = assemble(story, into=made)
    assert 2 == made.table.evictions
    assert ["abandoned", "abandoned"] == [record.body["state"] for record in of_kind(records, Kind.CLOSE)]
    assert 2 == markers(records).count("evicted")
    assert [("partial", ["too many open sessions"])] * 2 == verdicts(records)
    assert of_kind(records, Kind.OPEN)[-1].body["mid_stream"]
    assert b"cd" == stream([r for r in records if r.session == of_kind(records, Kind.OPEN)[-1].session], REQUEST)
    assert [] == of_kind(records, Kind.GAP)


def test_ids_follow_from_the_journal_alone() -> None:
    """Reading the same blocks again gives the same ids, and every session another one."""
    ids = []
    for _ in range(2):
        daemon = Daemon()
        story = begin(daemon)
        story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9), opened(1_000, 10)]))
        ids.append(list(sessions(assemble(story))))
    assert ids[0] == ids[1]
    assert 2 == len(set(ids[0]))


def late_story(*, heir: bool = False, late_ns: int = 20 * MS) -> list[Record]:
    """Give what is recorded of a unix socket of which a process is told to have ended before it is told what it said."""
    daemon = Daemon()
    story = [daemon.started(form=DRAINED_FORM), daemon.run_started()]
    facts = opened(1_000, 9, family=1, protocol=0)
    story.append(daemon.cycle(10 * MS, control=[facts, *([forked(1_500, 77, 1_500)] if heir else []), exited(5_000)]))
    story.append(daemon.cycle(20 * MS, data=[moved(2_000, 9, REQUEST, 0, b"hello "), moved(2_500, 9, REQUEST, 6, b"you ")]))
    story.append(daemon.cycle(late_ns, data=[moved(3_000, 9, REQUEST, 10, b"there")]))
    story.append(daemon.drained(late_ns))
    story.append(daemon.cycle(9_000 * MS, control=[executed(8_000 * MS, b"/bin/true", pid=5, start=6)]))
    return assemble(story)


@pytest.mark.parametrize("late_ns", [20 * MS, 8_000 * MS])
def test_what_is_told_after_its_speaker_ended_ends_too(late_ns: int) -> None:
    """A session of a process that was told to have ended first is closed like any whose users are gone, once all is there."""
    records = late_story(late_ns=late_ns)
    (end,) = of_kind(records, Kind.CLOSE)
    assert {end.session} == {record.session for record in of_kind(records, Kind.OPEN)}
    assert b"hello you there" == stream(records, REQUEST)


def test_a_child_of_a_speaker_that_ended_keeps_its_socket_open() -> None:
    """While a child lives that may hold the descriptor, the session goes on."""
    assert [] == of_kind(late_story(heir=True), Kind.CLOSE)
