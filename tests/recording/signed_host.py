"""A host that signs what it records, for whoever verifies it.

What lives here: making one, recording on, taking things away, and asking for what is wrong. What must not: cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import UUID

from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.pins import Pin
from capd.recording.evidence.seals import Fault
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.heads import Head, HeadLog, head_name
from capd.recording.journal import Position
from capd.recording.keys import HostKey, ensure, rotate
from capd.recording.record import Record
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.recovery import recover
from capd.recording.segment.writer import Sealing, SegmentWriter

HOST = UUID(int=1)
START_NS = 1_763_700_000_000_000_000
SEGMENTS = 6
Conversation = Callable[..., list[Record]]


@dataclass(kw_only=True)
class Host:
    """A host's state directory, and the key that it signs with."""

    directory: Path
    key: HostKey
    conversation: Conversation
    ticks: Iterator[int]

    @property
    def segments(self) -> Path:
        """Where its segments and heads are."""
        return self.directory / "segments"

    def path(self, sequence: int) -> Path:
        """Give a sealed segment."""
        return sealed_path(self.segments, sequence)

    def record(self, segments: int, *, signed: bool = True, recipients: tuple[str, ...] = ()) -> None:
        """Go on recording as a recorder that was started anew."""
        found = recover(self.segments, clock=lambda: next(self.ticks), signer=self.key)
        writer = SegmentWriter(
            self.segments,
            host=HOST,
            clock=lambda: next(self.ticks),
            sequence=found.next_sequence,
            previous=found.previous,
            sealing=Sealing(signer=self.key if signed else None, recipients=recipients),
            frame_raw_bytes=900,
        )
        for _ in range(segments):
            writer.append(self.conversation(writer.sequence))
            writer.flush(Position(0, writer.sequence))
            writer.seal({})

    def say_head(self, *, final: bool = False) -> Head:
        """Write a head about the newest segment."""
        found = recover(self.segments, clock=lambda: next(self.ticks))
        log = HeadLog(self.segments, host=HOST, signer=self.key)
        return log.write(next(self.ticks), found.newest, found.previous, final=final)

    def rotate(self) -> None:
        """Take a new key, signed by the one before."""
        rotate(self.directory / "keys", HOST)
        self.key = HostKey.load(self.directory / "keys")


def verify(directory: Path, **trust: object) -> HostReport:
    """Check a directory of one host."""
    (report,) = verify_shelf(DirectoryShelf(directory), Trust(**trust), workers=2)  # type: ignore[arg-type]
    return report


def damage(report: HostReport) -> list[tuple[Fault, int | None, int | None]]:
    """Give fault, segment and frame of all damage."""
    return [(found.fault, found.segment, found.frame) for found in report.all_findings() if found.damage]


def pinned(host: Host) -> dict[UUID, Pin]:
    """Give what a verifier remembers that looked now."""
    pin = verify(host.directory).next_pin(1)
    assert pin is not None
    return {HOST: pin}


def two_heads(directory: Path, conversation: Conversation) -> Host:
    """Give a host that recorded some segments and two heads, the newest about all of them."""
    made = Host(directory=directory, key=ensure(directory / "keys"), conversation=conversation, ticks=count(START_NS))
    made.record(SEGMENTS - 2)
    made.say_head()
    made.record(2)
    made.say_head()
    return made


def drop(*sequences: int) -> Callable[[Host], None]:
    """Give what takes segments away."""

    def taken(host: Host) -> None:
        for sequence in sequences:
            host.path(sequence).unlink()

    return taken


def cut_off_with_heads(host: Host) -> None:
    """Go back to the older head: take away what came after it, and the head that tells of it."""
    for sequence in range(SEGMENTS - 1, SEGMENTS + 1):
        host.path(sequence).unlink()
    (host.segments / head_name(2)).unlink()
