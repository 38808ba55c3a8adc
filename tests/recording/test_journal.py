"""The journal: what was appended is read in order, while it grows, whatever happens to its writer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.errors import NewerVersionError, NotReadableError, StorageFullError
from capd.recording.journal import Block, JournalDamage, JournalReader, JournalWriter, Position, Source
from capd.recording.journal.block import (
    HEADER_BYTES,
    RAW_BYTES_MAX,
    BlockHeader,
    Codec,
    MalformedBlockError,
    file_path,
    payload_of,
)
from tests.requirements import require_root

FileLimit = Callable[[int], AbstractContextManager[None]]
Found = Block | JournalDamage
TEXT = b"GET /customers/%d HTTP/1.1\r\nHost: api.example.org\r\n\r\n" * 100


def append(writer: JournalWriter, payload: bytes, number: int = 0) -> None:
    """Append a block that is told by its number."""
    writer.append(Source.DATA, payload, count=number, boottime_ns=1000 + number, realtime_ns=5000 + number)


def read_all(reader: JournalReader) -> list[Found]:
    """Read until there is nothing more."""
    found = []
    while (item := reader.read()) is not None:
        found.append(item)
    return found


def payloads(found: list[Found]) -> list[bytes]:
    """Give the payloads of blocks; damage is told as its reason's class name."""
    return [bytes(item.payload) if isinstance(item, Block) else b"damage" for item in found]


@pytest.mark.parametrize("level", [None, 1, -6])
def test_blocks_come_back_as_they_were_appended(tmp_path: Path, level: int | None) -> None:
    """Payloads of any kind and size come back whole, with their header's facts and contiguous positions."""
    random.seed(1)
    contents = [b"", b"x", TEXT, random.randbytes(1000), TEXT * 100, random.randbytes(1 << 20), bytes(3 << 20)]
    with JournalWriter(tmp_path, level=level, file_bytes_max=2 << 20) as writer:
        for number, payload in enumerate(contents):
            writer.append(Source.CONTROL, payload, count=number, boottime_ns=number, realtime_ns=10 + number)
    with JournalReader(tmp_path, None) as reader:
        blocks = [item for item in read_all(reader) if isinstance(item, Block)]
    assert contents == payloads([*blocks])
    for number, block in enumerate(blocks):
        assert (Source.CONTROL, number, number, number, 10 + number) == (
            block.source,
            block.sequence,
            block.count,
            block.boottime_ns,
            block.realtime_ns,
        )
    for before, after in pairwise(blocks):
        assert after.position in (before.next, Position(before.position.file + 1, 0))


def test_an_event_gets_its_wall_time_from_its_block(tmp_path: Path) -> None:
    """The pair of clocks in the header turns a boot clock time into a wall time."""
    with JournalWriter(tmp_path) as writer:
        writer.append(Source.DATA, b"x", count=1, boottime_ns=5_000, realtime_ns=1_700_000_000_000_000_000)
    (block,) = read_all(JournalReader(tmp_path, None))
    assert isinstance(block, Block)
    assert 1_699_999_999_999_999_500 == block.wall_time_ns(4_500)


def test_compression_is_used_where_it_pays(tmp_path: Path) -> None:
    """Text shrinks on disk; random bytes, also behind a start of text, and small payloads are stored as they are."""
    random.seed(1)
    cases = [
        (TEXT * 100, False),
        (TEXT * 10, False),
        (random.randbytes(1 << 20), True),
        (random.randbytes(5000), True),
        (TEXT[:200], True),
        (TEXT * 4 + random.randbytes(1 << 20), True),
    ]
    for number, (payload, raw) in enumerate(cases):
        with JournalWriter(tmp_path / str(number)) as writer:
            append(writer, payload)
            assert raw == (HEADER_BYTES + len(payload) == writer.bytes_total())
        assert [payload] == payloads(read_all(JournalReader(tmp_path / str(number), None)))


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    """A reader started before the directory exists sees each block when it is appended, over rotations and writers."""
    directory = tmp_path / "journal"
    reader = JournalReader(directory, None)
    assert None is reader.read()
    number = 0
    for _ in range(3):
        with JournalWriter(directory, level=None, file_bytes_max=1000) as writer:
            for _ in range(10):
                number += 1
                append(writer, b"%d" % number * 50, number)
                assert [b"%d" % number * 50] == payloads(read_all(reader))
    assert 6 == len(list(directory.iterdir()))
    assert 0 == reader.lag_bytes()


def test_reading_goes_on_at_a_position(tmp_path: Path) -> None:
    """From the position of every block, and from after each, a new reader gives exactly the rest."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=500) as writer:
        for number in range(20):
            append(writer, b"%d" % number * 60)
        total = writer.bytes_total()
    blocks = [item for item in read_all(JournalReader(tmp_path, None)) if isinstance(item, Block)]
    rest = total
    for number, block in enumerate(blocks):
        assert payloads([*blocks[number:]]) == payloads(read_all(JournalReader(tmp_path, block.position)))
        assert rest == JournalReader(tmp_path, block.position).lag_bytes()
        again = JournalReader(tmp_path, Position.from_fields(list(block.next.to_fields())))
        rest -= block.next.offset - block.position.offset
        assert (rest, payloads([*blocks[number + 1 :]])) == (again.lag_bytes(), payloads(read_all(again)))


def test_a_new_writer_starts_a_new_file(tmp_path: Path) -> None:
    """Numbers of files only grow, and what older writers wrote is not touched."""
    contents = []
    for number in range(3):
        with JournalWriter(tmp_path) as writer:
            append(writer, TEXT)
            contents.append(file_path(tmp_path, number).read_bytes())
    assert contents == [path.read_bytes() for path in sorted(tmp_path.iterdir())]


def test_what_is_sealed_is_removed(tmp_path: Path) -> None:
    """Files wholly before a position are removed and their bytes told; the rest, and the file that is written, stay."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=300) as writer:
        for _ in range(6):
            append(writer, bytes(200))
        assert 6 * 264 == writer.bytes_total()
        assert 0 == writer.remove_before(Position(0, 264))
        assert 2 * 264 == writer.remove_before(Position(2, 10))
        assert 3 * 264 == writer.remove_before(Position(99, 0))
        assert (264, [file_path(tmp_path, 5)]) == (writer.bytes_total(), list(tmp_path.iterdir()))
        append(writer, b"x")
    with JournalWriter(tmp_path) as again:
        assert 264 + 65 == again.bytes_total()
        assert Position(7, 0) == again.position


def test_only_its_group_may_read_it(tmp_path: Path) -> None:
    """Directory and files are for the owner and the recorder's group alone."""
    group = os.getgroups()[0] if os.geteuid() else 65534
    with JournalWriter(tmp_path / "journal", group=group) as writer:
        append(writer, b"x")
    assert [(0o750, group), (0o640, group)] == [
        (path.stat().st_mode & 0o777, path.stat().st_gid) for path in (tmp_path / "journal", *(tmp_path / "journal").iterdir())
    ]


def test_a_payload_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no reader would take is not written."""
    monkeypatch.setattr("capd.recording.journal.writer.RAW_BYTES_MAX", 100)
    with JournalWriter(tmp_path) as writer, pytest.raises(ValueError, match="over the limit of 100"):
        append(writer, bytes(101))
    assert [] == read_all(JournalReader(tmp_path, None))


# Faults


@pytest.mark.parametrize("level", [None, 1])
def test_a_file_cut_at_any_byte_gives_its_whole_blocks(tmp_path: Path, level: int | None) -> None:
    """Of the newest file the whole blocks are read and no damage is told; once there is a newer one, the rest is damage."""
    contents = [b"first", TEXT[:700], b"", b"last one"]
    with JournalWriter(tmp_path, level=level) as writer:
        ends = [0]
        for payload in contents:
            append(writer, payload)
            ends.append(writer.bytes_total())
    path = file_path(tmp_path, 0)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        file_path(tmp_path, 1).unlink(missing_ok=True)
        reader = JournalReader(tmp_path, None)
        whole = sum(end <= size for end in ends[1:])
        assert contents[:whole] == payloads(read_all(reader))
        assert size - ends[whole] == reader.lag_bytes()
        with JournalWriter(tmp_path, level=level) as writer:
            append(writer, b"next")
        *damage, block = read_all(reader)
        assert b"next" == payloads([block])[0]
        assert [(Position(0, ends[whole]), Position(1, 0), size - ends[whole])] * (size > ends[whole]) == [
            (item.position, item.next, item.bytes) for item in damage if isinstance(item, JournalDamage)
        ]


def test_a_byte_changed_anywhere_costs_its_block_or_what_follows(tmp_path: Path) -> None:
    """Damage to a payload costs that block, damage to a header the rest of that file, and the next file is read whole."""
    contents = [b"a" * 30, b"b" * 30, b"c" * 30]
    with JournalWriter(tmp_path, level=None) as writer:
        for payload in contents:
            append(writer, payload)
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"next")
    path = file_path(tmp_path, 0)
    data = path.read_bytes()
    size = HEADER_BYTES + 30
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :])
        damaged, inside = divmod(offset, size)
        kept = contents[:damaged] + [b"damage"] + (contents[damaged + 1 :] if inside >= HEADER_BYTES else [])
        assert [*kept, b"next"] == payloads(read_all(JournalReader(tmp_path, None))), f"byte {offset}"


def test_a_block_made_up_by_an_agent_is_never_taken_for_one(tmp_path: Path) -> None:
    """Payload bytes that look like a block are not found when the header before them is damaged."""
    fake = BlockHeader(
        source=Source.NOTE,
        codec=Codec.NONE,
        sequence=9,
        raw_bytes=0,
        stored_bytes=0,
        boottime_ns=0,
        realtime_ns=0,
        count=0,
        stored_crc=0,
    ).pack()
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, fake * 10)
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"next")
    path = file_path(tmp_path, 0)
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    assert [b"damage", b"next"] == payloads(read_all(JournalReader(tmp_path, None)))


def test_a_damaged_header_in_the_newest_file_waits_for_the_next(tmp_path: Path) -> None:
    """What cannot be told from an unfinished write is not called damage before there is a newer file."""
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"one")
        path = file_path(tmp_path, 0)
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        reader = JournalReader(tmp_path, None)
        assert [] == read_all(reader)
        append(writer, b"two")
        assert [] == read_all(reader)
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"three")
    assert [b"damage", b"three"] == payloads(read_all(reader))


def test_files_that_were_removed_unread_are_damage(tmp_path: Path) -> None:
    """A reader whose file was removed, or who finds a hole between files, says so and goes on with what is there."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=100) as writer:
        for number in range(6):
            append(writer, b"block %d" % number * 8)
    reader = JournalReader(tmp_path, None)
    first = reader.read()
    assert isinstance(first, Block)
    for number in (1, 2, 4):
        file_path(tmp_path, number).unlink()
    late = JournalReader(tmp_path, Position(2, 0))
    assert [b"damage", b"block 3" * 8, b"damage", b"block 5" * 8] == payloads(read_all(reader))
    (damage, *_) = read_all(late)
    assert isinstance(damage, JournalDamage)
    assert (Position(2, 0), Position(3, 0), None) == (damage.position, damage.next, damage.bytes)


def test_a_journal_that_was_removed_and_begun_again_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A position far beyond everything there is damage, not endless waiting."""
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"new life")
    assert [b"damage", b"new life"] == payloads(read_all(JournalReader(tmp_path, Position(57, 1234))))


@pytest.mark.parametrize("limit", [0, 50, 64, 100, 163, 164, 300])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, file_limit: FileLimit, limit: int) -> None:
    """An append that finds no room says so, leaves no part of its block, and can be repeated when there is room."""
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"before" * 5)
        size = writer.bytes_total()
        with file_limit(size + limit):
            if limit < 164:
                with pytest.raises(StorageFullError, match="cannot write"):
                    append(writer, b"x" * 100)
                assert size == file_path(tmp_path, 0).stat().st_size == writer.bytes_total()
        assert [b"before" * 5] == payloads(read_all(JournalReader(tmp_path, None)))
        append(writer, b"after")
    blocks = read_all(JournalReader(tmp_path, None))
    assert ([b"before" * 5, b"after"], [0, 1]) == (
        payloads(blocks),
        [item.sequence for item in blocks if isinstance(item, Block)],
    )


def test_a_block_taken_back_while_it_is_read_is_no_damage(tmp_path: Path) -> None:
    """A reader that met half a block of a full disk reads what the writer put in its place."""
    with JournalWriter(tmp_path, level=None) as writer:
        append(writer, b"x" * 100)
    path = file_path(tmp_path, 0)
    data = path.read_bytes()
    path.write_bytes(data[:120])
    reader = JournalReader(tmp_path, None)
    assert None is reader.read()
    path.write_bytes(b"")
    assert None is reader.read()
    path.write_bytes(data)
    assert [b"x" * 100] == payloads(read_all(reader))


def test_a_reader_without_permission_is_told(tmp_path: Path) -> None:
    """A user outside of the group gets the error that says so."""
    require_root()
    tmp_path.chmod(0o755)
    with JournalWriter(tmp_path / "journal") as writer:
        append(writer, b"x")
    read = "from pathlib import Path; from capd.recording.journal import JournalReader as R; R(Path({!r}), None).read()"
    code = read.format(str(tmp_path / "journal"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{NotReadableError.__name__}: cannot read" in done.stderr


def test_a_block_written_between_two_looks_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that appends and rotates while the reader looks for a newer file costs nothing."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=150) as writer:
        append(writer, b"one")
        reader = JournalReader(tmp_path, None)
        reader.read()
        look = reader._following

        def meanwhile() -> int | None:
            monkeypatch.undo()
            append(writer, b"two")
            append(writer, b"three")
            return look()

        monkeypatch.setattr(reader, "_following", meanwhile)
        assert [b"two", b"three"] == payloads(read_all(reader))


def test_a_newer_block_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of a later version is refused with both versions in the message."""
    with JournalWriter(tmp_path) as writer:
        append(writer, b"x")
    monkeypatch.setattr("capd.recording.journal.block.VERSION", 0)
    monkeypatch.setattr("capd.recording.journal.reader.VERSION", 0)
    with pytest.raises(NewerVersionError, match="has format version 1; this capd reads versions up to 0"):
        JournalReader(tmp_path, None).read()


headers = st.builds(
    BlockHeader,
    source=st.sampled_from(Source),
    codec=st.sampled_from(Codec),
    sequence=st.integers(0, (1 << 64) - 1),
    raw_bytes=st.integers(0, RAW_BYTES_MAX),
    stored_bytes=st.integers(0, RAW_BYTES_MAX),
    boottime_ns=st.integers(0, (1 << 64) - 1),
    realtime_ns=st.integers(0, (1 << 64) - 1),
    count=st.integers(0, (1 << 32) - 1),
    stored_crc=st.integers(0, (1 << 32) - 1),
)


@given(header=headers)
def test_a_header_is_read_as_it_was_packed(header: BlockHeader) -> None:
    """Every header survives packing and parsing."""
    assert header == BlockHeader.parse(header.pack())


@given(data=st.binary(max_size=80) | headers.map(lambda header: header.pack()), size=st.integers(0, 80))
def test_random_bytes_are_a_header_or_refused(data: bytes, size: int) -> None:
    """Random or cut bytes never raise anything but the block's own error."""
    with suppress(MalformedBlockError):
        BlockHeader.parse(data[:size])


@pytest.mark.parametrize("field", ["raw_bytes", "stored_bytes"])
def test_a_length_over_the_limit_is_refused_before_anything_is_allocated(field: str) -> None:
    """A damaged length, even under a right checksum, cannot make a reader allocate more than the limit."""
    facts = {"raw_bytes": 1, "stored_bytes": 1, field: RAW_BYTES_MAX + 1}
    data = BlockHeader(
        source=Source.DATA, codec=Codec.ZSTD, sequence=0, boottime_ns=0, realtime_ns=0, count=0, stored_crc=0, **facts
    ).pack()
    with pytest.raises(MalformedBlockError, match="over the limit"):
        BlockHeader.parse(data)


def test_a_payload_that_inflates_beyond_its_announcement_is_refused() -> None:
    """A zstd frame that announces more than the header is refused before it is decompressed."""
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    header = BlockHeader(
        source=Source.DATA,
        codec=Codec.ZSTD,
        sequence=0,
        raw_bytes=100,
        stored_bytes=len(bomb),
        boottime_ns=0,
        realtime_ns=0,
        count=0,
        stored_crc=zlib.crc32(bomb),
    )
    with pytest.raises(MalformedBlockError, match="another length"):
        payload_of(header, bomb, zstandard.ZstdDecompressor())


@pytest.mark.parametrize("fields", [None, [], [1], [1, 2, 3], [-1, 0], [0, -1], ["1", 0], "ab", [1.0, 2]])
def test_what_is_no_position_is_refused(fields: object) -> None:
    """Fields that no position gave raise ValueError."""
    with pytest.raises(ValueError, match="not a journal position"):
        Position.from_fields(fields)


WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from capd.recording.journal import JournalWriter, Source

writer = JournalWriter(Path(sys.argv[1]), level=[None, 1][int(sys.argv[2]) % 2], file_bytes_max=200_000)
base = int(sys.argv[2]) * 1_000_000
number = 0
while True:
    number += 1
    payload = b"%d " % (base + number) * (number * 7919 % 9000)
    writer.append(Source.DATA, payload, count=number, boottime_ns=1, realtime_ns=1)
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    """Writers killed with -9 at random moments: all that was appended is read in order; each left at most one torn block."""
    random.seed(5)
    reader = JournalReader(tmp_path, None)
    for life in range(10):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", WRITE_UNTIL_KILLED, str(tmp_path), str(life)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            found = _read_while(process.stdout, reader, random.randrange(1, 300))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines()
        found += read_all(reader)
        numbers = [item.count for item in found if isinstance(item, Block)]
        assert list(range(1, len(numbers) + 1)) == numbers
        assert (int(lines[-1]) if lines else 0) <= len(numbers)
        for item in found:
            if isinstance(item, Block):
                assert b"%d " % (life * 1_000_000 + item.count) * (item.count * 7919 % 9000) == bytes(item.payload)
        assert sum(isinstance(item, JournalDamage) for item in found) <= (life > 0)


def _read_while(lines: Iterator[str], reader: JournalReader, count: int) -> list[Found]:
    """Read the journal beside its writer until the writer has appended so many blocks."""
    found = []
    for _ in range(count):
        next(lines)
        item = reader.read()
        if item is not None:
            found.append(item)
    return found
