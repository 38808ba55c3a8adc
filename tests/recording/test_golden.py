"""Golden files: what a format version wrote is read for ever, and the current version is still written the same.

Run as a script it writes the files of the current version, which is only right together with a new version.
"""

from __future__ import annotations

import shutil
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import msgpack
import pytest

from capd.recording import index_segments
from capd.recording.age import Identities
from capd.recording.errors import EncryptedError
from capd.recording.index import Index
from capd.recording.journal import Block, JournalReader, JournalWriter, Position, Source
from capd.recording.journal.block import HEADER, HEADER_BYTES, MAGIC
from capd.recording.keys import HostKey
from capd.recording.record import Direction, Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import FILE_HEADER, FRAME_HEADER, VERSION, FileHeader
from capd.recording.segment.trailer import TRAILER, parse_trailer, seal_message
from capd.recording.segment.writer import Sealing, SegmentWriter
from capd.recording.verify import verify_files

GOLDEN = Path(__file__).parent / "golden"
VERSION_1 = GOLDEN / "version-1"
VERSION_2 = GOLDEN / "version-2"
PLAIN = "000000000007.seg"
ENCRYPTED = "000000000008.seg"
JOURNAL = "0000000000000000.journal"
HOST = UUID("6f8c1a2e-0000-4000-8000-00000000c0de")
BOOT = UUID("6f8c1a2e-0000-4000-8000-00000000b007")
RUN = UUID("0191a000-0000-7000-8000-0000000000aa")
SESSION = UUID("0191a000-0001-7000-8000-0000000000bb")
OTHER = UUID("0191a000-0002-7000-8000-0000000000cc")
T0 = 1_763_700_000_123_456_789
RECIPIENT = "age1lnfp0e4rpu3ey38syttlp7wy2ccgt9rm8thsrhsg5hnv4kxpv4xqcrq2wn"

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


def host_key() -> HostKey:
    """Give the key that signed the golden files; it is secret to nobody."""
    return HostKey.load(VERSION_2)


def write_segments(directory: Path) -> list[Path]:
    """Write the golden segments with the current writer: one that anybody can read, one that is encrypted."""
    ticks = count(T0 + 100)
    written: list[Path] = []
    previous = bytes(range(32))
    for sequence, recipients in ((7, ()), (8, (RECIPIENT,))):
        writer = SegmentWriter(
            directory,
            host=HOST,
            clock=lambda: next(ticks),
            sequence=sequence,
            previous=previous,
            sealing=Sealing(signer=host_key(), recipients=recipients),
            frame_raw_bytes=1000,
        )
        for records, position in zip(FLUSHES, POSITIONS, strict=True):
            writer.append(records)
            writer.flush(position)
        path = writer.seal({"ring_full": 9})
        assert path is not None
        assert writer.previous is not None
        written.append(path)
        previous = writer.previous
    return written


def write_journal(directory: Path) -> Path:
    """Write the golden journal with the current writer."""
    with JournalWriter(directory) as writer:
        for number, (source, payload, records) in enumerate(BLOCKS):
            writer.append(source, payload, count=records, boottime_ns=1_000 + number, realtime_ns=T0 + number)
    return directory / JOURNAL


def segment_parts(path: Path) -> list[object]:
    """Give everything in a segment that does not depend on the version of the compressor, or on chance."""
    data = path.read_bytes()
    header = FileHeader.parse(data)
    parts: list[object] = [data[:12], data[16:48], data[52:60], bool(header.key_block)]
    with SegmentReader(path, keys=Identities.load(VERSION_2 / "identity.txt")) as reader:
        for number, frame in enumerate(reader.frames()):
            magic, version, codec, flags, _, raw, index, _, _ = FRAME_HEADER.unpack_from(data, frame.offset)
            parts += [(magic, version, codec, flags, number, raw, index), reader.index(number)[1], frame.raw]
    length, _, key, _, magic = TRAILER.unpack(data[-TRAILER.size :])
    footer = msgpack.unpackb(data[-TRAILER.size - length : -TRAILER.size], strict_map_key=False)
    for entry in footer["frames"]:
        for name in ("offset", "length", "sha256"):
            del entry[name]
    for chance in ("header", "previous"):
        assert 32 == len(footer.pop(chance))
    return [*parts, footer, list(footer), key, magic]


def journal_parts(path: Path) -> list[object]:
    """Give everything in a journal file that does not depend on the version of the compressor."""
    data = path.read_bytes()
    parts: list[object] = []
    with JournalReader(path.parent, None) as reader:
        while isinstance(block := reader.read(), Block):
            fields = HEADER.unpack_from(data, block.position.offset)
            parts += [fields[:6], fields[7:10], fields[11], bytes(block.payload)]
    return parts


GOLDEN_SEGMENTS = [VERSION_1 / PLAIN, VERSION_2 / PLAIN, VERSION_2 / ENCRYPTED]


@pytest.mark.parametrize("path", GOLDEN_SEGMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_golden_segment_is_read(path: Path) -> None:
    """The records, sessions and facts of a segment of any version are what was written into it."""
    with SegmentReader(path, keys=Identities.load(VERSION_2 / "identity.txt")) as reader:
        expected = [record for records in FLUSHES for record in records]
        assert expected == list(reader.records())
        assert [record for record in expected if record.session == OTHER] == list(reader.records(OTHER))
        footer = reader.footer
        assert footer is not None
        created_ns = T0 + (104 if path.name == ENCRYPTED else 101)
        assert ([int(path.stem), HOST, created_ns, created_ns + 1], T0, T0 + 20, {"ring_full": 9}, Position(4, 0), False) == (
            [footer.header.sequence, footer.header.host, footer.header.created_ns, footer.sealed_ns],
            footer.first_ns,
            footer.last_ns,
            footer.losses,
            footer.position,
            footer.recovered,
        )
        assert [17, 0] == footer.sessions[SESSION].bytes
        assert {"verdict": "partial", "reasons": ["ring full"]} == footer.sessions[SESSION].completeness


def test_the_golden_encrypted_segment_says_nothing_without_its_key() -> None:
    """Without an identity there are no records; what was said is nowhere in the file."""
    path = VERSION_2 / ENCRYPTED
    with SegmentReader(path) as reader:
        assert {RUN, SESSION, OTHER} == set(reader.sessions())
        with pytest.raises(EncryptedError, match="segment 8 is encrypted to one recipient"):
            next(reader.records())
    data = path.read_bytes()
    assert [] == [secret for secret in (b"SELECT caf", b"nightly", b"/usr/bin/agent", b"127.0.0.1") if secret in data]
    assert b"ring full" in data  # the control: why a session is not complete stays readable


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=lambda path: path.name)
def test_the_golden_segments_verify_and_are_indexed(version: Path, tmp_path: Path) -> None:
    """Segments of any version have no findings, and an index can be built from one."""
    keys = Identities.load(VERSION_2 / "identity.txt")
    for path in version.glob("*.seg"):  # apart: both hold the same records
        assert [[]] == [report.findings for report in verify_files([path], keys)]
    shutil.copy(version / PLAIN, tmp_path)
    with Index.open(tmp_path / "capd.db") as index:
        assert [] == index_segments.catch_up(index, tmp_path)
        assert [SESSION] == [hit.session for hit in index.search('"select caf*"')]
        assert ["partial", "closed", "postgresql"] == [
            index.session(SESSION).verdict,
            index.session(SESSION).state,
            index.session(SESSION).protocol,
        ]


def test_the_golden_journal_is_read() -> None:
    """The blocks of a journal of version 1 are what was appended to it."""
    with JournalReader(VERSION_1, None) as reader:
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


def test_the_current_version_is_still_written_the_same(tmp_path: Path) -> None:
    """The writers give the bytes of the golden files, apart from what the compressor's version and fresh keys decide."""
    for golden, written in zip((VERSION_2 / PLAIN, VERSION_2 / ENCRYPTED), write_segments(tmp_path), strict=True):
        assert segment_parts(golden) == segment_parts(written)
    assert journal_parts(VERSION_1 / JOURNAL) == journal_parts(write_journal(tmp_path))


def test_the_golden_segments_are_signed_and_chained() -> None:
    """The signature is that of the key beside them, and the second names the hash of the first one's footer."""
    key = host_key().public
    digests = []
    for name in (PLAIN, ENCRYPTED):
        data = (VERSION_2 / name).read_bytes()
        header, trailer = FileHeader.parse(data), parse_trailer(data[-TRAILER.size :], VERSION)
        assert key.id == trailer.key_id
        assert key.verifies(trailer.signature, seal_message(HOST, header.sequence, trailer.digest))
        assert not key.verifies(trailer.signature, seal_message(HOST, header.sequence + 1, trailer.digest))
        with SegmentReader(VERSION_2 / name) as reader:
            assert reader.footer is not None
            assert header.digest == reader.footer.header_digest
            digests += [reader.footer.previous, reader.footer_digest]
    assert [bytes(range(32)), digests[1], digests[1], digests[3]] == digests


@pytest.mark.parametrize(
    ("path", "start"),
    [
        (VERSION_1 / PLAIN, b"\x89CAPDSEG\x01\0"),
        (VERSION_1 / JOURNAL, MAGIC + b"\x01\0\x03\0"),
        (VERSION_2 / PLAIN, b"\x89CAPDSEG\x02\0\0\0"),
        (VERSION_2 / ENCRYPTED, b"\x89CAPDSEG\x02\0\x01\0"),
    ],
    ids=lambda given: f"{given.parent.name}/{given.name}" if isinstance(given, Path) else "",
)
def test_the_files_start_as_their_byte_tables_say(path: Path, start: bytes) -> None:
    """Magic, version and flags are where docs/formats has them."""
    assert start == path.read_bytes()[: len(start)]
    assert 64 == HEADER_BYTES == FILE_HEADER.size


if __name__ == "__main__":
    VERSION_2.mkdir(parents=True, exist_ok=True)
    if not (VERSION_2 / "host.key").exists():
        HostKey.new().save(VERSION_2)
    with TemporaryDirectory() as scratch:
        for segment in write_segments(Path(scratch)):
            (VERSION_2 / segment.name).write_bytes(segment.read_bytes())
            sys.stdout.write(f"{VERSION_2 / segment.name}\n")
