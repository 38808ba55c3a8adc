"""Segments: what was appended is what is read, by everybody, from the flush on."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.errors import CorruptSegmentError, NewerVersionError, RecordTooLargeError, StateDirectoryError
from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.frame_index import FrameIndex
from capd.recording.segment.layout import (
    FRAME_HEADER,
    VERSION,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    finish_frame,
    frame_head,
)
from capd.recording.segment.writer import SegmentWriter

HOST = UUID(int=1)
Conversation = Callable[..., list[Record]]


def writer(directory: Path, **settings: int) -> SegmentWriter:
    """Give a writer whose clock counts 1, 2, 3 ..."""
    ticks = count(1)
    return SegmentWriter(directory, host=HOST, clock=lambda: next(ticks), **settings)  # type: ignore[arg-type]


def test_a_sealed_segment_holds_the_records_in_order(tmp_path: Path, conversation: Conversation) -> None:
    """Records of several sessions and flushes come back whole, in order, and by session."""
    sessions = [conversation(number) for number in range(3)]
    segment = writer(tmp_path)
    for position, records in enumerate(sessions):
        segment.append(records)
        segment.flush(Position(0, position + 1))
    path = segment.seal({"ring full": 7})
    assert tmp_path / "000000000001.seg" == path
    assert [path] == list(tmp_path.iterdir())
    with SegmentReader(path) as reader:
        footer = reader.footer
        assert footer is not None
        assert [record for records in sessions for record in records] == list(reader.records())
        for number, records in enumerate(sessions):
            assert records == list(reader.records(records[0].session))
            entry = footer.sessions[records[0].session]
            assert ([number], len(records), [80, 80]) == (entry.frames, entry.records, entry.bytes)
            assert {"verdict": "complete", "reasons": []} == entry.completeness
        assert (HOST, 1, {"ring full": 7}, Position(0, 3), False) == (
            footer.header.host,
            footer.header.sequence,
            footer.losses,
            footer.position,
            footer.recovered,
        )
        assert (sessions[0][0].time_ns, sessions[-1][-1].time_ns) == (footer.first_ns, footer.last_ns)


def test_a_flush_is_visible_at_once_and_an_append_is_not(tmp_path: Path, conversation: Conversation) -> None:
    """A reader that stays open sees each flush when it returns, and nothing of what was only appended."""
    first, second = conversation(1), conversation(2)
    segment = writer(tmp_path)
    segment.append(first)
    assert [] == list(tmp_path.iterdir())
    segment.flush(Position(0, 1))
    with SegmentReader(tmp_path / "000000000001.open") as reader:
        assert first == list(reader.records())
        segment.append(second)
        assert first == list(reader.records())
        segment.flush(Position(0, 2))
        assert second == list(reader.records(start=1))
        segment.seal({})
        assert first + second == list(reader.records())


def test_a_large_flush_is_divided_and_counts_only_as_a_whole(tmp_path: Path, conversation: Conversation) -> None:
    """A flush over the frame size becomes several frames; a reader of a file cut between them sees none of it."""
    small, large = conversation(1), conversation(2, 50, 300)
    segment = writer(tmp_path, frame_raw_bytes=2000)
    segment.append(small)
    segment.flush(Position(0, 1))
    before = segment.file_bytes
    segment.append(large)
    segment.flush(Position(0, 2))
    path = tmp_path / "000000000001.open"
    with SegmentReader(path) as reader:
        frames = list(reader.frames())
        assert small + large == list(reader.records())
    assert len(frames) > 10
    assert [Position(0, 1)] * (len(frames) - 1) + [Position(0, 2)] == [frame.preamble.position for frame in frames]
    data = path.read_bytes()
    for end in [frame.offset for frame in frames[2:]] + [len(data) - 1, before]:
        path.write_bytes(data[:end])
        with SegmentReader(path) as reader:
            assert small == list(reader.records())


def test_segments_follow_each_other_without_holes(tmp_path: Path, conversation: Conversation) -> None:
    """Sequences count up over seals and over writers, and a seal of nothing makes no file."""
    segment = writer(tmp_path)
    for number in range(3):
        segment.append(conversation(number))
        segment.flush(Position(number, 0))
        segment.seal({})
        assert None is segment.seal({})
    again = writer(tmp_path)
    again.append(conversation(3))
    again.seal({})
    assert [f"{number:012d}.seg" for number in (1, 2, 3, 4)] == sorted(path.name for path in tmp_path.iterdir())


def test_a_segment_is_due_by_age_size_or_wish(tmp_path: Path, conversation: Conversation) -> None:
    """A segment is due five seconds after its first record, at its size, or when asked; an empty one never is."""
    now = 1_000
    segment = SegmentWriter(tmp_path, host=HOST, clock=lambda: now, raw_bytes_max=100_000)
    segment.ask_seal()
    assert (False, True) == (segment.should_seal(10**18), segment.empty)
    segment.append(conversation(1))
    assert (True, False) == (segment.should_seal(now), segment.empty)
    segment.seal({})
    segment.append(conversation(1))
    cases = [(now, False), (now + 4_999_999_999, False), (now + 5_000_000_000, True), (now - 1, True)]
    assert [expected for _, expected in cases] == [segment.should_seal(at) for at, _ in cases]
    segment.append(conversation(2, 1, 100_000))
    assert segment.should_seal(now)


def test_a_position_without_records_writes_nothing_but_is_kept(tmp_path: Path, conversation: Conversation) -> None:
    """Blocks that gave no record advance the position of the next frame and the footer."""
    segment = writer(tmp_path)
    segment.flush(Position(3, 4))
    assert ([], Position(3, 4)) == (list(tmp_path.iterdir()), segment.position)
    segment.append(conversation(1))
    segment.flush(Position(3, 5))
    segment.flush(Position(3, 6))
    path = segment.seal({})
    assert path is not None
    with SegmentReader(path) as reader:
        assert reader.footer is not None
        assert ([Position(3, 5)], Position(3, 6)) == ([f.preamble.position for f in reader.frames()], reader.footer.position)


def test_a_time_range_reads_only_frames_that_can_hold_it(tmp_path: Path, conversation: Conversation) -> None:
    """Records are chosen by from <= time < until, and frames outside of the range are not even opened."""
    sessions = [conversation(number) for number in range(4)]
    segment = writer(tmp_path)
    for records in sessions:
        segment.append(records)
        segment.flush(Position(0, 1))
    path = segment.seal({})
    assert path is not None
    wanted = sessions[2]
    data = bytearray(path.read_bytes())
    with SegmentReader(path) as reader:
        entries = reader.entries()
    for entry in (entries[0], entries[1], entries[3]):
        data[entry.offset + 30] ^= 1
    path.write_bytes(data)
    with SegmentReader(path) as reader:
        chosen = list(reader.records(from_ns=wanted[1].time_ns, until_ns=wanted[-1].time_ns))
    assert wanted[1:-1] == chosen


def test_a_record_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversation: Conversation
) -> None:
    """A record that no reader would take is not written, and what came before it is kept."""
    monkeypatch.setattr("capd.recording.segment.writer.RECORD_BYTES_MAX", 1000)
    records = conversation(1)
    segment = writer(tmp_path)
    with pytest.raises(RecordTooLargeError):
        segment.append([*records, Record(Kind.DATA, records[0].session, 1, Direction.REQUEST, {"payload": bytes(1001)})])
    path = segment.seal({})
    assert path is not None
    with SegmentReader(path) as reader:
        assert records == list(reader.records())


def test_a_sealed_segment_is_never_written_over(tmp_path: Path, conversation: Conversation) -> None:
    """A writer that is told a number that is sealed already refuses, and the sealed file is untouched."""
    segment = writer(tmp_path)
    segment.append(conversation(1))
    path = segment.seal({})
    assert path is not None
    before = path.read_bytes()
    again = writer(tmp_path, sequence=1)
    again.append(conversation(2))
    with pytest.raises(StateDirectoryError, match="File exists"):
        again.flush(Position(0, 1))
    assert before == path.read_bytes()


@pytest.mark.parametrize("suffix", ["seg", "open"])
def test_a_newer_version_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    """A file of a later format is refused with both versions in the message."""
    head = bytearray(FileHeader(host=HOST, sequence=1, created_ns=1).pack())
    head[8:10] = (VERSION + 1).to_bytes(2, "little")
    path = tmp_path / f"000000000001.{suffix}"
    path.write_bytes(_with_crc(head))
    with pytest.raises(NewerVersionError, match="has format version 3; this capd reads versions up to 2"):
        SegmentReader(path)


def _with_crc(head: bytearray) -> bytes:
    return bytes(head[:60]) + zlib.crc32(head[:60]).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("raw", "index", "stored"),
    [((128 << 20) + 1, 1, 10), (10, 1, (129 << 20) + 1), (10, (64 << 20) + 1, 1), ((1 << 32) - 1, 0, (1 << 32) - 1)],
)
def test_lengths_over_the_limit_are_refused_before_anything_is_allocated(raw: int, index: int, stored: int) -> None:
    """A damaged length in a frame header cannot make a reader allocate more than the limit."""
    data = FRAME_HEADER.pack(b"CFRM", VERSION, 1, 0, 0, raw, index, stored, 0)
    with pytest.raises(MalformedSegmentError, match="over the limit"):
        FrameHeader.parse(data)


def test_a_frame_that_inflates_beyond_its_announcement_is_refused(tmp_path: Path) -> None:
    """A zstd frame that announces more than the frame header is refused before it is decompressed."""
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    head = frame_head(number=0, continued=False, raw_bytes=100, index_bytes=0, stored_bytes=len(bomb))
    path = tmp_path / "000000000001.open"
    path.write_bytes(FileHeader(host=HOST, sequence=1, created_ns=1).pack() + finish_frame(head, b"", bomb) + bomb)
    with SegmentReader(path) as reader, pytest.raises(CorruptSegmentError, match="another length"):
        list(reader.records())


@given(data=st.binary(max_size=100))
def test_random_bytes_are_headers_or_refused(data: bytes) -> None:
    """Random bytes never raise anything but the layout's own errors."""
    for parse in (FileHeader.parse, FrameHeader.parse, FrameIndex.parse):
        with contextlib.suppress(MalformedSegmentError, NewerSegmentError):
            parse(data)
