"""What packets of a server say: OK, ERR, EOF, columns.

What lives here: reading them (protocol pages "OK_Packet", "ERR_Packet", "EOF_Packet", "Column Definition"). What must not:
which of them is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.mysql.collations import codec
from capd.decoders.mysql.values import Column
from capd.decoders.mysql.wire import PROGRESS, Capability, Fields, MalformedError, Status

_STATE_BYTES: Final = 6
"""Of an ERR: a sign and five characters."""
_DEFINITION_BYTES: Final = 12
_VARIABLE, _SCHEMA = 0, 1
TRACKED: Final = {2: "state_changed", 3: "gtids", 4: "characteristics", 5: "transaction"}
"""What else a server tells of the session (protocol page "Session State Information")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ok:
    """An OK, or an EOF in its form.

    Attributes:
        affected, insert_id, warnings: numbers.
        status: of the session.
        info: for a person.
        variables: of the session that changed, and their values now.
        schema: the default one, if it changed.
        tracked: what else changed, by name.
    """

    affected: int = 0
    insert_id: int = 0
    status: int = 0
    warnings: int = 0
    info: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    schema: str | None = None
    tracked: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Err:
    """An ERR: `state` is empty before the client has said what it can."""

    code: int
    state: str
    message: str


def ok(body: bytes, capabilities: int, encoding: str = "utf-8") -> Ok:
    """Read an OK, whatever its first byte.

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body, encoding)
    fields.byte()
    affected, insert_id = fields.counted(), fields.counted()
    if not capabilities & Capability.PROTOCOL_41:
        return Ok(affected=affected, insert_id=insert_id, status=fields.number(2), info=_rest(fields))
    status, warnings = fields.number(2), fields.number(2)
    if not capabilities & Capability.SESSION_TRACK:
        return Ok(affected=affected, insert_id=insert_id, status=status, warnings=warnings, info=_rest(fields))
    info = fields.string() if fields.left else ""
    tracked = Fields(fields.piece(), encoding) if status & Status.SESSION_STATE_CHANGED and fields.left else None
    fields.end()
    variables, schema, rest = ((), None, ()) if tracked is None else _tracked(tracked)
    return Ok(
        affected=affected,
        insert_id=insert_id,
        status=status,
        warnings=warnings,
        info=info,
        variables=variables,
        schema=schema,
        tracked=rest,
    )


def _rest(fields: Fields) -> str:
    """Give the info: text to the end, or, of servers that do not keep to the protocol, behind its length."""
    raw = fields.rest()
    if raw and raw[0] == len(raw) - 1:
        raw = raw[1:]
    return raw.decode(fields.encoding, "backslashreplace")


def _tracked(fields: Fields) -> tuple[tuple[tuple[str, str], ...], str | None, tuple[tuple[str, str], ...]]:
    variables: list[tuple[str, str]] = []
    schema: str | None = None
    rest: list[tuple[str, str]] = []
    while fields.left:
        kind = fields.byte()
        inner = Fields(fields.piece(), fields.encoding)
        if kind == _VARIABLE:
            while inner.left:
                name = inner.string()
                variables.append((name, inner.string()))
        elif kind == _SCHEMA:
            schema = inner.string()
        else:
            raw = inner.rest().decode(fields.encoding, "backslashreplace")
            rest.append((TRACKED.get(kind, f"kind {kind}"), raw.lstrip("\x00").strip()))
    return tuple(variables), schema, tuple(rest)


def err(body: bytes, encoding: str = "utf-8") -> Err:
    """Read an ERR.

    Raises:
        MalformedError: its inside does not add up, or it tells of progress.
    """
    fields = Fields(body, encoding)
    fields.byte()
    code = fields.number(2)
    if code == PROGRESS:
        raise MalformedError("it tells of progress")
    state = ""
    if fields.left >= _STATE_BYTES and body[fields.at] == ord("#"):
        state = fields.raw(_STATE_BYTES)[1:].decode("latin-1")
    return Err(code=code, state=state, message=fields.rest().decode(encoding, "backslashreplace"))


def eof(body: bytes) -> Ok:
    """Read an EOF.

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body)
    fields.byte()
    warnings, status = (fields.number(2), fields.number(2)) if fields.left else (0, 0)
    fields.end()
    return Ok(status=status, warnings=warnings)


def column(body: bytes, capabilities: int, encoding: str = "utf-8", *, defaults: bool = False) -> Column:
    """Read the definition of a column.

    Args:
        body: the payload.
        capabilities: that both have.
        encoding: of names.
        defaults: whether a default value may stand at its end (COM_FIELD_LIST).

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body, encoding)
    fields.piece()
    schema, _, table, name, original = (fields.string() for _ in range(5))
    if capabilities & Capability.EXTENDED_METADATA:
        fields.piece()
    if fields.counted() != _DEFINITION_BYTES:
        raise MalformedError("a definition of an unknown form")
    collation = fields.number(2)
    fields.raw(4)
    code, flags = fields.byte(), fields.number(2)
    fields.raw(3)
    if defaults and fields.left:
        fields.length()
        fields.rest()
    fields.end()
    return Column(
        name=name,
        code=code,
        flags=flags,
        collation=collation,
        schema=schema,
        table=table,
        column=original,
        encoding=codec(collation),
    )


def described(one: Column, *, binary: bool) -> dict[str, JsonValue]:
    """Give a column as messages have it."""
    return {
        "name": one.name,
        "type": one.type,
        "code": one.code,
        "schema": one.schema,
        "table": one.table,
        "column": one.column,
        "format": "binary" if binary else "text",
    }


def ok_fields(done: Ok) -> tuple[str, dict[str, JsonValue]]:
    """Give summary and fields of an OK."""
    fields: dict[str, JsonValue] = {"affected_rows": done.affected, "warnings": done.warnings}
    words = [f"{done.affected} row{'' if done.affected == 1 else 's'} affected"] if done.affected else []
    if done.insert_id:
        fields["last_insert_id"] = done.insert_id
        words.append(f"insert id {done.insert_id}")
    if done.info:
        fields["info"] = done.info
        words.append(done.info)
    if done.variables:
        fields["variables"] = [{"name": name, "value": value} for name, value in done.variables]
        words += [f"{name}={value}" for name, value in done.variables]
    if done.schema is not None:
        fields["schema"] = done.schema
        words.append(f"schema {done.schema}")
    fields.update(done.tracked)
    if done.warnings:
        words.append(f"{done.warnings} warning{'' if done.warnings == 1 else 's'}")
    fields["status"] = statuses(done.status)
    return ", ".join(words), fields


def statuses(status: int) -> list[JsonValue]:
    """Give the words for a status."""
    return [str(one.name).lower() for one in Status if status & one]
