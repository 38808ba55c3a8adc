"""Rows to columns and back.

What lives here: the one place that knows in which column a fact of a row is. What must not: SQL, files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, cast
from uuid import UUID

from capd.recording.record import Value
from capd.recording.rows import Endpoint, MessageRow, ProcessRow, RunRow, SegmentRow, SessionProcess, SessionRow

Cell = None | int | float | str | bytes
INTEGER_MAX: Final = (1 << 63) - 1
"""SQLite's integers are signed: larger ones, which only a damaged or hostile record holds, are stored as this."""


def run_values(row: RunRow) -> list[Cell]:
    """Give the columns of a run."""
    return [
        str(row.run),
        clean(row.name),
        _json(row.labels),
        _json(row.principal),
        _json(row.command),
        clean(row.cwd),
        clean(row.cgroup),
        int(row.adopted),
        _identity(row.host),
        integer(row.started_ns),
        integer(row.ended_ns),
        _json(row.lost),
    ]


def run_from(cells: Sequence[Cell]) -> RunRow:
    """Give the run of columns; a further column is the number of its sessions."""
    run, name, labels, principal, command, cwd, cgroup, adopted, host, started, ended, lost, *rest = cells
    return RunRow(
        run=UUID(cast(str, run)),
        name=cast("str | None", name),
        labels=cast("Mapping[str, Value]", _value(labels) or {}),
        principal=cast("Mapping[str, Value] | None", _value(principal)),
        command=cast("list[str]", _value(command) or []),
        cwd=cast("str | None", cwd),
        cgroup=cast("str | None", cgroup),
        adopted=bool(adopted),
        host=_uuid(host),
        started_ns=cast(int, started),
        ended_ns=cast("int | None", ended),
        lost=cast("Mapping[str, int]", _value(lost) or {}),
        sessions=cast(int, rest[0]) if rest else 0,
    )


def session_values(row: SessionRow) -> list[Cell]:
    """Give the columns of a session."""
    return [
        str(row.session),
        _identity(row.run),
        clean(row.run_name),
        _json(row.labels),
        _json(row.principal),
        _identity(row.host),
        clean(row.protocol),
        clean(row.transport),
        clean(row.role),
        clean(row.target.host),
        integer(row.target.port),
        clean(row.target.name),
        clean(row.local.host),
        integer(row.local.port),
        clean(row.local.name),
        integer(row.process.pid),
        integer(row.process.start_ns),
        clean(row.process.exe),
        _json(row.process.argv),
        clean(row.process.user),
        integer(row.started_ns),
        integer(row.last_ns),
        integer(row.ended_ns),
        clean(row.state),
        integer(row.bytes[0]),
        integer(row.bytes[1]),
        integer(row.messages),
        clean(row.verdict),
        _json(row.reasons),
        _json(row.policy),
        clean(row.tie),
    ]


def session_from(cells: Sequence[Cell]) -> SessionRow:
    """Give the session of columns."""
    session, run, run_name, labels, principal, host, protocol, transport, role, *rest = cells
    target_host, target_port, target_name, local_host, local_port, local_name, *rest = rest
    pid, process_start, exe, argv, user, started, last, ended, state, *rest = rest
    request, response, messages, verdict, reasons, policy, tie = rest
    return SessionRow(
        session=UUID(cast(str, session)),
        run=_uuid(run),
        run_name=cast("str | None", run_name),
        labels=cast("Mapping[str, Value]", _value(labels) or {}),
        principal=cast("Mapping[str, Value] | None", _value(principal)),
        host=_uuid(host),
        protocol=cast(str, protocol),
        transport=cast("str | None", transport),
        role=cast("str | None", role),
        target=_endpoint(target_host, target_port, target_name),
        local=_endpoint(local_host, local_port, local_name),
        process=SessionProcess(
            pid=cast("int | None", pid),
            start_ns=cast("int | None", process_start),
            exe=cast("str | None", exe),
            argv=cast("list[str]", _value(argv) or []),
            user=cast("str | None", user),
        ),
        started_ns=cast(int, started),
        last_ns=cast(int, last),
        ended_ns=cast("int | None", ended),
        state=cast(str, state),
        bytes=(cast(int, request), cast(int, response)),
        messages=cast(int, messages),
        verdict=cast(str, verdict),
        reasons=cast("list[str]", _value(reasons) or []),
        policy=cast("list[str]", _value(policy) or []),
        tie=cast("str | None", tie),
    )


def message_values(row: MessageRow, number: int, session_key: int, sequence: int) -> tuple[Cell, ...]:
    """Give the row number and the columns of a message, with the row number of its session and the number of its segment."""
    summary, text = row.summary, row.text
    return (
        number,
        session_key,
        integer(row.ordinal),
        integer(row.time_ns),
        row.direction,
        clean(row.protocol),
        clean(row.type),
        integer(row.exchange),
        summary if summary.isascii() else clean(summary),
        text if text.isascii() else clean(text),
        sequence,
    )


def process_values(row: ProcessRow) -> list[Cell]:
    """Give the columns of a process."""
    return [
        str(row.run),
        integer(row.pid),
        integer(row.start_ns),
        clean(row.exe),
        _json(row.argv) if row.argv or row.exe is not None else None,
        integer(row.uid),
        integer(row.seen_ns),
        integer(row.ended_ns),
        integer(row.status),
    ]


def process_from(cells: Sequence[Cell]) -> ProcessRow:
    """Give the process of columns."""
    run, pid, start, exe, argv, uid, seen, ended, status = cells
    return ProcessRow(
        run=UUID(cast(str, run)),
        pid=cast(int, pid),
        start_ns=cast(int, start),
        exe=cast("str | None", exe),
        argv=cast("list[str]", _value(argv) or []),
        uid=cast("int | None", uid),
        seen_ns=cast(int, seen),
        ended_ns=cast("int | None", ended),
        status=cast("int | None", status),
    )


def segment_values(row: SegmentRow) -> list[Cell]:
    """Give the columns of a segment."""
    return [
        str(row.host),
        integer(row.sequence),
        integer(row.first_ns),
        integer(row.last_ns),
        integer(row.file_bytes),
        integer(row.raw_bytes),
        integer(row.records),
        int(row.recovered),
    ]


def integer(value: int | None) -> int | None:
    """Give the number as 64 signed bits can hold it."""
    if value is None or -INTEGER_MAX <= value <= INTEGER_MAX:
        return value
    return INTEGER_MAX if value > 0 else -INTEGER_MAX


def clean(text: str | None) -> str | None:
    """Give the text as SQLite and Parquet can hold it: bytes that were no Unicode become replacement characters."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _json(value: Value) -> str | None:
    return None if value is None else json.dumps(value, default=_json_default)


def _json_default(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return dict(value) if isinstance(value, Mapping) else list(cast("Sequence[object]", value))


def _value(cell: Cell) -> Value:
    return None if cell is None else cast(Value, json.loads(cast(str, cell)))


def _identity(identity: UUID | None) -> str | None:
    return None if identity is None else str(identity)


def _uuid(cell: Cell) -> UUID | None:
    return None if cell is None else UUID(cast(str, cell))


def _endpoint(host: Cell, port: Cell, name: Cell) -> Endpoint:
    return Endpoint(host=cast("str | None", host), port=cast("int | None", port), name=cast("str | None", name))
