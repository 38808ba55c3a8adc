"""Verification: what is whole passes, and whatever was done to a segment is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.footer import Footer
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.trailer import KEY_ID_BYTES, SIGNATURE_BYTES, TRAILER, TRAILER_MAGIC
from capd.recording.segment.writer import SegmentWriter
from capd.recording.verify import Fault, Finding, verify_directory

Conversation = Callable[..., list[Record]]
HOST = UUID(int=1)
SESSION = UUID(int=7)


def writer(directory: Path, **settings: int) -> SegmentWriter:
    """Give a writer whose clock counts 1, 2, 3 ..."""
    ticks = count(1)
    return SegmentWriter(directory, host=HOST, clock=lambda: next(ticks), **settings)  # type: ignore[arg-type]


def findings(directory: Path) -> list[Finding]:
    """Give everything that verification finds in a directory."""
    return [finding for report in verify_directory(directory) for finding in report.findings]


def write(directory: Path, *flushes: list[Record], frame_raw_bytes: int = 1 << 20) -> Path:
    """Write one segment and seal it."""
    segment = writer(directory, frame_raw_bytes=frame_raw_bytes)
    for records in flushes:
        segment.append(records)
        segment.flush(Position(0, segment.position.offset + 1))
    path = segment.seal({})
    assert path is not None
    return path


def data(position: int, payload: bytes, direction: Direction = Direction.REQUEST, **body: Value) -> Record:
    """Give a DATA record of the session."""
    return Record(Kind.DATA, SESSION, 1, direction, {"position": position, "payload": payload, **body})


def gap(position: int, length: int | None, direction: Direction | None = Direction.REQUEST) -> Record:
    """Give a GAP record of the session."""
    return Record(Kind.GAP, SESSION, 1, direction, {"position": position, "length": length, "reason": "ring full"})


def test_whole_segments_pass(tmp_path: Path, conversation: Conversation) -> None:
    """Segments as they are written, sealed and open, have no findings, and are counted right."""
    for number in range(3):
        write(tmp_path, conversation(number), conversation(10 + number), frame_raw_bytes=900)
    still_open = writer(tmp_path)
    still_open.append(conversation(20))
    still_open.flush(Position(0, 9))
    reports = list(verify_directory(tmp_path))
    assert [[]] * 4 == [report.findings for report in reports]
    assert [(1, True, 20), (2, True, 20), (3, True, 20), (4, False, 10)] == [
        (report.sequence, report.sealed, report.records) for report in reports
    ]


def test_a_change_of_any_byte_is_found(tmp_path: Path) -> None:
    """Whichever byte of a sealed segment is changed, but for its signature, the content is found to be damaged."""
    path = write(tmp_path, [data(0, b"abc")], [gap(3, 4), data(7, b"d")])
    whole = path.read_bytes()
    signature = range(len(whole) - SIGNATURE_BYTES - KEY_ID_BYTES - len(TRAILER_MAGIC), len(whole) - len(TRAILER_MAGIC))
    for offset in sorted(set(range(len(whole))) - set(signature)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :])
        assert any(finding.damage for finding in findings(tmp_path)), f"byte {offset}"


def test_a_cut_at_any_byte_is_found(tmp_path: Path) -> None:
    """However much of the end of a sealed segment is missing, verification finds damage."""
    path = write(tmp_path, [data(0, b"abc")], [gap(3, 4), data(7, b"d")])
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert any(finding.damage for finding in findings(tmp_path)), f"{size} bytes"


def test_an_open_segment_may_end_anywhere_but_not_be_damaged(tmp_path: Path, conversation: Conversation) -> None:
    """The unfinished end of a file that is being written is no finding; damage inside of it is."""
    segment = writer(tmp_path)
    for number in range(2):
        segment.append(conversation(number))
        segment.flush(Position(0, number))
    path = tmp_path / "000000000001.open"
    whole = path.read_bytes()
    for size in range(0, len(whole), 13):
        path.write_bytes(whole[:size])
        assert [] == findings(tmp_path)
    path.write_bytes(whole[:100] + b"\xff" + whole[101:])
    assert [Fault.ALTERED] == [finding.fault for finding in findings(tmp_path)]


def test_a_frame_replaced_with_a_right_checksum_is_found(tmp_path: Path) -> None:
    """A frame that was forged with a right checksum of its own differs from the hash in the footer."""
    path = write(tmp_path / "a", [data(0, b"statement one")])
    with SegmentReader(path) as true, SegmentReader(write(tmp_path / "b", [data(0, b"statement two")])) as forged:
        frame, other = true.stored(0), forged.stored(0)
    assert len(frame) == len(other)
    path.write_bytes(path.read_bytes().replace(frame, other))
    with SegmentReader(path) as reader:
        assert [b"statement two"] == [record.body["payload"] for record in reader.records()]
    assert [Fault.ALTERED] == [finding.fault for finding in findings(tmp_path / "a")]


def test_a_footer_that_contradicts_its_frames_is_found(tmp_path: Path, conversation: Conversation) -> None:
    """A footer with a right hash of its own that hides a session, a frame or a time is found."""
    path = write(tmp_path, conversation(1), conversation(2))
    whole = path.read_bytes()
    with SegmentReader(path) as reader:
        footer = reader.footer
    assert footer is not None
    start = len(whole) - len(footer.pack()[0])
    hidden = dict(list(footer.sessions.items())[1:])
    other_header = replace(footer.header, sequence=2)
    for forged in (
        replace(footer, sessions=hidden),
        replace(footer, frames=footer.frames[:1]),
        replace(footer, header=other_header),
        replace(footer, frames=[replace(entry, raw=entry.raw + 1) for entry in footer.frames]),
        replace(footer, position=Position(0, 0)),
    ):
        path.write_bytes(whole[:start] + _packed(forged))
        assert any(finding.damage for finding in findings(tmp_path)), forged


def _packed(footer: Footer) -> bytes:
    packed, digest = footer.pack()
    assert sha256(packed[: -TRAILER.size]).digest() == digest
    return packed


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ([2], ["segment 2 is missing before this one"]),
        ([2, 3], ["segments 2 to 3 are missing before this one"]),
        ([1], []),
        ([5], []),
        ([2, 4], ["segment 2 is missing before this one", "segment 4 is missing before this one"]),
    ],
)
def test_missing_segments_are_named(
    tmp_path: Path, conversation: Conversation, removed: list[int], expected: list[str]
) -> None:
    """Holes between segments are found; what was shipped and removed before the oldest is none."""
    for number in range(5):
        write(tmp_path, conversation(number))
    for sequence in removed:
        sealed_path(tmp_path, sequence).unlink()
    assert [(Fault.MISSING, message) for message in expected] == [
        (finding.fault, finding.message) for finding in findings(tmp_path)
    ]


def test_a_segment_under_another_name_is_found(tmp_path: Path, conversation: Conversation) -> None:
    """A segment that was put in the place of another says so itself."""
    write(tmp_path, conversation(1)).rename(sealed_path(tmp_path, 2))
    assert ["the file is that of segment 1"] == [finding.message for finding in findings(tmp_path)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([data(0, b"abc"), data(3, b"d")], []),
        ([data(0, b"abc"), data(4, b"d")], ["is at byte 4 of its stream, 3 comes next"]),
        ([data(0, b"abc"), data(2, b"d")], ["is at byte 2 of its stream, 3 comes next"]),
        ([data(0, b"abc"), gap(3, 7), data(10, b"d")], []),
        ([data(0, b"abc"), gap(3, 7), data(11, b"d")], ["is at byte 11 of its stream, 10 comes next"]),
        ([data(0, b"abc"), gap(5, 7)], ["is at byte 5 of its stream, 3 comes next"]),
        ([data(0, b"abc"), gap(3, None), data(77, b"d"), data(78, b"e")], []),
        ([data(0, b"abc"), gap(0, None, None), data(77, b"d")], []),
        ([data(5, b"abc"), data(0, b"x", Direction.RESPONSE)], []),
        ([data(0, b"abc"), data(9, b"x", layer="wire"), data(3, b"d")], []),
        ([Record(Kind.DATA, SESSION, 1, Direction.REQUEST, {"payload": b""})], ["says no position"]),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_streams_go_on_byte_for_byte(tmp_path: Path, records: list[Record], expected: list[str], apart: bool) -> None:
    """Positions of a stream follow each other exactly, gaps counted, within a segment and over several."""
    for part in [[record] for record in records] if apart else [records]:
        write(tmp_path, part)
    found = findings(tmp_path)
    assert [Fault.ORDER] * len(expected) == [finding.fault for finding in found]
    assert all(finding.message.endswith(text) for finding, text in zip(found, expected, strict=True))


def test_messages_are_numbered_without_holes(tmp_path: Path) -> None:
    """A message whose number does not follow the one before is found."""
    messages = [Record(Kind.MESSAGE, SESSION, 1, Direction.REQUEST, {"ordinal": ordinal}) for ordinal in (0, 1, 3)]
    write(tmp_path, messages)
    (finding,) = findings(tmp_path)
    assert (Fault.ORDER, True) == (finding.fault, finding.message.endswith("has number 3, 2 comes next"))


def test_a_clock_that_was_set_back_is_told_but_is_no_damage(tmp_path: Path) -> None:
    """Times that go backwards are worth knowing; they do not make a segment bad."""
    write(tmp_path, [replace(data(0, b"a"), time_ns=100), replace(data(1, b"b"), time_ns=40)])
    (finding,) = findings(tmp_path)
    assert (Fault.CLOCK, False) == (finding.fault, finding.damage)
    assert "is 60 ns before the one ahead of it" in finding.message


def test_a_newer_segment_is_named_as_such(tmp_path: Path, conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a format that this capd does not know is not called damaged but newer."""
    write(tmp_path, conversation(1))
    monkeypatch.setattr("capd.recording.segment.layout.VERSION", 0)
    assert [Fault.NEWER] == [finding.fault for finding in findings(tmp_path)]
