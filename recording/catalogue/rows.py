"""From sealed segments to the rows of the catalogue.

What lives here: which row a fact becomes. What must not: Parquet, files, places in a bucket.

A session that goes over several files has a row in each of them. All its counts are totals as of then, so that a reader takes
the greatest; whoever was given a place to look up what came before (the host's index) also repeats its facts. What is not known
is null, never empty, so that any value is better than none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from capd.recording.index_columns import clean, integer
from capd.recording.projection import Projection, message_row
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import MessageRow, ProcessRow, RunRow, SessionRow
from capd.recording.segment import Footer

if TYPE_CHECKING:
    from capd.recording.catalogue.schema import Row

VERDICT_KINDS = frozenset({Kind.VERDICT, Kind.APPROVAL, Kind.MASKED})
PORT_MAX = 65_535


def _unknown_session(_: UUID) -> SessionRow | None:
    return None


def _unknown_run(_: UUID) -> RunRow | None:
    return None


@dataclass(slots=True, kw_only=True)
class Gathering:
    """Takes sealed segments of one host in their order and gives the rows of each table.

    Attributes:
        find_session, find_run: give what was known of one before these segments, None when nothing was.
    """

    find_session: Callable[[UUID], SessionRow | None] = _unknown_session
    find_run: Callable[[UUID], RunRow | None] = _unknown_run
    _segments: list[Row] = field(default_factory=list)
    _sequences: dict[UUID, list[Value]] = field(default_factory=dict)
    _sessions: dict[UUID, SessionRow] = field(default_factory=dict)
    _runs: dict[UUID, RunRow] = field(default_factory=dict)
    _processes: list[Row] = field(default_factory=list)
    _messages: list[tuple[MessageRow, int]] = field(default_factory=list)
    _verdicts: list[Row] = field(default_factory=list)
    _gaps: list[Row] = field(default_factory=list)

    def receive(self, footer: Footer, file_bytes: int, records: Iterable[Record] | None) -> None:
        """Take a segment.

        Args:
            footer: of the segment.
            file_bytes: its size.
            records: all it holds, or None where they cannot be read (encrypted for others).
        """
        sequence = footer.header.sequence
        self._segments.append(_segment(footer, file_bytes, readable=records is not None))
        for identity in footer.sessions:
            self._sequences.setdefault(identity, []).append(sequence)
        if records is not None:
            self._read(records, sequence)
        for identity in footer.sessions:
            self._look_up(identity)

    def tables(self) -> dict[str, list[Row]]:
        """Give the rows of every table."""
        return {
            "segments": self._segments,
            "runs": [_run(row) for row in self._runs.values()],
            "processes": self._processes,
            "sessions": [_session(row, self._sequences.get(identity, [])) for identity, row in self._sessions.items()],
            "messages": [self._message(row, sequence) for row, sequence in self._messages],
            "verdicts": self._verdicts,
            "gaps": self._gaps,
        }

    def _read(self, records: Iterable[Record], sequence: int) -> None:
        projection = Projection(load_session=self._known_session, load_run=self._known_run)
        taken = list(records)
        projection.receive(taken)
        changes = projection.changes()
        self._sessions |= {row.session: row for row in changes.sessions}
        self._runs |= {row.run: row for row in changes.runs}
        self._processes += [_process(row, sequence) for row in changes.processes]
        for record in taken:
            if record.kind is Kind.MESSAGE:
                self._messages.append((message_row(record), sequence))
            elif record.kind is Kind.GAP:
                self._gaps.append(_gap(record, sequence))
            elif record.kind in VERDICT_KINDS:
                self._verdicts.append(_verdict(record, sequence))

    def _known_session(self, identity: UUID) -> SessionRow | None:
        return self._sessions.get(identity) or self.find_session(identity)

    def _known_run(self, identity: UUID) -> RunRow | None:
        return self._runs.get(identity) or self.find_run(identity)

    def _look_up(self, identity: UUID) -> None:
        """Take over what is known of a session or run of which these segments' records say nothing."""
        if identity in self._sessions or identity in self._runs:
            return
        session = self.find_session(identity)
        if session is not None:
            self._sessions[identity] = session
        elif (run := self.find_run(identity)) is not None:
            self._runs[identity] = run

    def _message(self, row: MessageRow, sequence: int) -> Row:
        session = self._sessions.get(row.session)
        return {
            "session": str(row.session),
            "ordinal": integer(row.ordinal),
            "time_ns": integer(row.time_ns),
            "direction": _direction(row.direction),
            **({} if session is None else {**_who(session), **_target(session)}),
            "protocol": clean(row.protocol),
            "type": clean(row.type),
            "exchange": integer(row.exchange),
            "summary": clean(row.summary),
            "text": clean(row.text),
            "sequence": sequence,
        }


def _segment(footer: Footer, file_bytes: int, *, readable: bool) -> Row:
    return {
        "sequence": footer.header.sequence,
        "created_ns": integer(footer.header.created_ns),
        "first_ns": integer(footer.first_ns),
        "last_ns": integer(footer.last_ns),
        "file_bytes": file_bytes,
        "raw_bytes": footer.raw_bytes,
        "records": footer.records,
        "recovered": footer.recovered,
        "readable": readable,
        "sessions": [str(identity) for identity in footer.sessions],
    }


def _who(row: SessionRow | RunRow) -> dict[str, Value]:
    principal = row.principal or {}
    uid, verified = principal.get("uid"), principal.get("verified")
    return {
        "run": None if row.run is None else str(row.run),
        "run_name": clean(row.run_name if isinstance(row, SessionRow) else row.name),
        "principal_kind": _text(principal.get("kind")),
        "principal": _text(principal.get("name")),
        "principal_uid": integer(uid) if isinstance(uid, int) else None,
        "principal_verified": verified if isinstance(verified, bool) else None,
        "labels": {clean(name) or "": _text(value) for name, value in row.labels.items()} or None,
    }


def _target(row: SessionRow) -> dict[str, Value]:
    return {
        "protocol": clean(row.protocol),
        "target_host": clean(row.target.host),
        "target_port": _port(row.target.port),
        "target_name": clean(row.target.name),
    }


def _session(row: SessionRow, sequences: list[Value]) -> Row:
    return {
        "session": str(row.session),
        **_who(row),
        **_target(row),
        "transport": clean(row.transport),
        "role": clean(row.role),
        "local_host": clean(row.local.host),
        "local_port": _port(row.local.port),
        "pid": integer(row.process.pid),
        "process_start_ns": integer(row.process.start_ns),
        "exe": clean(row.process.exe),
        "argv": [clean(argument) for argument in row.process.argv] or None,
        "user": clean(row.process.user),
        "started_ns": integer(row.started_ns),
        "last_ns": integer(row.last_ns),
        "ended_ns": integer(row.ended_ns),
        "state": clean(row.state),
        "bytes_request": integer(row.bytes[Direction.REQUEST]),
        "bytes_response": integer(row.bytes[Direction.RESPONSE]),
        "messages": integer(row.messages),
        "verdict": clean(row.verdict),
        "reasons": [clean(reason) for reason in row.reasons],
        "policy": [clean(words) for words in row.policy],
        "tie": clean(row.tie),
        "decision": None if row.decision is None else _json(row.decision.to_json()),
        "sequences": sequences,
    }


def _run(row: RunRow) -> Row:
    return {
        **_who(row),
        "command": [clean(argument) for argument in row.command] or None,
        "cwd": clean(row.cwd),
        "cgroup": clean(row.cgroup),
        "adopted": row.adopted,
        "started_ns": integer(row.started_ns),
        "ended_ns": integer(row.ended_ns),
        **{f"lost_{name}": integer(count) for name, count in row.lost.items()},
    }


def _process(row: ProcessRow, sequence: int) -> Row:
    return {
        "run": str(row.run),
        "pid": integer(row.pid),
        "start_ns": integer(row.start_ns),
        "exe": clean(row.exe),
        "argv": [clean(argument) for argument in row.argv] or None,
        "uid": integer(row.uid),
        "seen_ns": integer(row.seen_ns),
        "ended_ns": integer(row.ended_ns),
        "status": integer(row.status),
        "sequence": sequence,
    }


def _gap(record: Record, sequence: int) -> Row:
    position, length = record.body.get("position"), record.body.get("length")
    return {
        **_place(record, sequence),
        "position": integer(position) if isinstance(position, int) else None,
        "length": integer(length) if isinstance(length, int) else None,
        "reason": _text(record.body.get("reason")),
    }


def _verdict(record: Record, sequence: int) -> Row:
    return {**_place(record, sequence), "kind": record.kind.name.lower(), "body": _json(record.body)}


def _json(value: Value) -> str:
    return json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"))


def _place(record: Record, sequence: int) -> dict[str, Value]:
    return {
        "session": str(record.session),
        "time_ns": integer(record.time_ns),
        "direction": _direction(record.direction),
        "sequence": sequence,
    }


def _plain(value: Value) -> object:
    """Give what JSON can hold; bytes become hexadecimal."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _direction(direction: Direction | None) -> str | None:
    return None if direction is None else direction.name.lower()


def _text(value: Value) -> str | None:
    return None if value is None else clean(value if isinstance(value, str) else str(value))


def _port(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= PORT_MAX else None
