"""What a client's commands say.

What lives here: their insides (protocol page "Command Phase"). What must not: framing, which answer they get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.mysql.answers import Answers
from capd.decoders.mysql.statements import Statement
from capd.decoders.mysql.values import UNSIGNED_PARAMETER, binary_value, null_bits, type_name
from capd.decoders.mysql.wire import PARAMETERS_MAX, Capability, Command, Fields, MalformedError, text

PARAMETER_COUNT_AVAILABLE: Final = 8
"""Flag of COM_STMT_EXECUTE: the count of parameters stands there, attributes among them."""
CURSORS: Final = {0: None, 1: "read only", 2: "for update", 4: "scrollable"}
_CURSOR_BITS: Final = 7
SEND_TYPES: Final = 128
"""Flag of COM_STMT_BULK_EXECUTE."""
_INDICATORS: Final = {1: None, 2: {"default": True}, 3: {"ignored": True}}
_OPTIONS: Final = {0: "several statements on", 1: "several statements off"}
BULK_ROWS_MAX: Final = 1_000
"""Of the sets of values of one command so many are given; the rest is counted."""
COMMAND_NAMES: Final[Mapping[int, str]] = {command.value: f"COM_{command.name}" for command in Command}


@dataclass(slots=True, kw_only=True)
class Said:
    """A command, decoded.

    Attributes:
        summary: for a person.
        fields: its details.
        statement: that it is about.
        incomplete: why its values are not all there.
        content: bytes that it carries.
    """

    summary: str = ""
    fields: dict[str, JsonValue]
    statement: Statement | None = None
    incomplete: str | None = None
    content: bytes = b""


def name_of(command: int) -> str:
    """Name a command."""
    return COMMAND_NAMES.get(command) or f"command 0x{command:02x}"


def said(command: int, body: bytes, answers: Answers) -> Said:
    """Decode a command.

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body, answers.encoding)
    fields.byte()
    read = _READERS.get(command)
    if read is None:
        return Said(fields={})
    found = read(fields, answers)
    fields.end()
    return found


def _query(fields: Fields, answers: Answers) -> Said:
    attributes = query_attributes(fields, answers)
    sql = text(fields.rest(), fields.encoding)
    return Said(summary=sql, fields={"sql": sql, **({"attributes": attributes} if attributes else {})})


def query_attributes(fields: Fields, answers: Answers) -> list[JsonValue]:
    """Read what stands before the statement (CLIENT_QUERY_ATTRIBUTES)."""
    stand = answers.attributes_may_stand
    if stand is None:
        stand = fields.body[fields.at : fields.at + 2] == b"\0\1"
    if not stand:
        return []
    count = fields.counted()
    if fields.counted() != 1:
        raise MalformedError("more than one set of attributes")
    if not count:
        return []
    return _named_values(fields, _few(count))


def _named_values(fields: Fields, count: int) -> list[JsonValue]:
    nulls = null_bits(fields.raw((count + 7) // 8), count)
    if fields.byte() != 1:
        raise MalformedError("attributes without types")
    types = [(fields.byte(), fields.byte(), fields.string()) for _ in range(count)]
    return [
        {
            "name": name,
            "value": None if null else binary_value(fields, code, fields.encoding, unsigned=bool(flags)),
        }
        for (code, flags, name), null in zip(types, nulls, strict=True)
    ]


def _few(count: int) -> int:
    if count > PARAMETERS_MAX:
        raise MalformedError("more parameters than there may be")
    return count


def _prepare(fields: Fields, _answers: Answers) -> Said:
    sql = text(fields.rest(), fields.encoding)
    return Said(summary=sql, fields={"sql": sql}, statement=Statement(sql))


def _execute(fields: Fields, answers: Answers) -> Said:
    number = fields.number(4)
    statement = answers.statements.find(number)
    flags = fields.byte()
    iterations = fields.number(4)
    told: dict[str, JsonValue] = {"statement": number, "cursor": CURSORS.get(flags & _CURSOR_BITS, f"flags {flags}")}
    if iterations != 1:
        told["iterations"] = iterations
    found = Said(summary=statement.sql or "", fields=told, statement=statement)
    if statement.sql is not None:
        told["sql"] = statement.sql
    count = statement.parameters
    if answers.capabilities & Capability.QUERY_ATTRIBUTES and (flags & PARAMETER_COUNT_AVAILABLE or count):
        count = _few(fields.counted())
    if count is None:
        found.incomplete = "the statement was prepared unseen: its values cannot be told apart" if fields.left else None
        fields.rest()
        return found
    _parameters(fields, answers, statement, count, found)
    return found


def _parameters(fields: Fields, answers: Answers, statement: Statement, count: int, found: Said) -> None:
    told = found.fields
    told["parameters"], told["parameter_types"] = [], []
    if not count:
        statement.long.clear()
        return
    nulls = null_bits(fields.raw((count + 7) // 8), count)
    names: list[JsonValue] = []
    if fields.byte():
        types: list[tuple[int, bool]] = []
        for _ in range(count):
            code, flags = fields.byte(), fields.byte()
            types.append((code, bool(flags & (UNSIGNED_PARAMETER >> 8))))
            if answers.capabilities & Capability.QUERY_ATTRIBUTES:
                names.append(fields.string())
        statement.types = types
    kinds = statement.types
    if kinds is None or len(kinds) != count:
        found.incomplete = "the types of its values were told unseen"
        fields.rest()
        return
    told["parameter_types"] = [type_name(code, 0x20 if unsigned else 0) for code, unsigned in kinds]
    if any(names):
        told["parameter_names"] = names
    values: list[JsonValue] = []
    for index, ((code, unsigned), null) in enumerate(zip(kinds, nulls, strict=True)):
        if index in statement.long and not null:
            values.append({"sent_before": True})
        else:
            values.append(None if null else binary_value(fields, code, fields.encoding, unsigned=unsigned))
    told["parameters"] = values
    statement.long.clear()


def _bulk(fields: Fields, answers: Answers) -> Said:
    number, flags = fields.number(4), fields.number(2)
    statement = answers.statements.find(number)
    told: dict[str, JsonValue] = {"statement": number}
    found = Said(summary=statement.sql or "", fields=told, statement=statement)
    if statement.sql is not None:
        told["sql"] = statement.sql
    if statement.parameters is None:
        found.incomplete = "the statement was prepared unseen: its values cannot be told apart"
        fields.rest()
        return found
    if flags & SEND_TYPES:
        pairs = [(fields.byte(), fields.byte()) for _ in range(statement.parameters)]
        statement.types = [(code, bool(flag & (UNSIGNED_PARAMETER >> 8))) for code, flag in pairs]
    if statement.types is None:
        found.incomplete = "the types of its values were told unseen"
        fields.rest()
        return found
    told["parameter_types"] = [type_name(code, 0x20 if unsigned else 0) for code, unsigned in statement.types]
    rows: list[JsonValue] = []
    count = 0
    while fields.left and statement.types:
        values = [_bulk_value(fields, code, unsigned=unsigned) for code, unsigned in statement.types]
        count += 1
        if count <= BULK_ROWS_MAX:
            rows.append(values)
    told["rows"], told["count"] = rows, count
    return found


def _bulk_value(fields: Fields, code: int, *, unsigned: bool) -> JsonValue:
    indicator = fields.byte()
    if indicator:
        if indicator not in _INDICATORS:
            raise MalformedError("an unknown indicator before a value")
        return _INDICATORS[indicator]
    return binary_value(fields, code, fields.encoding, unsigned=unsigned)


def _long_data(fields: Fields, answers: Answers) -> Said:
    number, parameter = fields.number(4), fields.number(2)
    statement = answers.statements.find(number)
    statement.long.add(parameter)
    content = fields.rest()
    words = f"{len(content):,} bytes for parameter {parameter + 1}"
    return Said(summary=words, fields={"statement": number, "parameter": parameter}, content=content)


def _fetch(fields: Fields, answers: Answers) -> Said:
    number, rows = fields.number(4), fields.number(4)
    statement = answers.statements.find(number)
    return Said(summary=statement.sql or "", fields={"statement": number, "rows_max": rows}, statement=statement)


def _close(fields: Fields, answers: Answers) -> Said:
    number = fields.number(4)
    answers.statements.close(number)
    return Said(summary=f"statement {number}", fields={"statement": number})


def _reset(fields: Fields, answers: Answers) -> Said:
    number = fields.number(4)
    answers.statements.find(number).long.clear()
    return Said(summary=f"statement {number}", fields={"statement": number})


def _database(fields: Fields, _answers: Answers) -> Said:
    name = text(fields.rest(), fields.encoding)
    return Said(summary=name, fields={"database": name})


def _field_list(fields: Fields, _answers: Answers) -> Said:
    table = text(fields.until_nul(), fields.encoding)
    wildcard = text(fields.rest(), fields.encoding)
    return Said(summary=f"{table} {wildcard}".rstrip(), fields={"table": table, "wildcard": wildcard})


def _option(fields: Fields, _answers: Answers) -> Said:
    option = fields.number(2)
    return Said(summary=_OPTIONS.get(option, f"option {option}"), fields={"option": option})


def _kill(fields: Fields, _answers: Answers) -> Said:
    thread = fields.number(4)
    return Said(summary=f"thread {thread}", fields={"thread": thread})


def _replica(fields: Fields, _answers: Answers) -> Said:
    fields.rest()
    return Said(summary="replication, which is not decoded", fields={})


def _rest(fields: Fields, _answers: Answers) -> Said:
    fields.rest()
    return Said(fields={})


_READERS: Final[Mapping[int, Callable[[Fields, Answers], Said]]] = {
    Command.QUERY: _query,
    Command.STMT_PREPARE: _prepare,
    Command.STMT_EXECUTE: _execute,
    Command.STMT_BULK_EXECUTE: _bulk,
    Command.STMT_SEND_LONG_DATA: _long_data,
    Command.STMT_FETCH: _fetch,
    Command.STMT_CLOSE: _close,
    Command.STMT_RESET: _reset,
    Command.INIT_DB: _database,
    Command.CREATE_DB: _database,
    Command.DROP_DB: _database,
    Command.FIELD_LIST: _field_list,
    Command.SET_OPTION: _option,
    Command.PROCESS_KILL: _kill,
    Command.BINLOG_DUMP: _replica,
    Command.BINLOG_DUMP_GTID: _replica,
    Command.TABLE_DUMP: _replica,
    Command.REGISTER_SLAVE: _replica,
    Command.SHUTDOWN: _rest,
    Command.REFRESH: _rest,
}
REPLICATION: Final[Sequence[int]] = (Command.BINLOG_DUMP, Command.BINLOG_DUMP_GTID, Command.TABLE_DUMP)
