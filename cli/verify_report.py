"""What `capd verify` found out, put together.

What lives here: sums, the verdict, the public object (docs/json.md). What must not: the checks, output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from capd.cli import moments
from capd.cli.raw_stream import Hole, RawStream
from capd.cli.record_json import Json
from capd.recording.errors import ExitStatus
from capd.recording.record import Direction, Kind, Record

if TYPE_CHECKING:
    from capd.recording.verify import FileReport


@dataclass(kw_only=True, slots=True)
class Report:
    """All segments together.

    Attributes:
        files: what was found out about each.
        missing: what is not there, in words.
    """

    files: list[FileReport] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def take(self, checked: FileReport) -> None:
        """Add a segment."""
        self.files.append(checked)

    @property
    def damaged(self) -> int:
        """How many segments have damage."""
        return sum(any(finding.damage for finding in one.findings) for one in self.files)

    @property
    def records(self) -> int:
        """How many records were read."""
        return sum(one.records for one in self.files)

    @property
    def file_bytes(self) -> int:
        """The size of all segments."""
        return sum(one.file_bytes for one in self.files)

    @property
    def first_ns(self) -> int | None:
        """Time of the earliest record."""
        return min((one.first_ns for one in self.files if one.first_ns is not None), default=None)

    @property
    def last_ns(self) -> int | None:
        """Time of the latest record."""
        return max((one.last_ns for one in self.files if one.last_ns is not None), default=None)

    @property
    def exit_status(self) -> ExitStatus:
        """0 whole, 1 altered or missing, 6 when the only trouble is that this capd cannot read it."""
        faults = {finding.fault.value for one in self.files for finding in one.findings if finding.damage}
        if self.missing or faults - {"newer"}:
            return ExitStatus.NEGATIVE
        return ExitStatus.CORRUPT if faults else ExitStatus.OK

    def as_json(self) -> dict[str, Json]:
        """Give the public object."""
        words = {ExitStatus.OK: "whole", ExitStatus.NEGATIVE: "damaged", ExitStatus.CORRUPT: "unreadable"}
        return {
            "verdict": words[self.exit_status],
            "damaged": self.damaged,
            "missing": list(self.missing),
            "records": self.records,
            "bytes": self.file_bytes,
            "first": None if self.first_ns is None else moments.rfc3339(self.first_ns),
            "last": None if self.last_ns is None else moments.rfc3339(self.last_ns),
            "segments": [_segment(one) for one in self.files],
        }


def describe(report: Report) -> str:
    """Give the number of segments, and of damaged ones, in words."""
    count = len(report.files)
    words = "1 segment" if count == 1 else f"{count:,} segments"
    return f"{words}, {report.damaged:,} damaged" if report.damaged else words


def jumps_of(records: Iterable[Record]) -> list[str]:
    """Give the places where a session's streams jump and no gap says why; gaps that are told are no damage."""
    streams = {direction: RawStream(direction, from_start=False) for direction in Direction}
    return [
        f"{direction.name.lower()}: {part.words}"
        for record in records
        for direction, stream in streams.items()
        for part in stream.feed(record)
        if isinstance(part, Hole) and record.kind is Kind.DATA
    ]


def _segment(one: FileReport) -> dict[str, Json]:
    return {
        "path": str(one.path),
        "sequence": one.sequence,
        "sealed": one.sealed,
        "bytes": one.file_bytes,
        "frames": one.frames,
        "records": one.records,
        "first": None if one.first_ns is None else moments.rfc3339(one.first_ns),
        "last": None if one.last_ns is None else moments.rfc3339(one.last_ns),
        "findings": [
            {
                "fault": finding.fault.value,
                "damage": finding.damage,
                "frame": finding.frame,
                "offset": finding.offset,
                "message": finding.message,
            }
            for finding in one.findings
        ],
    }
