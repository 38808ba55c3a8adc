"""Segments under bad luck: files cut anywhere, writers killed at any moment, disks that are full."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.errors import CorruptSegmentError, NewerVersionError, StateDirectoryError, StorageFullError
from capd.recording.journal import Position
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import FILE_HEADER, FileHeader, open_path, sealed_path
from capd.recording.segment.recovery import recover
from capd.recording.segment.writer import SegmentWriter
from capd.recording.verify import verify_directory
from tests.requirements import require, require_root

HOST = UUID(int=1)
FileLimit = Callable[[int], AbstractContextManager[None]]


def clock() -> Callable[[], int]:
    """Give a clock that counts 1, 2, 3 ..."""
    ticks = count(1)
    return lambda: next(ticks)


@pytest.fixture
def flushes() -> list[list[Record]]:
    """Give three flushes' records; the second is divided into frames when a frame holds 200 bytes."""

    def record(number: int, size: int) -> Record:
        return Record(Kind.MARKER, UUID(int=number % 2), number, None, {"payload": random.Random(number).randbytes(size)})

    return [[record(1, 50)], [record(number, 60) for number in range(2, 9)], [record(9, 10), record(10, 0)]]


@pytest.fixture
def opened(tmp_path: Path, flushes: list[list[Record]]) -> Path:
    """Give an open segment that holds the flushes."""
    writer = SegmentWriter(tmp_path, host=HOST, clock=clock(), frame_raw_bytes=200)
    for number, records in enumerate(flushes):
        writer.append(records)
        writer.flush(Position(0, 100 * (number + 1)))
    writer.close()
    return open_path(tmp_path, 1)


def flush_ends(path: Path) -> list[int]:
    """Give where each flush of a file ends; the end of the file header comes first."""
    with SegmentReader(path, sealed=False) as reader:
        frames = [reader.frame(number) for number in range(len(reader.entries()))]
        entries = reader.entries()
    return [FILE_HEADER.size] + [
        entry.offset + entry.length for frame, entry in zip(frames, entries, strict=True) if not frame.continued
    ]


def whole_flushes(ends: list[int], size: int) -> int:
    """Give how many flushes a file that is cut to a size holds whole."""
    return sum(end <= size for end in ends[1:])


def test_a_file_cut_at_any_byte_gives_its_whole_flushes(opened: Path, flushes: list[list[Record]]) -> None:
    """Every prefix of an open file is readable up to its last whole flush, and no further."""
    data = opened.read_bytes()
    ends = flush_ends(opened)
    assert 4 == len(ends)
    for size in range(FILE_HEADER.size, len(data) + 1):
        opened.write_bytes(data[:size])
        with SegmentReader(opened) as reader:
            expected = [record for records in flushes[: whole_flushes(ends, size)] for record in records]
            assert expected == list(reader.records())


def test_a_file_cut_at_any_byte_is_recovered(opened: Path, flushes: list[list[Record]]) -> None:
    """Recovery of every prefix seals its whole flushes, says where in the journal they end, and leaves nothing else."""
    data = opened.read_bytes()
    directory = opened.parent
    ends = flush_ends(opened)
    sealed = sealed_path(directory, 1)
    for size in [*range(0, len(data) + 1, 7), *ends, len(data), len(data) - 1]:
        sealed.unlink(missing_ok=True)
        opened.write_bytes(data[:size])
        recovery = recover(directory, clock=clock())
        whole = whole_flushes(ends, size)
        assert [sealed] * bool(whole) == list(directory.iterdir())
        assert (Position(0, 100 * whole) if whole else None, 2 if whole else 1) == (recovery.position, recovery.next_sequence)
        if whole:
            assert size - ends[whole] == recovery.cut_bytes
            with SegmentReader(sealed) as reader:
                assert [record for records in flushes[:whole] for record in records] == list(reader.records())
                assert reader.footer is not None
                assert reader.footer.recovered
        assert [] == [finding for report in verify_directory(directory) for finding in report.findings]


def test_a_byte_changed_anywhere_costs_at_most_what_follows(opened: Path, flushes: list[list[Record]]) -> None:
    """Whatever single byte of an open file is damaged, recovery keeps all flushes before it and seals a file that verifies."""
    data = opened.read_bytes()
    directory = opened.parent
    ends = flush_ends(opened)
    sealed = sealed_path(directory, 1)
    for offset in range(FILE_HEADER.size, len(data), 11):
        sealed.unlink(missing_ok=True)
        opened.write_bytes(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])
        recovery = recover(directory, clock=clock())
        whole = whole_flushes(ends, offset)
        assert Position(0, 100 * whole) if whole else recovery.position is None
        if whole:
            with SegmentReader(sealed) as reader:
                assert [record for records in flushes[:whole] for record in records] == list(reader.records())
        assert [] == [finding for report in verify_directory(directory) for finding in report.findings]


def test_a_file_without_a_whole_header_that_holds_data_is_set_aside(opened: Path) -> None:
    """An open file that is no segment is kept in quarantine; its number is free, so that no segment seems to be missing."""
    data = b"damaged" + opened.read_bytes()[7:]
    for number in (1, 2):
        opened.write_bytes(data)
        recovery = recover(opened.parent, clock=clock(), quarantine=opened.parent / "quarantine")
        assert 1 == recovery.next_sequence
        assert [data] * number == [path.read_bytes() for path in (opened.parent / "quarantine").iterdir()]
    assert not opened.exists()


def test_a_newer_open_file_is_left_alone(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery refuses to touch what a later capd left open."""
    monkeypatch.setattr("capd.recording.segment.layout.VERSION", 0)
    before = opened.read_bytes()
    with pytest.raises(NewerVersionError, match="format version 2"):
        recover(opened.parent, clock=clock())
    assert before == opened.read_bytes()


def test_a_writer_killed_between_footer_and_renaming_loses_nothing(tmp_path: Path, flushes: list[list[Record]]) -> None:
    """A complete file that only lacks its name gets it, with the footer as it was written."""
    writer = SegmentWriter(tmp_path, host=HOST, clock=clock())
    writer.append(flushes[0])
    writer.flush(Position(0, 1))
    path = writer.seal({"ring full": 3})
    assert path is not None
    data = path.read_bytes()
    path.rename(open_path(tmp_path, 1))
    recovery = recover(tmp_path, clock=clock())
    assert ([path], 0, Position(0, 1), data) == (recovery.sealed, recovery.cut_bytes, recovery.position, path.read_bytes())


def test_a_byte_changed_in_a_complete_file_costs_at_most_what_follows(opened: Path, flushes: list[list[Record]]) -> None:
    """A complete file that lacks its name gets it only as it was written; else it is cut and sealed anew, and verifies."""
    ends, directory = flush_ends(opened), opened.parent
    recover(directory, clock=clock())
    sealed = sealed_path(directory, 1)
    data = sealed.read_bytes()
    for offset in range(FILE_HEADER.size, len(data), 11):
        sealed.unlink(missing_ok=True)
        opened.write_bytes(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])
        recovery = recover(directory, clock=clock())
        whole = whole_flushes(ends, offset)
        assert (Position(0, 100 * whole) if whole else None) == recovery.position
        if whole:
            with SegmentReader(sealed) as reader:
                assert [record for records in flushes[:whole] for record in records] == list(reader.records())
        assert [] == [finding for report in verify_directory(directory) for finding in report.findings]


def test_recovery_killed_after_any_step_can_be_repeated(opened: Path, flushes: list[list[Record]]) -> None:
    """What a killed recovery leaves (cut, half a footer, a whole one) is recovered to the same records."""
    directory = opened.parent
    data = opened.read_bytes()
    ends = flush_ends(opened)
    recover(directory, clock=clock())
    footer = sealed_path(directory, 1).read_bytes()[ends[-1] :]
    for left in (data, *(data[: ends[-1]] + footer[:size] for size in range(0, len(footer) + 1, 5))):
        sealed_path(directory, 1).unlink()
        opened.write_bytes(left)
        recover(directory, clock=clock())
        with SegmentReader(sealed_path(directory, 1)) as reader:
            assert [record for records in flushes for record in records] == list(reader.records())


def test_the_position_of_a_damaged_newest_segment_is_taken_from_the_one_before(
    tmp_path: Path, flushes: list[list[Record]]
) -> None:
    """Damage to the newest footer makes recovery start the journal earlier, not fail, and never reuses the number."""
    writer = SegmentWriter(tmp_path, host=HOST, clock=clock())
    for number, records in enumerate(flushes):
        writer.append(records)
        writer.flush(Position(0, number))
        writer.seal({})
    path = sealed_path(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-5])
    recovery = recover(tmp_path, clock=clock())
    assert (Position(0, 1), 4) == (recovery.position, recovery.next_sequence)


def test_recovery_of_nothing_is_a_beginning(tmp_path: Path) -> None:
    """A missing directory recovers to the first number and no position."""
    recovery = recover(tmp_path / "segments", clock=clock())
    assert (None, 1) == (recovery.position, recovery.next_sequence)


def test_a_full_disk_costs_nothing_but_time(tmp_path: Path, flushes: list[list[Record]], file_limit: FileLimit) -> None:
    """However little room there is, a flush or seal that fails leaves the file as it was, and succeeds when there is room."""
    expected = [record for records in flushes for record in records]
    failed = set()
    for limit in range(0, 1600, 31):
        directory = tmp_path / str(limit)
        writer = SegmentWriter(directory, host=HOST, clock=clock(), frame_raw_bytes=200)
        done = 0
        for number, records in enumerate(flushes):
            writer.append(records)
            try:
                with file_limit(limit):
                    writer.flush(Position(0, number + 1))
                done = number + 1
            except StorageFullError:
                failed.add("flush")
                if open_path(directory, 1).stat().st_size:
                    with SegmentReader(open_path(directory, 1)) as reader:
                        assert [record for part in flushes[:done] for record in part] == list(reader.records())
        try:
            with file_limit(limit):
                writer.seal({})
        except StorageFullError:
            failed.add("seal")
            writer.seal({})
        with SegmentReader(sealed_path(directory, 1)) as reader:
            assert expected == list(reader.records())
            positions = [frame.preamble.position for frame in reader.frames()]
        assert sorted(positions) == positions
        assert [] == [finding for report in verify_directory(directory) for finding in report.findings]
    assert {"flush", "seal"} == failed


@pytest.mark.parametrize("more", [0, 2])
def test_a_seal_that_cannot_rename_leaves_a_segment_that_goes_on(
    tmp_path: Path, flushes: list[list[Record]], more: int
) -> None:
    """When the last step of a seal fails, frames may follow and the next seal makes a whole file."""
    writer = SegmentWriter(tmp_path, host=HOST, clock=clock())
    writer.append(flushes[0])
    writer.flush(Position(0, 1))
    obstacle = sealed_path(tmp_path, 1)
    obstacle.mkdir()
    with pytest.raises(StateDirectoryError, match="cannot seal"):
        writer.seal({"a long name, so that the first footer is longer than the second": 1})
    obstacle.rmdir()
    writer.append(flushes[2][:more])
    writer.flush(Position(0, 2))
    writer.seal({})
    (report,) = verify_directory(tmp_path)
    assert (1 + more, []) == (report.records, report.findings)


def test_a_segment_is_sealed_though_its_name_is_not_safe_yet(
    tmp_path: Path, flushes: list[list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the directory cannot be synced the segment stays sealed, who asks is told, and asking again mends it."""
    refusals = [OSError(errno.ENOSPC, "no"), OSError(errno.EIO, "no")]
    asked: list[Path] = []

    def sync(path: Path) -> None:
        asked.append(path)
        if refusals:
            raise refusals.pop(0)

    monkeypatch.setattr("capd.recording.segment.writer.sync_directory", sync)
    writer = SegmentWriter(tmp_path, host=HOST, clock=clock())
    writer.settle()
    assert [] == asked
    for records in flushes[:2]:
        writer.append(records)
        writer.flush(Position(0, 1))
        assert writer.seal({}) is not None
        with pytest.raises((StorageFullError, StateDirectoryError)):
            writer.settle()
    writer.settle()
    writer.settle()
    assert 3 == len(asked)
    assert [[], []] == [report.findings for report in verify_directory(tmp_path)]


def test_a_full_file_system_is_told_as_full(tmp_path: Path, flushes: list[list[Record]]) -> None:
    """On a file system of one page's room the error is StorageFullError, and what was sealed before verifies."""
    require_root()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    require(mounted.returncode == 0, f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        writer = SegmentWriter(tmp_path, host=HOST, clock=clock())
        random.seed(1)
        with pytest.raises(StorageFullError, match="No space left on device"):
            _fill(writer, flushes[0])
        writer.close()
        reports = list(verify_directory(tmp_path))
        assert len(reports) > 3
        assert [] == [finding for report in reports for finding in report.findings if finding.damage]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _fill(writer: SegmentWriter, records: list[Record]) -> None:
    for number in range(100):
        writer.append(records)
        writer.append([Record(Kind.DATA, records[0].session, number, None, {"payload": random.randbytes(5000)})])
        writer.flush(Position(0, number))
        writer.seal({})


WRITE_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from uuid import UUID
from capd.recording.journal import Position
from capd.recording.record import Kind, Record
from capd.recording.segment.recovery import recover
from capd.recording.segment.writer import SegmentWriter

directory = Path(sys.argv[1])
found = recover(directory, clock=time.time_ns)
number = found.position.offset if found.position else 0
writer = SegmentWriter(directory, host=UUID(int=1), clock=time.time_ns, sequence=found.next_sequence, frame_raw_bytes=3000,
                       position=found.position or Position(0, 0))
print("started", flush=True)
while True:
    for _ in range(20):
        number += 1
        body = {"number": number, "payload": b"x" * (number * 37 % 1500)}
        writer.append([Record(Kind.MARKER, UUID(int=7), number, None, body)])
    writer.flush(Position(0, number))
    if number % 200 == 0:
        writer.seal({})
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """Writers killed with -9 at random moments, one after the other: all that was flushed is there, in order, each once."""
    random.seed(20)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", WRITE_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = _read_some(process.stdout, random.randrange(1, 60))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines()
        flushed = int(lines[-1]) if lines and lines[-1].isdigit() else 0
        numbers = [record.body["number"] for record in _all_records(tmp_path)]
        assert list(range(1, len(numbers) + 1)) == numbers
        assert flushed <= len(numbers)
        assert 0 == len(numbers) % 20
    recover(tmp_path, clock=clock())
    reports = list(verify_directory(tmp_path))
    assert [] == [finding for report in reports for finding in report.findings]
    assert all(report.sealed for report in reports)


def _read_some(stream: Iterator[str], lines: int) -> list[str]:
    return [next(stream).strip() for _ in range(lines)]


def _all_records(directory: Path) -> Iterator[Record]:
    for path in sorted(directory.iterdir()):
        if path.stat().st_size >= FILE_HEADER.size:
            with SegmentReader(path) as reader:
                yield from reader.records()


def test_garbage_in_place_of_a_segment_raises_only_our_error(tmp_path: Path) -> None:
    """Files of random bytes, and segments with random bytes in them, are read or refused with CorruptSegmentError."""
    random.seed(3)
    path = sealed_path(tmp_path, 1)
    head = FileHeader(host=HOST, sequence=1, created_ns=1).pack()
    for size in range(200):
        for data in (random.randbytes(size), head + random.randbytes(size), head + b"CFRM" + random.randbytes(size)):
            path.write_bytes(data)
            for sealed in (True, False):
                try:
                    with SegmentReader(path, sealed=sealed) as reader:
                        list(reader.records())
                        reader.sessions()
                except (CorruptSegmentError, NewerVersionError):
                    pass
