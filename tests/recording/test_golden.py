"""Golden files: what format version 1 wrote is read for ever, and version 1 is still written the same.

Run as a script it writes the files of the current version, which is only right together with a new version.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import msgpack
import pytest

from capd.recording.index import Index
from capd.recording.journal import Block, JournalReader, JournalWriter, Position, Source
from capd.recording.journal.block import HEADER, HEADER_BYTES, MAGIC
from capd.recording.record import Direction, Kind, Record
from capd.recording.segment import SegmentReader, SegmentWriter
from capd.recording.segment.layout import FILE_HEADER, FRAME_HEADER, TRAILER
from capd.recording.verify import verify_directory

GOLDEN = Path(__file__).parent / "golden" / "version-1"
HOST = UUID("6f8c1a2e-0000-4000-8000-00000000c0de")
BOOT = UUID("6f8c1a2e-0000-4000-8000-00000000b007")
RUN = UUID("0191a000-0000-7000-8000-0000000000aa")
SESSION = UUID("0191a000-0001-7000-8000-0000000000bb")
OTHER = UUID("0191a000-0002-7000-8000-0000000000cc")
T0 = 1_763_700_000_123_456_789

FLUSHES: list[list[Record]] = [
    [
        Record(
            Kind.MARKER,
            RUN,
            T0,
            None,
            {
                "name": "run",
                "run_name": "nightly",
                "labels": {"team": "data"},
                "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
                "cgroup": "/capd.slice/run-1",
                "cgroup_id": 77,
                "command": ["agent", "--all"],
                "cwd": "/home/ann",
                "adopted": False,
            },
        ),
        Record(
            Kind.MARKER,
            RUN,
            T0 + 1,
            None,
            {"name": "exec", "pid": 42, "start_ns": 5, "exe": "/usr/bin/agent", "argv": ["agent", "--all"], "uid": 1000},
        ),
        Record(
            Kind.OPEN,
            SESSION,
            T0 + 2,
            None,
            {
                "run": RUN.bytes,
                "run_name": "nightly",
                "labels": {"team": "data"},
                "principal": {"kind": "user", "name": "ann", "uid": 1000, "verified": False},
                "host": HOST.bytes,
                "boot": BOOT.bytes,
                "socket": 1 << 63,
                "transport": "tcp",
                "role": "client",
                "local": {"host": "127.0.0.1", "port": 40000, "name": None},
                "target": {"host": "127.0.0.1", "port": 5432, "name": "orders"},
                "process": {"pid": 42, "start_ns": 5, "exe": "/usr/bin/agent", "argv": ["agent"], "uid": 1000, "user": "ann"},
                "mid_stream": False,
            },
        ),
        Record(Kind.DATA, SESSION, T0 + 3, Direction.REQUEST, {"position": 0, "payload": b"\x16\x03\x01", "layer": "wire"}),
        Record(
            Kind.DATA,
            SESSION,
            T0 + 4,
            Direction.REQUEST,
            {"position": 0, "payload": b"Q\0\0\0\x0fSELECT caf\xe9\0", "tie": "nested", "library": "openssl", "pid": 42},
        ),
        Record(
            Kind.MESSAGE,
            SESSION,
            T0 + 4,
            Direction.REQUEST,
            {
                "protocol": "postgresql",
                "type": "Query",
                "summary": "SELECT caf\udce9",
                "exchange": 0,
                "ordinal": 0,
                "start": 0,
                "end": 17,
                "fields": {"nothing": None, "yes": True, "half": 0.5, "list": [1, -1, (1 << 64) - 1]},
                "incomplete": None,
            },
        ),
    ],
    [
        Record(
            Kind.GAP,
            SESSION,
            T0 + 5,
            Direction.RESPONSE,
            {"position": 0, "length": 9, "layer": "application", "reason": "ring full"},
        ),
        Record(Kind.VERDICT, SESSION, T0 + 6, Direction.REQUEST, {"decision": "allow"}),
        Record(Kind.APPROVAL, SESSION, T0 + 7, None, {"by": "bob"}),
        Record(Kind.MASKED, SESSION, T0 + 8, Direction.RESPONSE, {"entities": {"email": 2}}),
        Record(Kind.OPEN, OTHER, T0 + 9, None, {"run": RUN.bytes}),
        *[
            Record(
                Kind.DATA,
                OTHER,
                T0 + 10 + number,
                Direction.RESPONSE,
                {"position": 300 * number, "payload": b"%03d" % number * 100},
            )
            for number in range(5)
        ],
        Record(
            Kind.CLOSE,
            SESSION,
            T0 + 20,
            None,
            {
                "state": "closed",
                "bytes": {"request": 17, "response": 9},
                "messages": 1,
                "completeness": {"verdict": "partial", "reasons": ["ring full"]},
            },
        ),
    ],
]
POSITIONS = [Position(3, 640), Position(4, 0)]

BLOCKS = [
    (Source.NOTE, msgpack.packb({"note": "start", "epoch": BOOT.bytes, "boottime_ns": 1}), 1),
    (Source.CONTROL, bytes(range(256)), 2),
    (Source.DATA, b"GET /customers HTTP/1.1\r\nHost: api.example.org\r\n\r\n" * 40, 3),
    (Source.DATA, b"", 0),
]


def write_segment(directory: Path) -> Path:
    """Write the golden segment with the current writer."""
    ticks = count(T0 + 100)
    writer = SegmentWriter(directory, host=HOST, clock=lambda: next(ticks), sequence=7, frame_raw_bytes=1000)
    for records, position in zip(FLUSHES, POSITIONS, strict=True):
        writer.append(records)
        writer.flush(position)
    path = writer.seal({"ring_full": 9})
    assert path is not None
    return path


def write_journal(directory: Path) -> Path:
    """Write the golden journal with the current writer."""
    with JournalWriter(directory) as writer:
        for number, (source, payload, records) in enumerate(BLOCKS):
            writer.append(source, payload, count=records, boottime_ns=1_000 + number, realtime_ns=T0 + number)
    return directory / "0000000000000000.journal"


def segment_parts(path: Path) -> list[object]:
    """Give everything in a segment that does not depend on the version of the compressor."""
    data = path.read_bytes()
    parts: list[object] = [data[: FILE_HEADER.size]]
    with SegmentReader(path) as reader:
        for frame in reader.frames():
            magic, version, codec, flags, number, raw, _, _ = FRAME_HEADER.unpack_from(data, frame.offset)
            parts += [(magic, version, codec, flags, number, raw), frame.raw]
    length, _, magic = TRAILER.unpack(data[-TRAILER.size :])
    footer = msgpack.unpackb(data[-TRAILER.size - length : -TRAILER.size], strict_map_key=False)
    for entry in footer["frames"]:
        for name in ("offset", "length", "sha256"):
            del entry[name]
    return [*parts, footer, list(footer), magic]


def journal_parts(path: Path) -> list[object]:
    """Give everything in a journal file that does not depend on the version of the compressor."""
    data = path.read_bytes()
    parts: list[object] = []
    with JournalReader(path.parent, None) as reader:
        while isinstance(block := reader.read(), Block):
            fields = HEADER.unpack_from(data, block.position.offset)
            parts += [fields[:6], fields[7:10], fields[11], bytes(block.payload)]
    return parts


def test_the_golden_segment_is_read() -> None:
    """The records, sessions and facts of a segment of version 1 are what was written into it."""
    with SegmentReader(GOLDEN / "000000000007.seg") as reader:
        expected = [record for records in FLUSHES for record in records]
        assert expected == list(reader.records())
        assert [record for record in expected if record.session == OTHER] == list(reader.records(OTHER))
        footer = reader.footer
        assert footer is not None
        assert ([7, HOST, T0 + 101, T0 + 102], T0, T0 + 20, {"ring_full": 9}, Position(4, 0), False) == (
            [footer.header.sequence, footer.header.host, footer.header.created_ns, footer.sealed_ns],
            footer.first_ns,
            footer.last_ns,
            footer.losses,
            footer.position,
            footer.recovered,
        )
        assert [17, 0] == footer.sessions[SESSION].bytes
        assert {"verdict": "partial", "reasons": ["ring full"]} == footer.sessions[SESSION].completeness


def test_the_golden_segment_verifies_and_is_indexed(tmp_path: Path) -> None:
    """A segment of version 1 has no findings, and an index can be built from it."""
    (report,) = verify_directory(GOLDEN)
    assert [] == report.findings
    with Index.open(tmp_path / "capd.db") as index:
        assert [] == index.catch_up(GOLDEN)
        assert [SESSION] == [hit.session for hit in index.search('"select caf*"')]
        assert ["partial", "closed", "postgresql"] == [
            index.session(SESSION).verdict,
            index.session(SESSION).state,
            index.session(SESSION).protocol,
        ]


def test_the_golden_journal_is_read() -> None:
    """The blocks of a journal of version 1 are what was appended to it."""
    with JournalReader(GOLDEN, None) as reader:
        for number, (source, payload, records) in enumerate(BLOCKS):
            block = reader.read()
            assert isinstance(block, Block)
            assert (source, payload, records, number, 1_000 + number, T0 + number) == (
                block.source,
                bytes(block.payload),
                block.count,
                block.sequence,
                block.boottime_ns,
                block.realtime_ns,
            )
        assert None is reader.read()


def test_version_1_is_still_written_the_same(tmp_path: Path) -> None:
    """The writers give the bytes of the golden files, apart from what the compressor's version decides."""
    assert segment_parts(GOLDEN / "000000000007.seg") == segment_parts(write_segment(tmp_path))
    journal = GOLDEN / "0000000000000000.journal"
    assert journal_parts(journal) == journal_parts(write_journal(tmp_path))


@pytest.mark.parametrize(
    ("name", "start"), [("000000000007.seg", b"\x89CAPDSEG\x01\0"), ("0000000000000000.journal", MAGIC + b"\x01\0\x03\0")]
)
def test_the_files_start_as_their_byte_tables_say(name: str, start: bytes) -> None:
    """Magic and version are where docs/formats has them."""
    assert start == (GOLDEN / name).read_bytes()[: len(start)]
    assert 64 == HEADER_BYTES == FILE_HEADER.size


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        for written in (write_segment(Path(scratch)), write_journal(Path(scratch))):
            (GOLDEN / written.name).write_bytes(written.read_bytes())
            sys.stdout.write(f"{GOLDEN / written.name}\n")
