"""The index: what was recorded is found, while it is recorded, by whoever may read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording import index_segments
from capd.recording.errors import (
    AmbiguousSessionError,
    IndexUnusableError,
    NewerVersionError,
    NothingRecordedError,
    UnknownSessionError,
)
from capd.recording.index import Index
from capd.recording.index_schema import VERSION
from capd.recording.index_search import SessionFilter
from capd.recording.journal import Position
from capd.recording.projection import Projection
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import Endpoint, MessageRow, RunRow, SegmentRow, SessionProcess, SessionRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.writer import SegmentWriter

Conversation = Callable[..., list[Record]]
HOST = UUID(int=1)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Give an empty index."""
    with Index.open(tmp_path / "index" / "capd.db") as opened:
        yield opened


def take(index: Index, records: list[Record]) -> None:
    """Put the rows of records into an index."""
    projection = Projection(load_session=index.find_session, load_run=index.find_run)
    projection.receive(records)
    index.apply(projection.changes())
    index.commit()


def message(session: UUID, ordinal: int, summary: str, text: str = "", time_ns: int = 0) -> MessageRow:
    """Give a row of a message."""
    return MessageRow(
        session=session,
        ordinal=ordinal,
        time_ns=time_ns,
        direction=Direction.REQUEST,
        protocol="http1",
        type="request",
        exchange=0,
        summary=summary,
        text=text,
    )


def test_a_session_has_the_row_that_is_promised(index: Index, conversation: Conversation) -> None:
    """The public object of a closed session has every promised field, with its exact value."""
    records = conversation(1)
    take(index, records)
    (row,) = index.sessions()
    run = records[0].body["run"]
    assert isinstance(run, bytes)
    assert {
        "session": str(records[0].session),
        "run": str(UUID(bytes=run)),
        "run_name": "nightly",
        "labels": {"team": "data"},
        "host": str(HOST),
        "protocol": "http1",
        "transport": "tcp",
        "role": "client",
        "target": {"host": "127.0.0.1", "port": 443, "name": "api.example.org"},
        "local": {"host": "127.0.0.1", "port": 40001, "name": None},
        "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
        "process": {
            "pid": 4001,
            "exe": "/usr/bin/python3",
            "argv": ["python3", "agent.py"],
            "user": "ann",
            "start_ns": 5,
        },
        "started": "2025-11-21T04:40:01.000000000Z",
        "ended": "2025-11-21T04:40:01.005000000Z",
        "last": "2025-11-21T04:40:01.005000000Z",
        "state": "closed",
        "bytes": {"request": 80, "response": 80},
        "messages": 4,
        "completeness": {"verdict": "complete", "reasons": [], "policy": []},
        "tie": None,
        "decision": None,
        "expired": [],
    } == row.to_json()


def test_a_session_is_there_from_its_first_record_on(tmp_path: Path, index: Index, conversation: Conversation) -> None:
    """After its first record was taken in, another connection finds the session, open and not yet complete."""
    records = conversation(1)
    take(index, records[:1])
    with Index.open(tmp_path / "index" / "capd.db", readonly=True) as other:
        (row,) = other.sessions()
        assert ("open", None, "partial", ["still open"], 0) == (row.state, row.ended_ns, row.verdict, row.reasons, row.messages)
        take(index, records[1:4])
        (row,) = other.sessions()
        assert ("open", 1, (40, 40)) == (row.state, row.messages, row.bytes)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("split", range(1, 10))
def test_records_seen_twice_leave_the_same_index(tmp_path: Path, conversation: Conversation, split: int, closed: bool) -> None:
    """Records taken in again after a crash, with a new projection, change no row and add none."""
    records = conversation(1) if closed else conversation(1)[:-1]
    with Index.open(tmp_path / "a.db") as once:
        take(once, records)
        expected = (once.sessions(), once.search("message"), once.counts())
    with Index.open(tmp_path / "b.db") as twice:
        take(twice, records[: split + 1])
        take(twice, records[max(0, split - 3) :])
        assert expected == (twice.sessions(), twice.search("message"), twice.counts())


def test_gaps_and_what_was_there_before_make_a_session_partial(index: Index, conversation: Conversation) -> None:
    """Every reason is kept once, while the session is open and until its CLOSE record says better."""
    records = conversation(1)
    opening = replace(records[0], body={**records[0].body, "mid_stream": True})
    gap = Record(
        Kind.GAP, opening.session, opening.time_ns, Direction.REQUEST, {"position": 0, "length": 3, "reason": "ring full"}
    )
    take(index, [opening, gap, gap])
    (row,) = index.sessions()
    assert ("partial", ["started before capture", "ring full", "still open"]) == (row.verdict, row.reasons)


def test_an_open_record_with_fuller_facts_completes_the_row(index: Index, conversation: Conversation) -> None:
    """A repeated OPEN record adds what it knows and takes nothing away."""
    records = conversation(1)
    session, at = records[0].session, records[0].time_ns
    first = Record(Kind.OPEN, session, at, None, {"target": {"host": "10.0.0.1", "port": 5432, "name": None}, "role": "client"})
    later = Record(Kind.OPEN, session, at + 5, None, {"target": {"name": "orders"}, "process": {"pid": 7, "uid": 12}})
    take(index, [first, later])
    row = index.session(session)
    assert (Endpoint(host="10.0.0.1", port=5432, name="orders"), "client", at) == (row.target, row.role, row.started_ns)
    assert SessionProcess(pid=7, argv=[], user="12") == row.process


def test_runs_and_processes_come_from_markers(index: Index, conversation: Conversation) -> None:
    """The markers of a run give its row and those of its processes, and no session."""
    run = UUID(int=77)

    def mark(at: int, **body: object) -> Record:
        return Record(Kind.MARKER, run, at, None, body)  # type: ignore[arg-type]

    take(
        index,
        [
            mark(10, name="run", run_name="nightly", labels={"a": "b"}, command=["agent", "-x"], cgroup="/a", adopted=False),
            mark(11, name="exec", pid=5, start_ns=1, exe="/bin/agent", argv=["agent"], uid=1000),
            mark(12, name="fork", pid=5, start_ns=1, child_pid=6, child_start_ns=2),
            mark(13, name="exit", pid=6, status=256),
            mark(13, name="run_losses", control_events=2, streams=1, bytes=5),
            mark(14, name="run_losses", control_events=2, streams=0, bytes=0),
            mark(14, name="run_end"),
        ],
    )
    assert {"control_events": 2, "streams": 1, "bytes": 5} == index.run(run).lost
    assert 2 == len(index.run(run).missing())
    row = index.run("nightly")
    assert ("nightly", {"a": "b"}, ["agent", "-x"], 10, 14, 0) == (
        row.name,
        row.labels,
        row.command,
        row.started_ns,
        row.ended_ns,
        row.sessions,
    )
    assert [(5, 1, "/bin/agent", None), (6, 2, None, 256)] == [
        (process.pid, process.start_ns, process.exe, process.status) for process in index.processes(run)
    ]
    assert [] == index.sessions()
    take(index, [replace(conversation(1)[0], body={"run": run.bytes})])
    assert 1 == index.run(run).sessions


@pytest.mark.parametrize("name", [None, 7, [], {"a": [1]}, b"run"])
def test_a_marker_without_a_name_makes_nothing(index: Index, name: Value) -> None:
    """A marker of a hostile segment, whose name is anything, is passed over."""
    take(index, [Record(Kind.MARKER, UUID(int=5), 1, None, {"name": name})])
    assert [] == index.sessions()
    assert [] == index.runs()


def test_markers_of_the_host_make_no_session(index: Index) -> None:
    """A marker about something that has no other record leaves no row."""
    take(index, [Record(Kind.MARKER, HOST, 1, None, {"name": "capture_start"})])
    assert [] == index.sessions()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (SessionFilter(), [3, 2, 1]),
        (SessionFilter(protocol="postgresql"), [2]),
        (SessionFilter(state="closed"), [1]),
        (SessionFilter(verdict="complete"), [1]),
        (SessionFilter(target="db.example.org"), [2]),
        (SessionFilter(target="example.org"), [2, 1]),
        (SessionFilter(target="10.0.0.3"), [3]),
        (SessionFilter(target="xample.org"), []),
        (SessionFilter(run=UUID(int=50)), [1]),
        (SessionFilter(session=UUID(int=3)), [3]),
        (SessionFilter(user="ann"), [3]),
        (SessionFilter(from_ns=250), [3, 2]),
        (SessionFilter(until_ns=200), [1]),
        (SessionFilter(from_ns=150, until_ns=160), [1]),
        (SessionFilter(protocol="http1", state="open"), [3]),
    ],
)
def test_each_filter_finds_its_sessions(index: Index, where: SessionFilter, expected: list[int]) -> None:
    """Every filter leaves exactly the sessions that it describes, latest first."""
    rows = [
        SessionRow(
            session=UUID(int=1),
            run=UUID(int=50),
            protocol="http1",
            target=Endpoint(name="api.example.org"),
            started_ns=100,
            last_ns=199,
            ended_ns=199,
            state="closed",
            verdict="complete",
        ),
        SessionRow(
            session=UUID(int=2), protocol="postgresql", target=Endpoint(name="db.example.org"), started_ns=200, last_ns=300
        ),
        SessionRow(
            session=UUID(int=3),
            protocol="http1",
            target=Endpoint(host="10.0.0.3"),
            process=SessionProcess(user="ann"),
            started_ns=300,
            last_ns=400,
        ),
    ]
    for row in rows:
        index.upsert_session(row)
    assert expected == [row.session.int for row in index.sessions(where)]


def test_a_limit_keeps_the_latest(index: Index) -> None:
    """A limit leaves the sessions that started last; None leaves all."""
    for number in range(5):
        index.upsert_session(SessionRow(session=UUID(int=number), started_ns=number))
    assert [4, 3] == [row.session.int for row in index.sessions(limit=2)]
    assert 5 == len(index.sessions(limit=None))


def test_a_session_is_found_by_the_start_of_its_id(index: Index) -> None:
    """A unique start of an id, with or without dashes, in any case, finds its session; others say what is wrong."""
    ids = [UUID("0191a000-1111-7000-8000-000000000001"), UUID("0191a000-1111-7000-8000-000000000002"), UUID(int=5)]
    for identity in ids:
        index.upsert_session(SessionRow(session=identity))
    for text in (str(ids[1]), ids[1].hex, str(ids[1]).upper()):
        assert ids[1] == index.session(text).session
    assert ids[2] == index.session("0000").session
    for text in ("0192", "xyz", "", "0191a000-1111-7000-8000-0000000000011", "%"):
        with pytest.raises(UnknownSessionError):
            index.session(text)
    with pytest.raises(AmbiguousSessionError, match=f"{ids[0]}, {ids[1]}"):
        index.session("0191a0")


def test_text_that_is_no_unicode_can_be_indexed(index: Index) -> None:
    """Lone surrogates, NUL bytes and huge numbers in rows are stored, not refused."""
    session = UUID(int=1)
    process = SessionProcess(argv=["a\udcff"], exe="x\udcff\0y", start_ns=1 << 64)
    index.upsert_session(SessionRow(session=session, process=process, labels={"k": b"\xff"}, reasons=["\ud800"]))
    index.upsert_messages([message(session, 1 << 70, "needle \udcff", "\0x")])
    index.upsert_run(RunRow(run=UUID(int=2), name="\udcff"))
    assert ["x?\0y", (1 << 63) - 1] == [index.session(session).process.exe, index.session(session).process.start_ns]
    assert 1 == len(index.search("needle"))


def fill_segments(directory: Path, conversation: Conversation, sessions: int) -> None:
    """Write sealed segments, two sessions each, interleaved."""
    ticks = count(1)
    writer = SegmentWriter(directory, host=HOST, clock=lambda: next(ticks))
    for number in range(0, sessions, 2):
        pairs = zip(conversation(number), conversation(number + 1), strict=True)
        writer.append([record for pair in pairs for record in pair])
        writer.flush(Position(0, number))
        writer.seal({})


def test_an_index_rebuilt_from_segments_is_the_one_that_was_kept(tmp_path: Path, conversation: Conversation) -> None:
    """Rebuilding from segments alone gives the rows that were written while recording, and says where each session is."""
    segments = tmp_path / "segments"
    fill_segments(segments, conversation, 6)
    with Index.open(tmp_path / "kept.db") as kept:
        projection = Projection()
        for path in sorted(segments.iterdir()):
            with SegmentReader(path) as reader:
                projection.receive(reader.records())
                kept.apply(projection.changes())
                assert reader.footer is not None
                kept.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
        kept.commit()
        path = tmp_path / "rebuilt.db"
        path.write_bytes(b"not a database" * 1000)
        assert [] == index_segments.rebuild(path, segments)
        with Index.open(path, readonly=True) as rebuilt:
            assert kept.sessions() == rebuilt.sessions()
            assert kept.search("message") == rebuilt.search("message")
            assert kept.counts() == rebuilt.counts()
            assert 3 == rebuilt.last_segment()
            assert [[3], [3], [2], [2], [1], [1]] == [rebuilt.segments_of(row.session) for row in rebuilt.sessions()]


def test_a_damaged_segment_is_taken_in_as_far_as_it_goes(tmp_path: Path, conversation: Conversation) -> None:
    """Catching up passes over damage, names it, and takes in what is whole before and after it."""
    segments = tmp_path / "segments"
    fill_segments(segments, conversation, 6)
    paths = sorted(segments.iterdir())
    for path, size in ((paths[0], 10), (paths[1], -10)):
        path.write_bytes(path.read_bytes()[:size])
    with Index.open(tmp_path / "capd.db") as index:
        assert paths[:2] == index_segments.catch_up(index, segments)
        assert 4 == index.counts()["sessions"]
        assert [] == index_segments.catch_up(index, segments)


def test_a_newer_index_is_refused(tmp_path: Path) -> None:
    """An index of a later version is refused with both versions in the message, and is not touched."""
    path = tmp_path / "capd.db"
    with Index.open(path) as index:
        index._connection.execute("UPDATE meta SET value = ?", [VERSION + 1])
    for readonly in (True, False):
        with pytest.raises(NewerVersionError, match=f"format version {VERSION + 1}; this capd reads versions up to {VERSION}"):
            Index.open(path, readonly=readonly)


def test_an_index_of_an_earlier_version_is_not_used(tmp_path: Path) -> None:
    """It lacks what later ones have; it is made anew from the segments."""
    path = tmp_path / "capd.db"
    with Index.open(path) as index:
        index._connection.execute("UPDATE meta SET value = 1")
    with pytest.raises(IndexUnusableError, match="earlier"):
        Index.open(path)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes, readonly: bool) -> None:
    """A damaged or foreign file is told as such."""
    path = tmp_path / "capd.db"
    path.write_bytes(content)
    with pytest.raises(IndexUnusableError):
        Index.open(path, readonly=readonly)


def test_an_index_comes_into_being_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an index is made readers meet none, and after a crash there is none, nor is an older one's log taken for its."""
    path = tmp_path / "capd.db"

    def crash(_connection: object) -> None:
        assert not path.exists()
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("capd.recording.index.create_schema", crash)
        with pytest.raises(RuntimeError):
            Index.open(path)
    with pytest.raises(NothingRecordedError):
        Index.open(path, readonly=True)
    with Index.open(path) as older:
        older.upsert_run(RunRow(run=UUID(int=1), started_ns=1))
        older.commit()
        log = path.with_name("capd.db-wal").read_bytes()
    path.unlink()
    path.with_name("capd.db-wal").write_bytes(log)
    with Index.open(path) as index:
        assert 0 == index.counts()["runs"]


def test_an_index_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Reading where nothing was recorded says so."""
    with pytest.raises(NothingRecordedError, match="no recording in"):
        Index.open(tmp_path / "capd.db", readonly=True)
