"""One segment, from its bytes alone: header, footer, trailer and the hash of every frame.

What lives here: the checks that need no key and no other segment. What must not: signatures and the chain (hosts.py), content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final

from capd.recording.errors import CapdError
from capd.recording.evidence.listing import went
from capd.recording.evidence.shelf import Item, Shelf, name_of
from capd.recording.segment.footer import Footer, FrameEntry, parse_footer
from capd.recording.segment.layout import (
    FILE_HEADER,
    FRAME_HEADER,
    HEADER_READ_BYTES,
    KEY_BLOCK_BYTES_MAX,
    CutHeaderError,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    check_frame,
    sequence_of,
)
from capd.recording.segment.reader import check_entries
from capd.recording.segment.trailer import Trailer, parse_trailer, trailer_bytes

READ_BYTES: Final = 4 << 20
"""How much of a segment is read at once: one request of a bucket, and little beside what hashing it takes."""
TAIL_BYTES: Final = 64 << 10
"""Read at once from the end: trailer and almost every footer."""


class Fault(StrEnum):
    """What kind of thing is wrong."""

    ALTERED = "altered"
    """Bytes are not those that were written."""
    CUT = "cut"
    """The end is missing."""
    MISSING = "missing"
    """A segment or head is not there."""
    ORDER = "order"
    """A segment, frame or head stands where another belongs."""
    UNSIGNED = "unsigned"
    """Nobody vouches for it."""
    UNKNOWN_KEY = "unknown key"
    """It was signed with a key that the host's trusted ones do not vouch for."""
    REPLACED_KEY = "replaced key"
    """It was signed with a key of this host in whose place another had signed before."""
    ROLLED_BACK = "rolled back"
    """Less is there, or something else, than was seen before."""
    NEWER = "newer"
    """Written in a format that this capd does not know; it was not checked."""
    EXPIRED = "expired"
    """A whole segment is not there because a policy let it go, as a record says that the host signed: no damage."""
    SILENT = "silent"
    """The newest head is older than a running capd would leave it. Worth knowing, not damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: its kind.
        message: what was found, in words for a person.
        segment: number of the segment that it concerns; None when it is no single one.
        frame: number of the frame in it; None when it is not in a frame.
        offset: byte in the file.
        damage: whether the record cannot be trusted or is not whole because of it.
    """

    fault: Fault
    message: str
    segment: int | None = None
    frame: int | None = None
    offset: int = 0
    damage: bool = True


@dataclass(slots=True, kw_only=True)
class SegmentSeal:
    """What was found out about one segment.

    Attributes:
        key: its name on the shelf.
        sequence: its number, by that name.
        file_bytes: its size.
        header, footer, trailer: as far as they can be read; the footer is let go of when the next one was held against it.
        frames, records: how many the footer tells of.
        first_ns, last_ns: times of its earliest and latest record; None without records.
        findings: what is wrong; more is added when it is held against others.
    """

    key: str
    sequence: int
    file_bytes: int
    header: FileHeader | None = None
    footer: Footer | None = None
    trailer: Trailer | None = None
    frames: int = 0
    records: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    findings: list[Finding] = field(default_factory=list)

    def find(self, fault: Fault, message: str, *, frame: int | None = None, offset: int = 0, damage: bool = True) -> None:
        """Note what is wrong."""
        self.findings.append(
            Finding(fault=fault, message=message, segment=self.sequence, frame=frame, offset=offset, damage=damage)
        )

    @property
    def damaged(self) -> bool:
        """Whether anything is wrong that matters."""
        return any(finding.damage for finding in self.findings)


def check_segment(shelf: Shelf, item: Item) -> SegmentSeal | None:
    """Check one sealed segment by itself; None: it is not there any more.

    Several may run at once: almost all of it is hashing, outside of Python's lock.
    """
    name = name_of(item.key)
    seal = SegmentSeal(key=item.key, sequence=sequence_of(Path(name)) or 0, file_bytes=item.size)
    try:
        seal.header = _header(shelf, seal)
        if seal.header is not None and _read_footer(shelf, seal, seal.header):
            _check_frames(shelf, seal, seal.header)
    except CapdError as error:
        if went(error):
            return None
        raise
    return seal


def _header(shelf: Shelf, seal: SegmentSeal) -> FileHeader | None:
    data = shelf.read(seal.key, 0, HEADER_READ_BYTES)
    try:
        try:
            header = FileHeader.parse(data)
        except CutHeaderError:
            header = FileHeader.parse(shelf.read(seal.key, 0, FILE_HEADER.size + KEY_BLOCK_BYTES_MAX))
    except NewerSegmentError as error:
        seal.find(Fault.NEWER, f"{error} is not known here")
        return None
    except CutHeaderError as error:
        seal.find(Fault.CUT, str(error))
        return None
    except MalformedSegmentError as error:
        seal.find(Fault.ALTERED, str(error))
        return None
    if header.sequence != seal.sequence:
        seal.find(Fault.ORDER, f"the file is that of segment {header.sequence}")
    return header


def _read_footer(shelf: Shelf, seal: SegmentSeal, header: FileHeader) -> bool:
    """Read trailer and footer; False: there is nothing to hold frames against."""
    tail_start = max(header.size, seal.file_bytes - TAIL_BYTES)
    tail = shelf.read(seal.key, tail_start, seal.file_bytes - tail_start)
    end = max(header.size, seal.file_bytes - trailer_bytes(header.version))
    try:
        seal.trailer = trailer = parse_trailer(tail[end - tail_start :], header.version)
        start = end - trailer.footer_bytes
        if start < header.size:
            raise MalformedSegmentError(f"there is no room for a footer of {trailer.footer_bytes} bytes")
    except MalformedSegmentError as error:
        seal.find(Fault.CUT, str(error), offset=end)
        return False
    packed = tail[start - tail_start : end - tail_start] if start >= tail_start else shelf.read(seal.key, start, end - start)
    try:
        seal.footer = footer = parse_footer(packed, trailer.digest)
        check_entries(footer.frames, header, start)
    except NewerSegmentError as error:
        seal.find(Fault.NEWER, f"{error} is not known here", offset=start)
        return False
    except MalformedSegmentError as error:
        seal.find(Fault.ALTERED, str(error), offset=start)
        return False
    seal.frames, seal.records = len(footer.frames), footer.records
    seal.first_ns, seal.last_ns = footer.first_ns, footer.last_ns
    if footer.header != header or footer.header.version != header.version:
        seal.find(Fault.ALTERED, "the footer is that of another segment", offset=start)
    elif footer.header_digest not in (None, header.digest):
        seal.find(Fault.ALTERED, "the file header or key block is not the one that was signed")
    return True


def _check_frames(shelf: Shelf, seal: SegmentSeal, header: FileHeader) -> None:
    assert seal.footer is not None
    for first, frames in _runs(seal.footer.frames):
        start = frames[0].offset
        data = memoryview(shelf.read(seal.key, start, frames[-1].offset + frames[-1].length - start))
        for number, entry in enumerate(frames, first):
            frame = data[entry.offset - start : entry.offset - start + entry.length]
            if sha256(frame).digest() != entry.sha256:
                words = _exchanged(shelf, seal, header, entry.offset)
                seal.find(Fault.ALTERED, words, frame=number, offset=entry.offset)


def _runs(frames: Sequence[FrameEntry]) -> Iterator[tuple[int, Sequence[FrameEntry]]]:
    """Divide the frames into pieces to be read at once, each with the number of its first."""
    first, size = 0, 0
    for number, entry in enumerate(frames):
        if size and size + entry.length > READ_BYTES:
            yield first, frames[first:number]
            first, size = number, 0
        size += entry.length
    if frames:
        yield first, frames[first:]


def _exchanged(shelf: Shelf, seal: SegmentSeal, header: FileHeader, offset: int) -> str:
    """Say what stands in a frame's place."""
    try:
        found = FrameHeader.parse(shelf.read(seal.key, offset, FRAME_HEADER.size), header.version)
        check_frame(found, shelf.read(seal.key, offset, found.length))
    except MalformedSegmentError:
        return "its bytes were changed"
    return f"another frame, whole and numbered {found.number}, stands in its place"
