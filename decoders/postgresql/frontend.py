"""What the client says.

What lives here: the startup packets and the frontend messages ("Message Formats", those marked F). What must not: framing.

Passwords, SASL and GSS payloads and cancel keys are in no field and no summary; of a SASLInitialResponse only the name of a
known mechanism is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.message import Direction, JsonValue, Message
from capd.decoders.postgresql import values
from capd.decoders.postgresql.answers import Answers, Due
from capd.decoders.postgresql.side import Decoded, Kind, PostgresqlSide, State, exactly
from capd.decoders.postgresql.wire import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    LENGTH_BYTES,
    PROTOCOL_MAJOR,
    SSL_REQUEST,
    STARTUP_BYTES_MAX,
    STARTUP_BYTES_MIN,
    STATEMENT_BYTES_MAX,
    Fields,
    MalformedError,
    text,
)

KINDS: Final[Mapping[int, Kind]] = {
    ord("B"): Kind(name="Bind", shortest=12, held=STATEMENT_BYTES_MAX),
    ord("C"): Kind(name="Close", shortest=6),
    ord("D"): Kind(name="Describe", shortest=6),
    ord("E"): Kind(name="Execute", shortest=9),
    ord("F"): Kind(name="FunctionCall", shortest=14, held=STATEMENT_BYTES_MAX),
    ord("H"): exactly("Flush", 4),
    ord("P"): Kind(name="Parse", shortest=8, held=STATEMENT_BYTES_MAX),
    ord("Q"): Kind(name="Query", shortest=5, held=STATEMENT_BYTES_MAX),
    ord("S"): exactly("Sync", 4),
    ord("X"): exactly("Terminate", 4),
    ord("c"): exactly("CopyDone", 4),
    ord("d"): Kind(name="CopyData"),
    ord("f"): Kind(name="CopyFail", shortest=5),
    ord("p"): Kind(name="PasswordMessage"),
}
_TLS_HANDSHAKE: Final = 0x16
_TARGETS: Final = {ord("S"): "statement", ord("P"): "portal"}
_MECHANISMS: Final = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER"})
_PASSWORD: Final = ord("p")
_TERMINATE: Final = ord("X")
_COPY_ENDS: Final = frozenset(b"cf")


def _query(fields: Fields) -> Decoded:
    sql = fields.string()
    return sql, {"sql": sql}


def _parse(fields: Fields) -> Decoded:
    name = fields.string()
    sql = fields.string()
    types = [fields.int32() for _ in range(fields.int16())]
    return sql, {"statement": name, "sql": sql, "parameter_types": [values.type_name(oid) if oid else None for oid in types]}


def _bind(fields: Fields) -> Decoded:
    portal = fields.string()
    statement = fields.string()
    formats = fields.formats()
    parameters = values.row(_value_bytes(fields), formats, fields.encoding)
    results = fields.formats()
    decoded: dict[str, JsonValue] = {"portal": portal, "statement": statement, "parameters": parameters}
    decoded["parameter_formats"] = list(formats)
    decoded["result_formats"] = list(results)
    return "", decoded


def _value_bytes(fields: Fields) -> bytes:
    """A count and that many values, as they are."""
    begin = fields.at
    for _ in range(fields.int16()):
        length = fields.int32()
        if length != -1:
            fields.raw(length)
    return fields.body[begin : fields.at]


def _named(fields: Fields) -> Decoded:
    kind = _TARGETS.get(fields.byte())
    if kind is None:
        raise MalformedError("neither a statement nor a portal")
    name = fields.string()
    return f"{kind} {name}".rstrip(), {"kind": kind, "name": name}


def _execute(fields: Fields) -> Decoded:
    return "", {"portal": fields.string(), "rows_max": fields.int32()}


def _call(fields: Fields) -> Decoded:
    function = fields.int32()
    formats = fields.formats()
    arguments = values.row(_value_bytes(fields), formats, fields.encoding)
    result = fields.int16()
    return f"function {function}", {"function": function, "arguments": arguments, "result_format": result}


def _fail(fields: Fields) -> Decoded:
    message = fields.string()
    return message, {"message": message}


def _nothing(_fields: Fields) -> Decoded:
    return "", {}


_DECODE: Final[Mapping[int, Callable[[Fields], Decoded]]] = {
    ord("B"): _bind,
    ord("C"): _named,
    ord("D"): _named,
    ord("E"): _execute,
    ord("F"): _call,
    ord("P"): _parse,
    ord("Q"): _query,
    ord("f"): _fail,
}


class Frontend(PostgresqlSide):
    """The client's direction."""

    kinds = KINDS

    def __init__(self, answers: Answers) -> None:
        super().__init__(Direction.REQUEST)
        self.state = State.OPENING
        self._answers = answers

    def decode(self, code: int, body: bytes, start: int, end: int) -> Message:
        """Decode a whole message and note what answer is due."""
        if code == _PASSWORD:
            return self._password(body, start, end)
        incomplete = None
        fields = Fields(body, self._answers.encoding)
        try:
            summary, decoded = _DECODE.get(code, _nothing)(fields)
            fields.end()
        except MalformedError as error:
            summary, decoded, incomplete = "", {}, f"malformed: {error}"
        exchange, more = self._follow(code, decoded)
        return self._build(code, (start, end), exchange, (summary or more, decoded), incomplete)

    def decode_partial(self, code: int, prefix: bytes, start: int, end: int, incomplete: str) -> Message:
        """A statement shows as much of its text as is there; everything else only that it was there."""
        summary = ""
        if code == ord("Q"):
            summary = text(prefix.split(b"\0", 1)[0], self._answers.encoding)
        elif code == ord("P"):
            summary = text([*prefix.split(b"\0", 2), b"", b""][1], self._answers.encoding)
        decoded: dict[str, JsonValue] = {"sql": summary} if summary else {}
        exchange = self._answers.latest() if code == _PASSWORD else self._follow(code, {})[0]
        return self._build(code, (start, end), exchange, (summary, decoded), incomplete)

    def copy_message(
        self, start: int, end: int, content: bytes, fields: dict[str, JsonValue], incomplete: str | None
    ) -> Message:
        """CopyData belongs to the statement that began the COPY."""
        return Message(
            direction=self.direction,
            start=start,
            end=end,
            type="CopyData",
            exchange=self._answers.latest(),
            fields=fields,
            content=content,
            incomplete=incomplete,
        )

    def resynchronised(self) -> None:
        """The conversation is past its startup."""
        self._answers.requests_lost()

    def _build(
        self, code: int, span: tuple[int, int], exchange: int | None, decoded: Decoded, incomplete: str | None
    ) -> Message:
        return Message(
            direction=self.direction,
            start=span[0],
            end=span[1],
            type=KINDS[code].name,
            summary=decoded[0],
            exchange=exchange,
            fields=decoded[1],
            incomplete=incomplete,
        )

    def _follow(self, code: int, fields: dict[str, JsonValue]) -> tuple[int | None, str]:
        """What a message does to names and to the answers that are due; gives its exchange and a summary."""
        follow = _FOLLOW.get(code)
        if follow is None:
            if code in _COPY_ENDS:
                self._answers.copy_done()
            return None if code == _TERMINATE else self._answers.latest(), ""
        return follow(self._answers, fields)

    def _password(self, body: bytes, start: int, end: int) -> Message:
        kind = self._answers.password_kind or "PasswordMessage"
        fields: dict[str, JsonValue] = {}
        if kind == "SASLInitialResponse":
            mechanism = text(body.split(b"\0", 1)[0], "utf-8")
            if mechanism in _MECHANISMS:
                fields["mechanism"] = mechanism
        return Message(
            direction=self.direction, start=start, end=end, type=kind, exchange=self._answers.latest(), fields=fields
        )

    # Packets without a type byte

    def advance_opening(self) -> Message | None:
        """Read a startup packet ("Start-up")."""
        stream = self.stream
        head = stream.data[stream.start : stream.start + STARTUP_BYTES_MIN]
        if head and head[0]:
            what = "a TLS record" if head[0] == _TLS_HANDSHAKE else "something else"
            raise self.error(stream.position, f"{what} where a startup packet must be")
        if len(head) < STARTUP_BYTES_MIN:
            return None
        length = int.from_bytes(head[:LENGTH_BYTES], "big")
        if not STARTUP_BYTES_MIN <= length <= STARTUP_BYTES_MAX:
            raise self.error(stream.position, f"startup packet with a length of {length}")
        if stream.waiting < length:
            return None
        begin = stream.start
        start = stream.position
        body = stream.take(begin + STARTUP_BYTES_MIN, begin + length)
        if self._answers.latest() is None:
            self._answers.begin(alone=True)
        try:
            name, summary, fields = self._startup(int.from_bytes(head[LENGTH_BYTES:], "big"), body)
        except MalformedError as error:
            raise self.error(start, f"startup packet: {error}") from None
        stream.report(begin + length)
        return Message(
            direction=self.direction,
            start=start,
            end=start + length,
            type=name,
            summary=summary,
            exchange=0,
            fields=fields,
        )

    def _startup(self, code: int, body: bytes) -> tuple[str, str, dict[str, JsonValue]]:
        if code == CANCEL_REQUEST:
            fields = Fields(body, "utf-8")
            process = fields.int32()
            return "CancelRequest", f"cancel process {process}", {"process": process}
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            if body:
                raise MalformedError("bytes behind an encryption request")
            what = "SSL" if code == SSL_REQUEST else "GSSENC"
            self._answers.encryption.append((f"{what}Response", 0))
            return f"{what}Request", "", {}
        if code >> 16 != PROTOCOL_MAJOR:
            raise MalformedError(f"protocol version {code >> 16}.{code & 0xFFFF}")
        parameters = _parameters(Fields(body, "utf-8"))
        self.state = State.MESSAGES
        self._answers.expect(Due.STARTUP, 0)
        summary = " ".join(f"{name}={value}" for name, value in parameters.items())
        return "StartupMessage", summary, {"protocol": f"{code >> 16}.{code & 0xFFFF}", "parameters": parameters}


def _parameters(fields: Fields) -> dict[str, JsonValue]:
    parameters: dict[str, JsonValue] = {}
    while name := fields.string():
        parameters[name] = fields.string()
    fields.end()
    return parameters


# What each message does to the conversation: gives its exchange, and a summary that its own bytes do not hold.


def _follow_query(answers: Answers, _fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.begin(alone=True)
    answers.expect(Due.QUERY, exchange)
    return exchange, ""


def _follow_call(answers: Answers, _fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.begin(alone=True)
    answers.expect(Due.CALL, exchange)
    return exchange, ""


def _follow_parse(answers: Answers, fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.begin()
    name, sql = fields.get("statement"), fields.get("sql")
    if isinstance(name, str) and isinstance(sql, str):
        answers.catalogue.parse(name, sql)
    answers.expect(Due.PARSE, exchange)
    return exchange, ""


def _follow_bind(answers: Answers, fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.bind()
    portal, statement, results = fields.get("portal"), fields.get("statement"), fields.get("result_formats")
    summary = ""
    if isinstance(portal, str) and isinstance(statement, str) and isinstance(results, list):
        bound = answers.catalogue.bind(portal, statement, bytes(results))
        summary = bound.statement.sql or ""
    answers.expect(Due.BIND, exchange)
    return exchange, summary


def _follow_describe(answers: Answers, fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.join()
    name = fields.get("name")
    target = None
    if isinstance(name, str):
        catalogue = answers.catalogue
        target = catalogue.statement(name) if fields.get("kind") == "statement" else catalogue.portal(name)
    answers.expect(Due.DESCRIBE, exchange, target)
    return exchange, ""


def _follow_execute(answers: Answers, fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.join()
    name = fields.get("portal")
    portal = answers.catalogue.portal(name) if isinstance(name, str) else None
    answers.expect(Due.EXECUTE, exchange, portal)
    return exchange, (portal.statement.sql or "") if portal is not None else ""


def _follow_close(answers: Answers, fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.join()
    kind, name = fields.get("kind"), fields.get("name")
    if isinstance(kind, str) and isinstance(name, str):
        answers.catalogue.close(kind, name)
    answers.expect(Due.CLOSE, exchange)
    return exchange, ""


def _follow_sync(answers: Answers, _fields: Mapping[str, JsonValue]) -> tuple[int, str]:
    exchange = answers.latest()
    if exchange is None:
        exchange = answers.begin()
    answers.expect(Due.SYNC, exchange)
    answers.end_group()
    return exchange, ""


_FOLLOW: Final[Mapping[int, Callable[[Answers, Mapping[str, JsonValue]], tuple[int, str]]]] = {
    ord("B"): _follow_bind,
    ord("C"): _follow_close,
    ord("D"): _follow_describe,
    ord("E"): _follow_execute,
    ord("F"): _follow_call,
    ord("P"): _follow_parse,
    ord("Q"): _follow_query,
    ord("S"): _follow_sync,
}
