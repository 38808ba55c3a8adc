"""What becomes of a recording after it was recorded: writing, verifying, replaying, searching, and asking a fleet.

What lives here: making recordings of a size, and the times that reading them takes. What must not: capture (throughput.py).

The bucket is a directory, so its times are those of capd and of the disk; what a real bucket adds follows from the number of
requests and bytes, which are given beside them.

Run: PYTHONPATH=src:. python -P bench/evidence.py [store verify replay search fleet]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording import index_segments
from capd.recording.bucket import Bucket
from capd.recording.bucket.layout import SegmentKey
from capd.recording.catalogue.archive import FleetArchive
from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.layout import Part, day_of
from capd.recording.catalogue.schema import pack
from capd.recording.catalogue.writing import CatalogueWriter
from capd.recording.evidence.host_report import Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.identity import uuid7_from
from capd.recording.index import Index
from capd.recording.index_search import SessionFilter
from capd.recording.journal import Position
from capd.recording.keys import HostKey
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment.writer import Sealing, SegmentWriter

START_NS: Final = 1_795_245_851_000_000_000
HOST: Final = UUID(int=7)
RUN: Final = uuid7_from(START_NS // 1_000_000, b"run")
PAYLOAD_BYTES: Final = 16 << 10
ROUNDS: Final = 5
DAY_NS: Final = 86_400_000_000_000
WORDS: Final = tuple(f"word{number}" for number in range(5_000))
TARGETS: Final = tuple(f"service-{number}.example.org" for number in range(40))

QUESTIONS: Final = {
    "word": "word77",
    "two words": "word77 word78",
    "phrase": '"word77 word78"',
    "word of every message": "select",
    "beginning of 11 words": "word77*",
    "beginning of 111 words": "word7*",
    "beginning of every word": "word*",
    "nothing": "absent",
}

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large everything is; the defaults are what the documentation quotes.

    Attributes:
        raw_bytes: of the recording that is written, verified and replayed.
        messages: that are searched.
        hosts, days: of the fleet.
        sessions: of each host on each day.
    """

    raw_bytes: int = 1_000_000_000
    messages: int = 1_000_000
    hosts: int = 1_000
    days: int = 30
    sessions: int = 20


SMALL: Final = Sizes(raw_bytes=20_000_000, messages=5_000, hosts=5, days=3, sessions=4)


def opening(session: UUID, time_ns: int, target: str = TARGETS[0]) -> Record:
    """Give the record that opens a session."""
    body: dict[str, Value] = {
        "run": RUN.bytes,
        "run_name": "nightly",
        "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
        "host": HOST.bytes,
        "transport": "tcp",
        "role": "client",
        "target": {"host": "192.0.2.7", "port": 443, "name": target},
        "process": {"pid": 4242, "start_ns": 5, "exe": "/usr/bin/python3", "argv": ["agent.py"], "user": "ann"},
    }
    return Record(Kind.OPEN, session, time_ns, None, body)


def download(raw_bytes: int) -> Iterator[Record]:
    """Give one session: answers of 64 KiB, half of whose bytes can be compressed."""
    session = uuid7_from(START_NS // 1_000_000, b"download")
    noise = random.Random(7)
    yield opening(session, START_NS)
    position = ordinal = 0
    while position < raw_bytes:
        time_ns = START_NS + (ordinal + 1) * 1_000_000
        start = position
        for _ in range(4):
            payload = noise.randbytes(PAYLOAD_BYTES // 2) + b"all the same " * (PAYLOAD_BYTES // 26)
            yield Record(Kind.DATA, session, time_ns, Direction.RESPONSE, {"position": position, "payload": payload})
            position += len(payload)
        body: dict[str, Value] = {"protocol": "http1", "type": "response", "ordinal": ordinal, "exchange": ordinal}
        body |= {"start": start, "end": position, "summary": f"200 OK {ordinal}", "fields": {}, "incomplete": None}
        yield Record(Kind.MESSAGE, session, time_ns, Direction.RESPONSE, body)
        ordinal += 1
    closing: dict[str, Value] = {"state": "closed", "bytes": {"request": 0, "response": position}, "messages": ordinal}
    yield Record(
        Kind.CLOSE, session, START_NS + ordinal * 1_000_000, None, {**closing, "completeness": {"verdict": "complete"}}
    )


def statements(messages: int) -> Iterator[Record]:
    """Give sessions of a thousand statements each, made of a few thousand words."""
    choice = random.Random(11)
    for number in range(0, messages, 1_000):
        time_ns = START_NS + number * 1_000_000
        session = uuid7_from(time_ns // 1_000_000, b"statements %d" % number)
        yield opening(session, time_ns, TARGETS[number // 1_000 % len(TARGETS)])
        for ordinal in range(min(1_000, messages - number)):
            summary = f"SELECT {' '.join(choice.choices(WORDS, k=12))} WHERE id = {number + ordinal}"
            body: dict[str, Value] = {"protocol": "postgresql", "type": "Query", "ordinal": ordinal, "exchange": ordinal}
            yield Record(
                Kind.MESSAGE, session, time_ns + ordinal * 1_000, Direction.REQUEST, {**body, "summary": summary, "fields": {}}
            )


def write(directory: Path, records: Iterator[Record]) -> tuple[int, int, float]:
    """Write signed segments; give how many records, their bytes, and the seconds of CPU that the writer took."""
    key = HostKey.new()
    key.save(directory.parent / "keys")
    writer = SegmentWriter(directory, host=HOST, clock=lambda: START_NS, sealing=Sealing(signer=key))
    count = raw_bytes = 0
    seconds = 0.0
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        payload = record.body.get("payload")
        raw_bytes += len(payload) if isinstance(payload, bytes) else 0
        if len(batch) == 2_000:
            count += len(batch)
            seconds += _written(writer, batch)
            batch = []
    count += len(batch)
    seconds += _written(writer, batch)
    writer.seal({})
    writer.close()
    return count, raw_bytes, seconds


def _written(writer: SegmentWriter, batch: Sequence[Record]) -> float:
    began = time.process_time()
    writer.append(batch)
    writer.flush(Position(1, 0))
    if writer.should_seal(START_NS):
        writer.seal({})
    return time.process_time() - began


def store(folder: Path, sizes: Sizes) -> Figures:
    """Write the recording that `verify` and `replay` read."""
    directory = folder / "state" / "segments"
    count, raw_bytes, seconds = write(directory, download(sizes.raw_bytes))
    stored = sum(path.stat().st_size for path in directory.glob("*.seg"))
    found = {"records_per_second": count / seconds, "mb_per_second": raw_bytes / 1e6 / seconds, "ratio": raw_bytes / stored}
    print(
        f"write path: {found['mb_per_second']:,.0f} MB/s, {found['records_per_second']:,.0f} records/s of one core, "
        f"{stored / 1e6:,.0f} MB on disk, 1 : {found['ratio']:.1f}"
    )
    return found


def verify(folder: Path, _sizes: Sizes) -> Figures:
    """Verify it: hashes, signatures, chain."""
    directory = folder / "state"
    stored = sum(path.stat().st_size for path in (directory / "segments").glob("*.seg"))
    seconds = min(_seconds(lambda: list(verify_shelf(DirectoryShelf(directory), Trust()))) for _ in range(ROUNDS))
    print(f"verify: {stored / 1e9 / seconds:.2f} GB/s of segments ({seconds * 1000:,.0f} ms)")
    return {"gb_per_second": stored / 1e9 / seconds}


def replay(folder: Path, _sizes: Sizes) -> Figures:
    """Time the installed command up to its first line, from disk and from a bucket."""
    state, bucket = folder / "state", ship(folder)
    index_segments.rebuild(state / "index" / "capd.db", state / "segments")
    session = str(uuid7_from(START_NS // 1_000_000, b"download"))
    found: Figures = {}
    for name, place in (("disk", ["--state-dir", str(state)]), ("bucket", ["--bucket", str(bucket)])):
        times = first_lines(["replay", session, *place])
        found |= {f"{name}_{what}_seconds": seconds for what, seconds in times.items()}
        print(
            f"replay from {'a ' * (name == 'bucket')}{name}: first line after {times['line'] * 1000:,.0f} ms "
            f"({times['line_cpu'] * 1000:,.0f} ms of CPU), first of what was said after {times['said'] * 1000:,.0f} ms "
            f"({times['said_cpu'] * 1000:,.0f} ms of CPU); a whole interpreter each time (budget: 150 ms)"
        )
    with FleetArchive(bucket) as archive:
        next(archive.records(UUID(session)))
    found["bucket_bytes"], found["bucket_requests"] = bucket.counters.bytes_read, bucket.counters.requests
    print(f"  of the bucket {found['bucket_requests']:.0f} requests, {found['bucket_bytes'] / 1e6:.2f} MB")
    return found


def ship(folder: Path) -> Bucket:
    """Put the recording into a bucket with its catalogue; give it as one that nothing was asked of yet."""
    (folder / "bucket").mkdir(exist_ok=True)
    bucket = Bucket.open(str(folder / "bucket"))
    paths = sorted((folder / "state" / "segments").glob("*.seg"))
    for path in paths:
        bucket.create(str(SegmentKey.of(HOST, int(path.stem), START_NS)), path)
    writer = CatalogueWriter(
        bucket, HOST, local=lambda sequence: paths[sequence - 1], find_session=lambda _: None, find_run=lambda _: None
    )
    writer.extend(time.time_ns())
    return Bucket.open(str(folder / "bucket"))


def search(folder: Path, sizes: Sizes) -> Figures:
    """Search messages in a host's index and in a catalogue."""
    state = folder / "searched"
    write(state / "segments", statements(sizes.messages))
    index_segments.rebuild(state / "index" / "capd.db", state / "segments")
    with Index.open(state / "index" / "capd.db", readonly=True) as index:
        found = {
            name: min(_seconds(lambda text=text: index.search(text, limit=20)) for _ in range(ROUNDS))  # type: ignore[misc]
            for name, text in QUESTIONS.items()
        }
    times = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in found.items())
    print(f"search over {sizes.messages:,} messages, the question alone: {times} (budget: 50 ms)")
    command = first_lines(["search", "word77", "--state-dir", str(state)])
    whole = f"{command['line'] * 1000:,.0f} ms ({command['line_cpu'] * 1000:,.0f} ms of CPU)"
    print(f"  `capd search word77`, with its interpreter: first line after {whole}")
    return {f"{name}_seconds": seconds for name, seconds in {**found, "command": command["line"]}.items()}


def fleet(folder: Path, sizes: Sizes) -> Figures:
    """Ask a fleet's catalogue who talked with one target, over two days and over all."""
    (folder / "fleet").mkdir()
    bucket = Bucket.open(str(folder / "fleet"))
    today = day_of(START_NS)
    for back in range(sizes.days):
        for host in range(sizes.hosts):
            _catalogue_day(bucket, UUID(int=host + 1), today - back * timedelta(days=1), sizes.sessions)
    files = len(bucket.list("catalogue/"))
    found: Figures = {"files": float(files)}
    for name, days in (("one_day", 0), ("all_days", sizes.days)):
        from_ns = START_NS - START_NS % DAY_NS - days * DAY_NS
        asked = Bucket.open(str(folder / "fleet"))
        where = SessionFilter(target=TARGETS[3], from_ns=from_ns)
        began = time.perf_counter()
        rows = Fleet(asked, clock=lambda: START_NS).sessions(where, limit=100)
        found[f"{name}_seconds"] = time.perf_counter() - began
        found[f"{name}_bytes"], found[f"{name}_requests"] = asked.counters.bytes_read, asked.counters.requests
        print(
            f"fleet of {sizes.hosts:,} hosts x {sizes.days} days, {files:,} files: sessions with one target, "
            f"{name.replace('_', ' ')}: {found[f'{name}_seconds']:.2f} s, {len(rows)} rows, "
            f"{asked.counters.requests:,} requests, {asked.counters.bytes_read / 1e6:.1f} MB"
        )
    return found


def _catalogue_day(bucket: Bucket, host: UUID, day: date, sessions: int) -> None:
    """Put the sessions of one host and day into the catalogue."""
    start_ns = int((day - date(1970, 1, 1)).total_seconds()) * 1_000_000_000
    rows: list[dict[str, Value]] = []
    for number in range(sessions):
        at = start_ns + number * 60_000_000_000
        rows.append(
            {
                "session": str(uuid7_from(at // 1_000_000, host.bytes + bytes([number % 256]))),
                "run": str(RUN),
                "principal_kind": "user",
                "principal": f"user-{host.int % 50}",
                "protocol": "http1",
                "target_name": TARGETS[(host.int + number) % len(TARGETS)],
                "target_port": 443,
                "started_ns": at,
                "last_ns": at + 1_000_000_000,
                "ended_ns": at + 1_000_000_000,
                "state": "closed",
                "bytes_request": 100 * number,
                "bytes_response": 1_000 * number,
                "messages": 2 * number,
                "verdict": "complete",
            }
        )
    bucket.create(Part(table="sessions", day=day, host=host, first=1).key, pack("sessions", rows, first=1, last=1))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def first_lines(arguments: Sequence[str]) -> Figures:
    """Give the least seconds, of the clock and of CPU, from the start of a command to its first line.

    `said` is the first line of what was said, behind the head of a transcript and the empty line that ends it. Python's
    bytecode is there, as it is where capd is installed; what it takes to make it is in a first round that does not count.
    """
    with tempfile.TemporaryDirectory(prefix="capd-bench-") as bytecode:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        _, *rounds = (_once(arguments, environment) for _ in range(1 + ROUNDS))
    return {name: min(values) for name, *values in zip(_NAMES, *rounds, strict=True)}


_NAMES: Final = ("line", "line_cpu", "said", "said_cpu")


def _once(arguments: Sequence[str], environment: dict[str, str]) -> tuple[float, ...]:
    command = [sys.executable, "-P", "-m", "capd.cli.main", *arguments]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        first = (time.perf_counter() - began, _cpu_seconds(process.pid))
        assert line, f"{arguments} printed nothing"
        while line.strip():
            line = process.stdout.readline()
        line = process.stdout.readline()
        said = (time.perf_counter() - began, _cpu_seconds(process.pid))
        process.kill()
    return (*first, *said)


def _cpu_seconds(pid: int) -> float:
    """Give what a process that has not been waited for had of the processor (proc(5), /proc/PID/schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


PARTS: Final[dict[str, Callable[[Path, Sizes], Figures]]] = {
    "store": store,
    "verify": verify,
    "replay": replay,
    "search": search,
    "fleet": fleet,
}


def measured(folder: Path, sizes: Sizes, parts: Sequence[str] = tuple(PARTS)) -> dict[str, Figures]:
    """Measure the parts; `verify` and `replay` read what `store` wrote."""
    return {name: PARTS[name](folder, sizes) for name in PARTS if name in {"store", *parts}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="capd-bench-", dir="/var/tmp") as name:
        measured(Path(name), Sizes(), sys.argv[1:] or tuple(PARTS))
