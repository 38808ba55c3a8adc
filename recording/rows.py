"""What the index knows of runs, sessions, messages, processes and segments, one class each.

What lives here: the rows and their public JSON form, whose fields are only added to (docs/json.md). What must not: SQL, how
rows come about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.recording.record import Direction, Value

if TYPE_CHECKING:
    from capd.recording.segment.footer import Footer

NANOSECONDS: Final = 1_000_000_000
STATE_OPEN: Final = "open"


def rfc3339(time_ns: int | None) -> str | None:
    """Give a time in ns since 1970 as RFC 3339 in UTC with nanoseconds; None for None.

    Times that no calendar holds (a record may carry any number) are given as the nearest that it does.
    """
    if time_ns is None:
        return None
    seconds, fraction = divmod(max(time_ns, 0), NANOSECONDS)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredPart:
    """What of a session or run is gone because its time was over.

    Attributes:
        first, last: numbers of the first and the last of its segments that are gone and have none that is there between them.
        segments: how many.
        policy: name of the retention class; "" where only the record of deletion says it.
    """

    first: int
    last: int
    segments: int
    policy: str = ""

    def words(self) -> str:
        """Give a phrase for a person."""
        which = f"segment {self.first}" if self.first == self.last else f"segments {self.first} to {self.last}"
        many = f"{self.segments} of its segments ({which})" if self.segments > 1 else f"its {which}"
        return f"expired: {many} let go by retention" + (f" class {self.policy}" if self.policy else "")

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {"first": self.first, "last": self.last, "segments": self.segments, "policy": self.policy or None}


def parts_of(gone: Iterable[int], there: Iterable[int]) -> tuple[ExpiredPart, ...]:
    """Give what is gone, from the numbers of segments that are gone and of those that are there."""
    parts: list[ExpiredPart] = []
    is_gone = dict.fromkeys(there, False) | dict.fromkeys(gone, True)
    for expired, numbers in groupby(sorted(is_gone), is_gone.__getitem__):
        together = list(numbers)
        if expired:
            parts.append(ExpiredPart(first=together[0], last=together[-1], segments=len(together)))
    return tuple(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One end of a conversation: address, port and the name that it was called by; each None when it is not known."""

    host: str | None = None
    port: int | None = None
    name: str | None = None

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {"host": self.host, "port": self.port, "name": self.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProcess:
    """The process that opened a session, as it was then; None and empty where it is not known.

    Attributes:
        pid: in the host's pid namespace.
        start_ns: its start on the host's boot clock: tells it from others with the same pid.
        exe: path of its executable.
        argv: its arguments.
        user: name or, without one, number of its user.
    """

    pid: int | None = None
    start_ns: int | None = None
    exe: str | None = None
    argv: Sequence[str] = ()
    user: str | None = None

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {"pid": self.pid, "exe": self.exe, "argv": list(self.argv), "user": self.user, "start_ns": self.start_ns}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session.

    Attributes:
        session: its id.
        run: the run that it belongs to; None when its OPEN record was lost.
        run_name, labels, principal: of the run, as they were when the session opened.
        host: the installation that recorded it.
        protocol: as the decoder calls it; "unknown" before that is known.
        transport: "tcp", "udp" or "unix".
        role: whether the agent is "client" or "server" of it.
        target, local: the ends of the conversation.
        process: who opened it.
        started_ns: time of its first record.
        last_ns: time of its latest record.
        ended_ns: time of its CLOSE record; None while it is open.
        state: "open", or what its CLOSE record says.
        bytes: application bytes that moved: request, response.
        messages: number of decoded messages.
        verdict, reasons: its completeness; of an open session: so far.
        policy: what was kept out of the record on purpose, in words; it changes no verdict.
        tie: how sure it is that its plaintext belongs to its socket; None without TLS.
        expired: what of it is gone because its time was over; filled by the index when it is asked.
    """

    session: UUID
    run: UUID | None = None
    run_name: str | None = None
    labels: Mapping[str, Value] = field(default_factory=dict)
    principal: Mapping[str, Value] | None = None
    host: UUID | None = None
    protocol: str = "unknown"
    transport: str | None = None
    role: str | None = None
    target: Endpoint = Endpoint()
    local: Endpoint = Endpoint()
    process: SessionProcess = SessionProcess()
    started_ns: int = 0
    last_ns: int = 0
    ended_ns: int | None = None
    state: str = STATE_OPEN
    bytes: tuple[int, int] = (0, 0)
    messages: int = 0
    verdict: str = "partial"
    reasons: Sequence[str] = ()
    policy: Sequence[str] = ()
    tie: str | None = None
    expired: Sequence[ExpiredPart] = ()

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {
            "session": str(self.session),
            "run": None if self.run is None else str(self.run),
            "run_name": self.run_name,
            "labels": dict(self.labels),
            "host": None if self.host is None else str(self.host),
            "protocol": self.protocol,
            "transport": self.transport,
            "role": self.role,
            "target": self.target.to_json(),
            "local": self.local.to_json(),
            "principal": self.principal,
            "process": self.process.to_json(),
            "started": rfc3339(self.started_ns),
            "ended": rfc3339(self.ended_ns),
            "last": rfc3339(self.last_ns),
            "state": self.state,
            "bytes": {"request": self.bytes[Direction.REQUEST], "response": self.bytes[Direction.RESPONSE]},
            "messages": self.messages,
            "completeness": {
                "verdict": self.verdict,
                "reasons": list(self.reasons),
                "policy": [*self.policy, *(part.words() for part in self.expired)],
            },
            "tie": self.tie,
            "expired": [part.to_json() for part in self.expired],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run.

    Attributes:
        run: its id.
        name, labels, principal, command, cwd, cgroup, adopted: as the daemon noted them when the run was selected.
        host: the installation; None when it is not known yet.
        started_ns: when it was selected.
        ended_ns: when its last process had ended; None before.
        lost: what of it is in no session: `control_events`, `streams` and `bytes` of those, as far as they are not 0.
        sessions: number of its sessions that are in the index; filled by the index when it is asked.
        expired: as of a session.
    """

    run: UUID
    name: str | None = None
    labels: Mapping[str, Value] = field(default_factory=dict)
    principal: Mapping[str, Value] | None = None
    command: Sequence[str] = ()
    cwd: str | None = None
    cgroup: str | None = None
    adopted: bool = False
    host: UUID | None = None
    started_ns: int = 0
    ended_ns: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    sessions: int = 0
    expired: Sequence[ExpiredPart] = ()

    def missing(self) -> list[str]:
        """Give why the run is more than its sessions tell, in words."""
        found = []
        if self.lost.get("streams"):
            words = f"nothing recorded of {self.lost['streams']} connections"
            found.append(f"{words}: {self.lost.get('bytes', 0)} bytes missing")
        if self.lost.get("control_events"):
            found.append(f"{self.lost['control_events']} starts and ends of processes and connections were lost")
        return found

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {
            "run": str(self.run),
            "name": self.name,
            "labels": dict(self.labels),
            "principal": self.principal,
            "command": list(self.command),
            "cwd": self.cwd,
            "cgroup": self.cgroup,
            "adopted": self.adopted,
            "host": None if self.host is None else str(self.host),
            "started": rfc3339(self.started_ns),
            "ended": rfc3339(self.ended_ns),
            "state": STATE_OPEN if self.ended_ns is None else "closed",
            "sessions": self.sessions,
            "lost": dict(self.lost),
            "expired": [part.to_json() for part in self.expired],
        }


@dataclass(slots=True, kw_only=True)
class MessageRow:
    """One message, as search finds it. Nobody changes it; a frozen class takes three times as long to build.

    Attributes:
        session, ordinal: which message; the ordinal counts the session's messages from 0.
        time_ns: when it was whole.
        direction: of the stream it was in.
        protocol, type, exchange: as its record has them.
        summary: its one line, cut at the index's limit.
        text: what else of it can be searched, cut at the index's limit.
    """

    session: UUID
    ordinal: int
    time_ns: int
    direction: Direction | None
    protocol: str
    type: str
    exchange: int | None
    summary: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process of a run, with the program that it ran last.

    Attributes:
        run: the run it belongs to.
        pid, start_ns: which process.
        exe, argv, uid: its program and user; None and empty when it only forked.
        seen_ns: time of its first record.
        ended_ns, status: when and how it ended (wait status); None before.
    """

    run: UUID
    pid: int
    start_ns: int
    exe: str | None = None
    argv: Sequence[str] = ()
    uid: int | None = None
    seen_ns: int = 0
    ended_ns: int | None = None
    status: int | None = None

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {
            "run": str(self.run),
            "pid": self.pid,
            "start_ns": self.start_ns,
            "exe": self.exe,
            "argv": list(self.argv),
            "uid": self.uid,
            "seen": rfc3339(self.seen_ns),
            "ended": rfc3339(self.ended_ns),
            "status": self.status,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """One sealed segment.

    Attributes:
        sequence: its number.
        host: who wrote it.
        first_ns, last_ns: times of its earliest and latest record; 0 when it has none.
        file_bytes, raw_bytes: its size on disk, and before compression.
        records: how many it holds.
        recovered: whether it was sealed after a crash.
        sessions: whose records it holds; runs are among them.
    """

    sequence: int
    host: UUID
    first_ns: int
    last_ns: int
    file_bytes: int
    raw_bytes: int
    records: int
    recovered: bool
    sessions: Sequence[UUID]

    @classmethod
    def from_footer(cls, footer: Footer, file_bytes: int) -> SegmentRow:
        """Build the row of a sealed segment."""
        return cls(
            sequence=footer.header.sequence,
            host=footer.header.host,
            first_ns=footer.first_ns or 0,
            last_ns=footer.last_ns or 0,
            file_bytes=file_bytes,
            raw_bytes=footer.raw_bytes,
            records=footer.records,
            recovered=footer.recovered,
            sessions=list(footer.sessions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A message that a search found.

    Attributes:
        session, ordinal, time_ns, direction, protocol, type, exchange: which message.
        snippet: a piece of its text around what was searched for, on one line; it is an agent's text, not safe for a terminal.
        matches: (start, end) of the found words in the snippet.
    """

    session: UUID
    ordinal: int
    time_ns: int
    direction: Direction | None
    protocol: str
    type: str
    exchange: int | None
    snippet: str
    matches: Sequence[tuple[int, int]]

    def to_json(self) -> dict[str, Value]:
        """Give the public form."""
        return {
            "session": str(self.session),
            "message": self.ordinal,
            "time": rfc3339(self.time_ns),
            "direction": None if self.direction is None else self.direction.name.lower(),
            "protocol": self.protocol,
            "type": self.type,
            "exchange": self.exchange,
            "snippet": self.snippet,
            "matches": [list(match) for match in self.matches],
        }
