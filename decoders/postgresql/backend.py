"""What the server says.

What lives here: the backend messages ("Message Formats", those marked B) and the one-byte answers to encryption requests.
What must not: framing. SASL and MD5 challenges and the cancel key are in no field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from capd.decoders.message import Direction, JsonValue, Message
from capd.decoders.postgresql import values
from capd.decoders.postgresql.answers import Answers, Due
from capd.decoders.postgresql.side import Decoded, Kind, PostgresqlSide, State, exactly
from capd.decoders.postgresql.wire import ENCODINGS, ROW_BYTES_MAX, Fields, MalformedError

KINDS: Final[Mapping[int, Kind]] = {
    ord("1"): exactly("ParseComplete", 4),
    ord("2"): exactly("BindComplete", 4),
    ord("3"): exactly("CloseComplete", 4),
    ord("A"): Kind(name="NotificationResponse", shortest=10),
    ord("C"): Kind(name="CommandComplete", shortest=5),
    ord("D"): Kind(name="DataRow", shortest=6, held=ROW_BYTES_MAX),
    ord("E"): Kind(name="ErrorResponse", shortest=5),
    ord("G"): Kind(name="CopyInResponse", shortest=7),
    ord("H"): Kind(name="CopyOutResponse", shortest=7),
    ord("I"): exactly("EmptyQueryResponse", 4),
    ord("K"): Kind(name="BackendKeyData", shortest=12),
    ord("N"): Kind(name="NoticeResponse", shortest=5),
    ord("R"): Kind(name="Authentication", shortest=8),
    ord("S"): Kind(name="ParameterStatus", shortest=6),
    ord("T"): Kind(name="RowDescription", shortest=6),
    ord("V"): Kind(name="FunctionCallResponse", shortest=8, held=ROW_BYTES_MAX),
    ord("W"): Kind(name="CopyBothResponse", shortest=7),
    ord("Z"): exactly("ReadyForQuery", 5),
    ord("c"): exactly("CopyDone", 4),
    ord("d"): Kind(name="CopyData"),
    ord("n"): exactly("NoData", 4),
    ord("s"): exactly("PortalSuspended", 4),
    ord("t"): Kind(name="ParameterDescription", shortest=6),
    ord("v"): Kind(name="NegotiateProtocolVersion", shortest=12),
}
_ROW: Final = ord("D")

AUTHENTICATION: Final[Mapping[int, tuple[str, str | None]]] = {
    0: ("AuthenticationOk", None),
    2: ("AuthenticationKerberosV5", "GSSResponse"),
    3: ("AuthenticationCleartextPassword", "PasswordMessage"),
    5: ("AuthenticationMD5Password", "PasswordMessage"),
    7: ("AuthenticationGSS", "GSSResponse"),
    8: ("AuthenticationGSSContinue", "GSSResponse"),
    9: ("AuthenticationSSPI", "GSSResponse"),
    10: ("AuthenticationSASL", "SASLInitialResponse"),
    11: ("AuthenticationSASLContinue", "SASLResponse"),
    12: ("AuthenticationSASLFinal", None),
}
"""Code to name, and to the name of the client's next `p` message."""
_SASL: Final = 10

ERROR_FIELDS: Final = {
    "S": "severity",
    "V": "severity_code",
    "C": "code",
    "M": "message",
    "D": "detail",
    "H": "hint",
    "P": "position",
    "p": "internal_position",
    "q": "internal_query",
    "W": "where",
    "s": "schema",
    "t": "table",
    "c": "column",
    "d": "datatype",
    "n": "constraint",
    "F": "file",
    "L": "line",
    "R": "routine",
}
"""Protocol page "Error and Notice Message Fields"; an unknown field keeps its letter."""
DESCRIPTION_BYTES_KEPT: Final = 1_024
"""A longer RowDescription is read anew each time, so that what is kept of them all stays small."""
STATUSES: Final = {ord("I"): "idle", ord("T"): "in transaction", ord("E"): "failed transaction"}


_COLUMN: Final = struct.Struct(">IHIhiH")
"""RowDescription after a column's name: table, attribute, type, size, modifier, format."""


def _columns(fields: Fields) -> Decoded:
    """Read a RowDescription. A client that asks one question again and again gets the same one each time."""
    if len(fields.body) > DESCRIPTION_BYTES_KEPT:
        return _described(fields)
    known = _known_columns(fields.body, fields.encoding)
    fields.at = len(fields.body)
    return known


@lru_cache(maxsize=256)
def _known_columns(body: bytes, encoding: str) -> Decoded:
    fields = Fields(body, encoding)
    described = _described(fields)
    fields.end()
    return described


def _described(fields: Fields) -> Decoded:
    columns: list[JsonValue] = []
    described: list[str] = []
    for _ in range(fields.int16()):
        name = fields.string()
        table, attribute, oid, size, modifier, code = _COLUMN.unpack(fields.raw(_COLUMN.size))
        if code not in (0, 1):
            raise MalformedError("a format code that is neither text nor binary")
        kind = values.type_name(oid)
        columns.append(
            {
                "name": name,
                "type": kind,
                "oid": oid,
                "table": table,
                "attribute": attribute,
                "size": size,
                "modifier": modifier,
                "format": "binary" if code else "text",
            }
        )
        described.append(f"{name} {kind}")
    return ", ".join(described), {"columns": columns}


def _tag(fields: Fields) -> Decoded:
    tag = fields.string()
    return tag, {"tag": tag}


def _notice(fields: Fields) -> Decoded:
    decoded: dict[str, JsonValue] = {}
    while letter := fields.byte():
        name = chr(letter)
        decoded[ERROR_FIELDS.get(name, name)] = fields.string()
    severity, code = decoded.get("severity", ""), decoded.get("code", "")
    return f"{severity} {code}: {decoded.get('message', '')}", decoded


def _authentication(fields: Fields) -> Decoded:
    code = fields.int32()
    decoded: dict[str, JsonValue] = {"code": code}
    if code == _SASL:
        mechanisms: list[JsonValue] = []
        while mechanism := fields.string():
            mechanisms.append(mechanism)
        decoded["mechanisms"] = mechanisms
    else:
        fields.rest()
    return AUTHENTICATION.get(code, (f"authentication {code}", None))[0], decoded


def _setting(fields: Fields) -> Decoded:
    name, value = fields.string(), fields.string()
    return f"{name}={value}", {"name": name, "value": value}


def _ready(fields: Fields) -> Decoded:
    status = STATUSES.get(fields.byte())
    if status is None:
        raise MalformedError("an unknown transaction status")
    return status, {"status": status}


def _key(fields: Fields) -> Decoded:
    process = fields.int32()
    fields.rest()
    return f"process {process}", {"process": process}


def _notification(fields: Fields) -> Decoded:
    process, channel, payload = fields.int32(), fields.string(), fields.string()
    return f"{channel}: {payload}", {"process": process, "channel": channel, "payload": payload}


def _types(fields: Fields) -> Decoded:
    types: list[JsonValue] = [values.type_name(fields.int32() & 0xFFFF_FFFF) for _ in range(fields.int16())]
    return ", ".join(str(name) for name in types), {"types": types}


def _result(fields: Fields) -> Decoded:
    length = fields.int32()
    if length == -1:
        return "NULL", {"value": None}
    raw = fields.raw(length)
    return "", {"value": values.cell(raw, fields.encoding, binary=False)}


def _copy(fields: Fields) -> Decoded:
    overall = fields.byte()
    formats: list[JsonValue] = ["binary" if code else "text" for code in fields.formats()]
    name = "binary" if overall else "text"
    return name, {"format": name, "columns": formats}


def _negotiate(fields: Fields) -> Decoded:
    minor = fields.int32()
    count = fields.int32()
    options: list[JsonValue] = []
    while len(options) < count:
        options.append(fields.string())
    return f"protocol 3.{minor & 0xFFFF}", {"minor": minor & 0xFFFF, "unknown_options": options}


def _nothing(_fields: Fields) -> Decoded:
    return "", {}


_DECODE: Final[Mapping[int, Callable[[Fields], Decoded]]] = {
    ord("A"): _notification,
    ord("C"): _tag,
    ord("E"): _notice,
    ord("G"): _copy,
    ord("H"): _copy,
    ord("K"): _key,
    ord("N"): _notice,
    ord("R"): _authentication,
    ord("S"): _setting,
    ord("T"): _columns,
    ord("V"): _result,
    ord("W"): _copy,
    ord("Z"): _ready,
    ord("t"): _types,
    ord("v"): _negotiate,
}


class Backend(PostgresqlSide):
    """The server's direction."""

    kinds = KINDS

    def __init__(self, answers: Answers) -> None:
        super().__init__(Direction.RESPONSE)
        self.state = State.OPENING
        self._answers = answers

    def decode(self, code: int, body: bytes, start: int, end: int) -> Message:
        """Decode a whole message and note what it answers."""
        if code == _ROW:
            return self._row(body, start, end)
        incomplete = None
        fields = Fields(body, self._answers.encoding)
        try:
            summary, decoded = _DECODE.get(code, _nothing)(fields)
            fields.end()
        except MalformedError as error:
            summary, decoded, incomplete = "", {}, f"malformed: {error}"
        return self._build(code, (start, end), (summary, decoded), incomplete)

    def _row(self, body: bytes, start: int, end: int) -> Message:
        exchange, columns, formats = self._answers.row_shape()
        incomplete = None
        try:
            cells = values.row(body, formats, self._answers.encoding)
        except MalformedError as error:
            cells, incomplete = [], f"malformed: {error}"
        return Message(
            direction=Direction.RESPONSE,
            start=start,
            end=end,
            type="DataRow",
            exchange=exchange,
            fields={"values": cells, "columns": columns},
            incomplete=incomplete,
        )

    def decode_partial(self, code: int, prefix: bytes, start: int, end: int, incomplete: str) -> Message:
        """A row shows the values that are whole; everything else only that it was there."""
        if code != _ROW:
            return self._build(code, (start, end), ("", {}), incomplete)
        exchange, columns, formats = self._answers.row_shape()
        cells = values.row_prefix(prefix, formats, self._answers.encoding)
        return Message(
            direction=Direction.RESPONSE,
            start=start,
            end=end,
            type="DataRow",
            exchange=exchange,
            fields={"values": cells, "columns": columns},
            incomplete=incomplete,
        )

    def copy_message(
        self, start: int, end: int, content: bytes, fields: dict[str, JsonValue], incomplete: str | None
    ) -> Message:
        """CopyData belongs to the statement that is being answered."""
        return Message(
            direction=Direction.RESPONSE,
            start=start,
            end=end,
            type="CopyData",
            exchange=self._answers.answering(),
            fields=fields,
            content=content,
            incomplete=incomplete,
        )

    def resynchronised(self) -> None:
        """How many answers were lost is not known."""
        self._answers.answers_lost()

    def advance_opening(self) -> Message | None:
        """Read the one byte that answers an encryption request; an ErrorResponse may come instead."""
        stream = self.stream
        encryption = self._answers.encryption
        if not stream.waiting:
            return None
        if not encryption:
            self.state = State.MESSAGES
            return None
        answer = stream.data[stream.start]
        name, exchange = encryption.popleft()
        if answer == ord("E"):
            self.state = State.MESSAGES
            return None
        accepted = answer == ord("S" if name == "SSLResponse" else "G")
        if not accepted and answer != ord("N"):
            raise self.error(stream.position, "neither yes nor no to an encryption request")
        start = stream.position
        stream.report(stream.start + 1)
        return Message(
            direction=Direction.RESPONSE,
            start=start,
            end=start + 1,
            type=name,
            summary="accepted" if accepted else "refused",
            exchange=exchange,
            fields={"accepted": accepted},
        )

    def _build(self, code: int, span: tuple[int, int], decoded: Decoded, incomplete: str | None) -> Message:
        summary, fields = decoded
        name = KINDS[code].name
        if name == "Authentication" and summary in _AUTHENTICATION_NAMES:
            name, summary = summary, ""
        return Message(
            direction=Direction.RESPONSE,
            start=span[0],
            end=span[1],
            type=name,
            summary=summary,
            exchange=_FOLLOW.get(code, _follow_nothing)(self._answers, fields),
            fields=fields,
            incomplete=incomplete,
        )


_AUTHENTICATION_NAMES: Final = frozenset(name for name, _ in AUTHENTICATION.values())

# What each message does to the conversation: gives its exchange.


def _follow_nothing(answers: Answers, _fields: Mapping[str, JsonValue]) -> int | None:
    return answers.answering()


def _settles(due: Due) -> Callable[[Answers, Mapping[str, JsonValue]], int | None]:
    def follow(answers: Answers, _fields: Mapping[str, JsonValue]) -> int | None:
        expected = answers.settle(due)
        return answers.answering() if expected is None else expected.exchange

    return follow


def _follow_columns(answers: Answers, fields: Mapping[str, JsonValue]) -> int | None:
    columns = fields.get("columns")
    if not isinstance(columns, list):
        return answers.answering()
    known = [column for column in columns if isinstance(column, dict)]
    short: list[JsonValue] = [{"name": column["name"], "type": column["type"]} for column in known]
    return answers.described(short, bytes(column["format"] == "binary" for column in known))


def _follow_setting(answers: Answers, fields: Mapping[str, JsonValue]) -> int | None:
    if fields.get("name") == "client_encoding":
        answers.encoding = ENCODINGS.get(str(fields.get("value")), "utf-8")
    return answers.answering()


def _follow_authentication(answers: Answers, fields: Mapping[str, JsonValue]) -> int | None:
    code = fields.get("code")
    if isinstance(code, int):
        answers.password_kind = AUTHENTICATION.get(code, ("", None))[1]
    return answers.answering()


_FOLLOW: Final[Mapping[int, Callable[[Answers, Mapping[str, JsonValue]], int | None]]] = {
    ord("1"): _settles(Due.PARSE),
    ord("2"): _settles(Due.BIND),
    ord("3"): _settles(Due.CLOSE),
    ord("C"): lambda answers, _: answers.completed(),
    ord("E"): lambda answers, _: answers.failed(),
    ord("G"): lambda answers, _: answers.copy_in(),
    ord("I"): lambda answers, _: answers.completed(),
    ord("R"): _follow_authentication,
    ord("S"): _follow_setting,
    ord("T"): _follow_columns,
    ord("Z"): lambda answers, _: answers.ready(),
    ord("n"): _settles(Due.DESCRIBE),
    ord("s"): lambda answers, _: answers.completed(),
}
