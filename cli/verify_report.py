"""What `capd verify` found out, put together.

What lives here: sums, the verdict, the public object (docs/json.md). What must not: the checks, output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capd.cli import moments
from capd.cli.raw_stream import Hole, RawStream
from capd.cli.record_json import Json
from capd.recording.errors import ExitStatus
from capd.recording.record import Direction, Kind, Record

if TYPE_CHECKING:
    from capd.cli.verify_bundle import Excerpt
    from capd.recording.evidence.host_report import HostReport
    from capd.recording.evidence.seals import Finding as Seen
    from capd.recording.evidence.seals import SegmentSeal
    from capd.recording.verify import FileReport, Finding

NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Something with findings: a segment, or a host.

    Attributes:
        name: what a person calls it.
        findings: what is wrong.
    """

    name: str
    findings: Sequence[Finding | Seen]


@dataclass(kw_only=True, slots=True)
class Report:
    """All segments together.

    Attributes:
        hosts: what was found out from bytes and keys.
        files: what was found out about the content of segments that were read record by record.
        missing: what is not there of a session or run, in words.
        notes: what is worth knowing of it, and no damage.
        excerpt: of a bundle: what it is of, and how its sessions and files are.
    """

    hosts: list[HostReport] = field(default_factory=list)
    files: list[FileReport] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    excerpt: Excerpt | None = None

    def take_content(self, checked: FileReport) -> Told:
        """Add a segment that was read, and give what is to be told of it that is not known yet."""
        self.files.append(checked)
        return Told(name=checked.path.name, findings=checked.findings)

    @property
    def _segments(self) -> Sequence[SegmentSeal | FileReport]:
        return [one for host in self.hosts for one in host.segments] or self.files

    @property
    def damaged(self) -> int:
        """How many segments have damage."""
        names = {one.path.name for one in self.files if any(finding.damage for finding in one.findings)}
        names |= {Path(one.key).name for host in self.hosts for one in host.segments if one.damaged}
        return len(names)

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(one.records for one in self._segments)

    @property
    def file_bytes(self) -> int:
        """The size of all segments."""
        return sum(one.file_bytes for one in self._segments)

    @property
    def first_ns(self) -> int | None:
        """Time of the earliest record."""
        return min((one.first_ns for one in self._segments if one.first_ns is not None), default=None)

    @property
    def last_ns(self) -> int | None:
        """Time of the latest record."""
        return max((one.last_ns for one in self._segments if one.last_ns is not None), default=None)

    @property
    def verdict(self) -> str:
        """One word for all of it: `whole`, `damaged`, `unsigned` or `unreadable`."""
        faults = {finding.fault.value for one in self.files for finding in one.findings if finding.damage}
        faults |= {fault.value for host in self.hosts for fault in host.faults}
        if self.missing or faults - {"newer", "unsigned"}:
            return "damaged"
        if "unsigned" in faults:
            return "unsigned"
        return "unreadable" if faults else "whole"

    @property
    def begins_at_first(self) -> bool:
        """Whether nobody knows of segments before those that are here, in places that nothing leaves but by policy."""
        return not any(one.fault.value == "missing" and not one.damage for host in self.hosts for one in host.findings)

    @property
    def says_anything(self) -> bool:
        """Whether there is anything that a host recorded, or that anybody misses: nothing at all is not whole."""
        return any(host.segments or host.heads or host.findings for host in self.hosts)

    @property
    def exit_status(self) -> ExitStatus:
        """0 whole, 1 altered, unsigned or missing, 6 when the only trouble is that this capd cannot read it."""
        statuses = {"whole": ExitStatus.OK, "unreadable": ExitStatus.CORRUPT}
        return statuses.get(self.verdict, ExitStatus.NEGATIVE)

    def host_words(self, now_ns: int) -> Iterator[str]:
        """Give a line for each host: what is there, who signed it, how old its newest head is."""
        for host in self.hosts:
            if host.segments:
                span = f"segments {host.segments[0].sequence} to {host.segments[-1].sequence}"
                yield f"host {host.host}: {span}, {_vouched(host)}, {_head_words(host, now_ns)}"

    def as_json(self) -> dict[str, Json]:
        """Give the public object."""
        return {
            "verdict": self.verdict,
            "damaged": self.damaged,
            "missing": list(self.missing),
            "notes": list(self.notes),
            "excerpt": None if self.excerpt is None else self.excerpt.as_json(),
            "records": self.records,
            "bytes": self.file_bytes,
            "first": None if self.first_ns is None else moments.rfc3339(self.first_ns),
            "last": None if self.last_ns is None else moments.rfc3339(self.last_ns),
            "hosts": [_host(host) for host in self.hosts],
            "segments": list(self._segment_objects()),
        }

    def _segment_objects(self) -> Iterator[dict[str, Json]]:
        read = {one.path.name: one for one in self.files}
        for host in self.hosts:
            for one in host.segments:
                content = read.pop(Path(one.key).name, None)
                yield _segment(one, one.key, sealed=True, findings=[*one.findings, *(content.findings if content else ())])
        for left in read.values():
            yield _segment(left, str(left.path), sealed=left.sealed, findings=left.findings)


def describe(report: Report) -> str:
    """Give the number of segments, and of damaged ones, in words."""
    count = sum(len(host.segments) for host in report.hosts) or len(report.files)
    words = "1 segment" if count == 1 else f"{count:,} segments"
    return f"{words}, {report.damaged:,} damaged" if report.damaged else words


def told_of_host(host: HostReport) -> Told:
    """Give what is wrong with a host as a whole."""
    return Told(name=f"host {host.host}", findings=host.findings)


def jumps_of(records: Iterable[Record]) -> list[str]:
    """Give the places where a session's streams jump and no gap says why; a gap that is told, or a level's, is no damage."""
    streams = {direction: RawStream(direction, from_start=False) for direction in Direction}
    return [
        f"{direction.name.lower()}: {part.words}"
        for record in records
        for direction, stream in streams.items()
        for part in stream.feed(record)
        if isinstance(part, Hole) and record.kind is Kind.DATA and not part.by_level
    ]


def _vouched(host: HostReport) -> str:
    if host.root is None:
        return "signed by nobody who is known here" if host.signed_from is not None else "not signed"
    seen = "as before" if host.pin and host.pin.key == host.root.raw else "seen for the first time"
    more = f" and {len(host.keys) - 1} that it vouches for" if len(host.keys) > 1 else ""
    return f"key {host.root.id.hex()} ({seen}){more}"


def _head_words(host: HostReport, now_ns: int) -> str:
    if host.head is None:
        return "no head"
    minutes = max(0, now_ns - host.head.written_ns) // NS_PER_SECOND // 60
    stopped = ", capd was stopped" if host.head.final else ""
    return f"head {host.head.number} of {moments.to_second(host.head.written_ns)} UTC, {minutes:,} min ago{stopped}"


def _host(host: HostReport) -> dict[str, Json]:
    head = host.head
    return {
        "host": None if host.host is None else str(host.host),
        "segments": len(host.segments),
        "first": host.segments[0].sequence if host.segments else None,
        "last": host.segments[-1].sequence if host.segments else None,
        "missing": [{"first": first, "last": last} for first, last in host.missing],
        "expired": [{"first": first, "last": last} for first, last in host.expired],
        "unsigned": host.unsigned,
        "key": None if host.root is None else host.root.id.hex(),
        "keys": [key.hex() for key in host.keys],
        "seen_before": host.pin is not None,
        "head": None
        if head is None
        else {
            "number": head.number,
            "time": moments.rfc3339(head.written_ns),
            "sequence": head.sequence,
            "final": head.final,
        },
        "findings": [{**_finding(one), "segment": getattr(one, "segment", None)} for one in host.findings],
    }


def _segment(one: SegmentSeal | FileReport, path: str, *, sealed: bool, findings: Sequence[Finding | Seen]) -> dict[str, Json]:
    return {
        "path": path,
        "sequence": one.sequence,
        "sealed": sealed,
        "bytes": one.file_bytes,
        "frames": one.frames,
        "records": one.records,
        "first": None if one.first_ns is None else moments.rfc3339(one.first_ns),
        "last": None if one.last_ns is None else moments.rfc3339(one.last_ns),
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding | Seen) -> dict[str, Json]:
    return {
        "fault": finding.fault.value,
        "damage": finding.damage,
        "frame": finding.frame,
        "offset": finding.offset,
        "message": finding.message,
    }
