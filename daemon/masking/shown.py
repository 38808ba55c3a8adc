"""What of a record's values is stored: masked, or reduced to what is no content.

What lives here: which keys of which record hold what an agent or its peer said. What must not: payload, positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from capd.daemon.masking.levels import Level
from capd.daemon.masking.side import Side
from capd.enforcer.masking import sql_secrets
from capd.enforcer.masking.database import DatabaseMask
from capd.enforcer.masking.place import filled
from capd.enforcer.masking.values import Values
from capd.recording.record import Kind, Record, Value

METADATA_FIELDS: Final = frozenset(
    {
        "method", "version", "status", "framing", "length", "interim", "bytes", "body_bytes", "severity", "code", "tag",
        "first_row", "format", "protocol", "mechanism", "accepted", "total", "offset", "rows_max", "result_format",
        "stream", "promised", "scheme", "ack", "settings", "increment", "last_stream", "error", "frame", "number", "compressed",
        "grpc_status", "part", "final", "packed", "masked", "command", "kind", "inline", "omitted", "commands",
        "affected_rows", "warnings", "state", "columns_count", "parameters_count",
    }
)  # fmt: skip
"""Fields of messages that say how much and of what sort, but not what."""
PLAIN_MARKERS: Final = frozenset({"protocol", "tls", "skipped", "resumed", "settled", "fork", "exit", "late", "recording"})
"""Markers that hold nothing an agent could have written."""


class Shown:
    """Gives records as they are stored."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def opened(self, record: Record, level: Level = Level.MASKED) -> Record:
        """Give an OPEN: arguments of a process, labels and names may hold a secret; below `masked` no argument is stored."""
        body = {name: self._values.value(value) for name, value in record.body.items()}
        process = record.body.get("process")
        if isinstance(process, Mapping):
            body["process"] = _bare(self._process(process), level)
        return _with(record, body)

    def level(self, record: Record, level: Level) -> Record:
        """Give the marker that says which level is in force from here on."""
        return Record(Kind.MARKER, record.session, record.time_ns, None, {"name": "recording", "level": level.word})

    def anything(self, record: Record, level: Level = Level.MASKED) -> Record:
        """Give a marker or a gap, of a session, a run or the host."""
        body = record.body
        if level is Level.FULL or record.kind is not Kind.MARKER or body.get("name") in PLAIN_MARKERS:
            return record
        return _with(record, _bare(self._process(body), level))

    def _process(self, facts: Mapping[str, Value]) -> dict[str, Value]:
        shown: dict[str, Value] = {}
        for name, value in facts.items():
            if name in ("argv", "command") and isinstance(value, Sequence) and not isinstance(value, str | bytes):
                shown[name] = self._values.arguments(value)
            else:
                shown[name] = self._values.member(name, value)
        return shown

    def metadata(self, record: Record) -> Record:
        """Give a record without anything that was said: sizes, types, times."""
        body = record.body
        if record.kind is Kind.DATA:
            payload = body.get("payload")
            size = len(payload) if isinstance(payload, bytes) else 0
            kept = {name: value for name, value in body.items() if name != "payload"}
            return _with(record, {**kept, "payload": b"", "length": size})
        if record.kind is not Kind.MESSAGE:
            return self.anything(record, Level.METADATA)
        fields = body.get("fields")
        fields = fields if isinstance(fields, Mapping) else {}
        kept = {name: value for name, value in fields.items() if name in METADATA_FIELDS}
        rows = fields.get("rows")
        if isinstance(rows, Sequence):
            kept["count"] = len(rows)
        words = [
            str(kept[name]) for name in ("method", "command", "status", "code", "tag", "count") if kept.get(name) is not None
        ]
        bare = {name: value for name, value in body.items() if name != "content"}
        return _with(record, {**bare, "summary": " ".join(words), "fields": kept, "text": ""})

    def body(self, record: Record, side: Side, pieces: Sequence[tuple[int, int]]) -> Record:
        """Give a part of a body: its text is made anew of what is masked."""
        text, fields = record.body.get("text"), record.body.get("fields")
        if not isinstance(text, str) or not text:
            return record
        told = fields.get("bytes") if isinstance(fields, Mapping) else None
        there = sum(len(data) for at, size in pieces for _, data in side.parts(at, at + size))
        if isinstance(told, int) and there < told:
            # Some was judged before it was told of, and let go: what was hidden of it nobody knows any more.
            return _with(record, {**record.body, "text": ""})
        if not any(side.overlapping(at, at + size) for at, size in pieces):
            return record
        content = b"".join(
            filled(data, side.overlapping(position, position + len(data)), position)
            for at, size in pieces
            for position, data in side.parts(at, at + size)
        )
        return _with(record, {**record.body, "text": content.decode("utf-8", "ignore")[: len(text)]})

    def said(self, record: Record, said: bytes) -> Record:
        """Give a message that is a whole by itself with what it says."""
        body = record.body
        text = body.get("text")
        shown = {**body, "text": said.decode("utf-8", "ignore")[: len(text)] if isinstance(text, str) else ""}
        return _with(record, {**shown, "content": said} if "content" in body else shown)

    def message(self, record: Record, database: DatabaseMask | None, *, touched: bool) -> Record:
        """Give any other message with its texts masked."""
        values, body = self._values, record.body
        own = None if database is None else database.record(body, values, touched=touched)
        if own is not None:
            return _with(record, own)
        fields = body.get("fields")
        fields = fields if isinstance(fields, Mapping) else {}
        shown: dict[str, Value] = dict(body)
        summary, text = body.get("summary"), body.get("text")
        if database is not None and body.get("type") == "rows":
            shown["fields"] = database.shown(fields, values)
            return _with(record, shown)
        if database is not None:
            fields, summary, text = (without_passwords(one, database.dialect) for one in (fields, summary, text))
            if body.get("type") in database.errors:
                fields, summary = (without_repeated(one, database.dialect) for one in (fields, summary))
        shown["fields"] = values.value(fields)
        shown["summary"] = values.value(summary)
        if isinstance(text, str):
            shown["text"] = values.text(text)
        if database is not None and touched and body.get("type") in database.errors:
            shown["fields"] = database.report(shown["fields"])
            shown["summary"] = database.report(shown["summary"])
        return _with(record, shown)


def _bare(process: dict[str, Value], level: Level) -> dict[str, Value]:
    """Give what is told of a process; where nothing said is stored, with no argument but the program's own name."""
    if level not in (Level.METADATA, Level.OFF):
        return process
    for name in ("argv", "command"):
        arguments = process.get(name)
        if isinstance(arguments, Sequence) and not isinstance(arguments, str):
            process[name] = list(arguments[:1])
    return process


def without_passwords(value: Value, dialect: str) -> Value:
    """Give a text without the passwords of the statement that it is; of fields the statement's."""
    if isinstance(value, str):
        return sql_secrets.hidden(value, dialect)
    if isinstance(value, Mapping) and isinstance(sql := value.get("sql"), str):
        return {**value, "sql": sql_secrets.hidden(sql, dialect)}
    return value


def without_repeated(value: Value, dialect: str) -> Value:
    """Give what an error says without the passwords of statements that it repeats."""
    if isinstance(value, str):
        return sql_secrets.hidden_in_error(value, dialect)
    return {name: without_repeated(item, dialect) for name, item in value.items()} if isinstance(value, Mapping) else value


def _with(record: Record, body: Mapping[str, Value]) -> Record:
    return Record(record.kind, record.session, record.time_ns, record.direction, body)
