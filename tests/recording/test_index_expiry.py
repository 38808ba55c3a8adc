"""The index after a segment expired: what only it told is gone, to the last byte, and what is left says so."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.recording import index_carried, index_segments
from capd.recording.deletions import Deleted, Deletion
from capd.recording.identity import uuid7_from
from capd.recording.index import Index
from capd.recording.index_expiry import first_ordinal
from capd.recording.index_leftovers import middle
from capd.recording.journal import Position
from capd.recording.projection import Projection
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import ExpiredPart, SegmentRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.writer import SegmentWriter

HOST = UUID(int=1)
START_NS = 1_763_700_000_000_000_000
RUN = uuid7_from(START_NS // 1_000_000, b"run")


def identity(number: int) -> UUID:
    """Give the id of a session."""
    return uuid7_from(START_NS // 1_000_000 + number, b"session")


def record(kind: Kind, session: UUID, sequence: int, **body: Value) -> Record:
    """Give a record of a time in a segment."""
    return Record(kind, session, START_NS + sequence * 1_000_000_000, Direction.REQUEST, body)


def opening(number: int, sequence: int) -> Record:
    """Give the beginning of a session."""
    target: dict[str, Value] = {"host": "192.0.2.7", "port": 443, "name": f"target{number}.example"}
    principal: dict[str, Value] = {"kind": "unix", "name": "ann", "uid": 1000, "verified": False}
    return record(
        Kind.OPEN,
        identity(number),
        sequence,
        run=RUN.bytes,
        host=HOST.bytes,
        target=target,
        principal=principal,
        run_name="job",
    )


def said(number: int, ordinal: int, sequence: int) -> Record:
    """Give a message whose words tell where it is."""
    text = secret(number, ordinal, sequence)
    body: dict[str, Value] = {"protocol": "postgresql", "type": "Query", "ordinal": ordinal, "exchange": ordinal}
    return record(
        Kind.MESSAGE, identity(number), sequence, summary=f"SELECT {text}", text=f"{text} {'x' * (ordinal % 90)}", **body
    )


def secret(number: int, ordinal: int, sequence: int) -> str:
    """Give a word that is said once."""
    return f"wq{sequence:04d}z{number:03d}z{ordinal:06d}q"


def closing(number: int, sequence: int, messages: int) -> Record:
    """Give the end of a session."""
    completeness: dict[str, Value] = {"verdict": "complete", "reasons": []}
    return record(Kind.CLOSE, identity(number), sequence, state="closed", messages=messages, completeness=completeness)


def ran(name: str, sequence: int, pid: int, **body: Value) -> Record:
    """Give a marker about a process."""
    return record(Kind.MARKER, RUN, sequence, name=name, pid=pid, start_ns=pid, **body)


class Host:
    """A host that records, and keeps its index while it does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments = directory / "segments"
        self.path = directory / "capd.db"
        self.index = Index.open(self.path)
        self._projection = Projection(load_session=self.index.find_session, load_run=self.index.find_run)
        self._writer = SegmentWriter(self.segments, host=HOST, clock=lambda: START_NS)

    def write(self, records: Iterable[Record], *, seal: bool = True) -> None:
        """Record, and seal the segment."""
        taken = list(records)
        self._writer.append(taken)
        self._writer.flush(Position(0, 0))
        self._projection.receive(taken)
        self.index.apply(self._projection.changes(), self._writer.sequence)
        path = self._writer.seal({}) if seal else None
        if path is not None:
            with SegmentReader(path) as reader:
                assert reader.footer is not None
                self.index.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
        self.index.commit()

    def expire(self, *numbers: int, policy: str = "ci", rows: int = 500) -> None:
        """Let consecutive segments go, and take their rows out."""
        self.learn(*numbers, policy=policy)
        while self.index.expiry.step(rows):
            pass
        self.index.carry()

    def learn(self, *numbers: int, policy: str = "ci") -> None:
        """Let consecutive segments go."""
        deleted = [Deleted(sequence=number, digest=bytes(32), policy=policy) for number in numbers]
        for number in numbers:
            sealed_path(self.segments, number).unlink()
        self.index.expiry.learn(Deletion(host=HOST, written_ns=START_NS + 10**15, segments=deleted))

    def scrub(self) -> None:
        """Overwrite what is left."""
        leftovers = self.index.leftovers
        while leftovers.waiting:
            leftovers.step()

    def everything(self) -> bytes:
        """Give every byte that the index has on disk."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.glob("*")) if path.is_file())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a host that has recorded nothing."""
    return Host(tmp_path)


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give what an index says, without its own numbers."""
    connection = sqlite3.connect(path)
    tables = ("runs", "sessions", "processes", "segments", "session_segments", "expired_parts")
    found = {}
    for table in tables:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
        found[table] = sorted(connection.execute(f"SELECT {', '.join(names)} FROM {table}"), key=repr)  # noqa: S608 - our own names
    found["deletions"] = connection.execute(
        "SELECT host, first, last, recorded_from, recorded_until, next FROM deletions"
    ).fetchall()
    columns = "session, ordinal, time, direction, messages.protocol, type, exchange, summary, text, messages.sequence"
    sql = f"SELECT {columns} FROM messages JOIN sessions ON sessions.id = session_id ORDER BY session, ordinal"  # noqa: S608 - our own names
    found["messages"] = connection.execute(sql).fetchall()
    connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('integrity-check')")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return found


def three(host: Host) -> None:
    """Record a session over three segments, one in the first alone, and their run with two processes."""
    host.write(
        [
            record(Kind.MARKER, RUN, 1, name="run", run_name="job", command=["agent"], host=HOST.bytes),
            ran("exec", 1, 11, exe="/bin/psql", argv=["psql", "-c", secret(900, 0, 1)]),
            ran("exec", 1, 12, exe="/bin/agent", argv=["agent"]),
            opening(1, 1),
            said(1, 0, 1),
            opening(2, 1),
            said(2, 0, 1),
            closing(2, 1, 1),
            ran("exit", 1, 11, status=0),
        ]
    )
    host.write([said(1, 1, 2), said(1, 2, 2)])
    host.write([said(1, 3, 3), closing(1, 3, 4), ran("exit", 3, 12, status=0), record(Kind.MARKER, RUN, 3, name="run_end")])


def test_what_only_an_expired_segment_told_is_gone(host: Host) -> None:
    """A session that was in it alone is gone, one that goes on stays and says what of it is gone, and so does the run."""
    three(host)
    host.expire(1)
    index = host.index
    part = ExpiredPart(first=1, last=1, segments=1, policy="ci")
    (row,) = index.sessions()
    assert (identity(1), (part,), "target1.example", "complete") == (row.session, row.expired, row.target.name, row.verdict)
    assert ["expired: its segment 1 let go by retention class ci"] == row.to_json()["completeness"]["policy"]  # type: ignore[index, call-overload]
    assert [1, 2, 3] == [hit.ordinal for hit in reversed(index.search("select"))]
    assert [] == index.search(secret(1, 0, 1))
    assert index.search(secret(1, 1, 2))
    (run,) = index.runs()
    assert ((part,), [12]) == (run.expired, [process.pid for process in index.processes(RUN)])
    assert {"runs": 1, "sessions": 1, "messages": 3, "segments": 2} == index.counts()
    host.expire(2, 3, policy="other")
    assert {"runs": 0, "sessions": 0, "messages": 0, "segments": 0} == index.counts()
    assert {"expired_parts": [], "processes": [], "session_segments": []}.items() <= rows(host.path).items()
    with pytest.raises(Exception, match=r"3 segments from 1 to 3, recorded until 2025-11-21T04:40:03.000000000Z, expired"):
        index.session(identity(1))
    with pytest.raises(Exception, match=r"^there is no session 'ffffffff'$"):
        index.session("ffffffff")


def test_what_is_said_now_stays_whatever_expires(host: Host) -> None:
    """A session that is open, or whose end is in the segment that is not sealed yet, keeps its row and what was said there."""
    host.write([opening(1, 1), said(1, 0, 1), opening(2, 1), said(2, 0, 1), opening(3, 1)])
    host.write([said(1, 1, 2), said(2, 1, 2), closing(2, 2, 2)], seal=False)
    host.expire(1)
    assert {identity(1): 1, identity(2): 1, identity(3): 1} == {row.session: len(row.expired) for row in host.index.sessions()}
    assert {(identity(1), 1), (identity(2), 1)} == {(hit.session, hit.ordinal) for hit in host.index.search("select")}


@settings(max_examples=15, deadline=None)
@given(st.permutations([1, 2, 3, 4, 5, 6]), st.integers(1, 6), st.sampled_from([1, 3, 500]))
def test_parts_do_not_depend_on_the_order(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[int], gone: int, step: int
) -> None:
    """However segments expire, and in whatever steps, the index is the one that is made of those that are left."""
    host = Host(tmp_path_factory.mktemp("host"))
    host.write([opening(1, 1), said(1, 0, 1), ran("exec", 1, 7, exe="/bin/a", argv=["a"])])
    for sequence in range(2, 6):
        host.write([said(1, sequence - 1, sequence), *([ran("exit", sequence, 7, status=0)] if sequence == 4 else [])])
    host.write([said(1, 5, 6), closing(1, 6, 6)])
    for number in order[:gone]:
        host.expire(number, rows=step)
    kept = rows(host.path)
    host.index.close()
    index_segments.rebuild(host.path, host.segments)
    with Index.open(host.path) as rebuilt:
        while rebuilt.expiry.step():
            pass
    assert kept == rows(host.path)
    left = sorted(set(order[gone:]))
    assert [row[-1] for row in kept["messages"]] == [*left]
    lost = sorted(order[:gone])
    starts = [number for number in lost if number - 1 not in lost]
    parts = [(row[2], row[4]) for row in kept["expired_parts"] if row[0] == str(identity(1))]
    assert [start for start, _ in parts] == (starts if left else [])
    assert sum(int(str(count)) for _, count in parts) == (len(lost) if left else 0)


def test_a_hundred_sessions_leave_no_byte(host: Host) -> None:
    """Of thousands of messages in all orders no word is left in any file of the index, and those that stay are all there."""
    chance = random.Random(7)
    ordinals = dict.fromkeys(range(40), 0)
    told: dict[int, list[str]] = {}
    for sequence in range(1, 31):
        records: list[Record] = [opening(number, 1) for number in ordinals] if sequence == 1 else []
        for _ in range(100):
            number = chance.randrange(40)
            records.append(said(number, ordinals[number], sequence))
            told.setdefault(sequence, []).append(secret(number, ordinals[number], sequence))
            ordinals[number] += 1
        host.write(records)
    gone = [number for number in range(1, 31) if number % 3]
    for number in gone:
        host.expire(number, rows=37)
    assert host.index.leftovers.waiting
    host.scrub()
    content = host.everything()
    lost = {word for number in gone for word in told[number]}
    assert [] == [word for word in lost if word.encode() in content]
    kept = {word for number in told for word in told[number]} - lost
    assert all(word.encode() in content for word in kept)
    assert all(host.index.search(word) for word in list(kept)[:50])
    terms = sqlite3.connect(host.path)
    terms.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, messages_fts, row)")
    assert kept == {term for (term,) in terms.execute("SELECT term FROM terms WHERE term LIKE 'wq%'")}
    rows(host.path)


def test_a_reader_delays_the_overwriting_and_nothing_else(host: Host) -> None:
    """While somebody reads an old state the log cannot be cut: it is done later, and the rows are gone at once."""
    three(host)
    reader = sqlite3.connect(host.path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (5,)
    host.expire(1)
    assert [] == host.index.search(secret(1, 0, 1))
    for _ in range(20):
        host.index.leftovers.step()
    assert host.index.leftovers.waiting
    reader.close()
    host.scrub()
    assert secret(1, 0, 1).encode() not in host.everything()


KILLED = """
import os, signal, sys
from pathlib import Path
from capd.recording.index import Index
index = Index.open(Path(sys.argv[1]))
expiry, leftovers = index.expiry, index.leftovers
for number in range(int(sys.argv[2])):
    if not expiry.step(1):
        leftovers.step()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("steps", [1, 4, 9, 20])
def test_a_kill_anywhere_is_gone_on_from(host: Host, steps: int) -> None:
    """After kill -9 in the middle the next one finishes, and the index is what it would have been."""
    three(host)
    host.learn(1, 2)
    host.index.close()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    killed = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, host.path, str(steps)], check=False, timeout=60, env=environment
    )
    assert -signal.SIGKILL == killed.returncode
    host.index = Index.open(host.path)
    while host.index.expiry.step(1):
        pass
    host.scrub()
    content = host.everything()
    assert all(word.encode() not in content for word in (secret(1, 0, 1), secret(1, 1, 2), secret(2, 0, 1), secret(900, 0, 1)))
    assert secret(1, 3, 3).encode() in content
    assert {"runs": 1, "sessions": 1, "messages": 1, "segments": 1} == host.index.counts()


def test_a_step_is_bounded(host: Host) -> None:
    """No step takes out many more rows than it may, whatever a segment holds."""
    host.write([opening(1, 1), *(said(1, ordinal, 1) for ordinal in range(300))])
    host.learn(1)
    before, steps = 300, 0
    while host.index.expiry.step(20):
        after = host.index.counts()["messages"]
        assert before - after <= 20
        before, steps = after, steps + 1
    assert (0, True) == (before, steps >= 15)


def test_without_what_was_carried_the_rest_is_found(host: Host) -> None:
    """An index that is made anew without the file beside it, or with a damaged one, knows what segments tell."""
    three(host)
    host.expire(1)
    host.index.close()
    for content in (
        None,
        b"{",
        b"[]",
        b'{"version": 1, "runs": 5}',
        json.dumps({"version": 1, **{t: [[1]] for t in rows(host.path)}}),
    ):
        carried = host.path.with_name(index_carried.NAME)
        carried.unlink(missing_ok=True)
        if content is not None:
            carried.write_bytes(content if isinstance(content, bytes) else content.encode())
        index_segments.rebuild(host.path, host.segments)
        with Index.open(host.path, readonly=True) as rebuilt:
            assert [(identity(1), None, 4)] == [(row.session, row.target.name, row.messages) for row in rebuilt.sessions()]


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(0, 6))
def test_the_first_message_of_a_segment_is_found(sequences: list[int], wanted: int) -> None:
    """Halving finds what looking at each message finds, with holes between the ordinals too."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE messages (session_id INTEGER, ordinal INTEGER, sequence INTEGER)")
    held = [(1, 3 * number, sequence) for number, sequence in enumerate(sorted(sequences))]
    connection.executemany("INSERT INTO messages VALUES (?, ?, ?)", held)
    start = first_ordinal(connection, 1, wanted)
    assert [row for row in held if row[1] >= start] == [row for row in held if row[2] >= wanted]


@given(st.binary(min_size=512, max_size=512))
def test_only_the_middle_of_a_page_is_overwritten(page: bytes) -> None:
    """Of any page the middle lies within it, and of one that is no b-tree's there is none."""
    start, end = middle(page, 0)
    assert 0 <= start <= end <= len(page)
    assert page[0] in {2, 5, 10, 13} or start == end


def test_pages_in_use_have_a_middle(host: Host, conversation: Callable[..., list[Record]]) -> None:
    """What is overwritten is not what is read: an index whose every page was swept says the same."""
    for number in range(20):
        host.write(conversation(number, 20))
    expected = rows(host.path)
    host.index._connection.execute("INSERT INTO meta VALUES ('scrub', 1)")
    host.index.commit()
    host.scrub()
    assert expected == rows(host.path)
