"""What was recorded, as actions: so that a policy can be tried on what agents did before it was.

What lives here: which records are messages that a policy judges, and what of them is known. What must not: finding sessions,
deciding.

The recording may lack what the enforcer would see. What was masked, lost or never recorded makes an action incomplete, so that
trying a policy never promises what enforcing it would not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.policy.action import CONNECT, UNREADABLE_HOST, Action, Principal, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.policy.http_request import RequestHead, http_action
from capd.enforcer.policy.port_range import PORT_MAX
from capd.enforcer.policy.protocol import HTTP, OF_DATABASES, WEBSOCKET, of_recorded
from capd.enforcer.policy.protocol import TLS as TLS_PROTOCOL
from capd.enforcer.policy.recorded_database import LEFT_OUT, RecordedDatabase
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import SessionRow

APPLICATION: Final = (None, "", "application")
PROTOCOLS: Final = ("http1", "http2", *OF_DATABASES)
"""A tuple, because anything may stand in a record, also what no set can be asked for."""
PACKED_BYTES: Final = 1 << 20
"""Longer than any head of HTTP/2 that a decoder takes."""
MASKED_PLACES_MAX: Final = 4_096
"""Masked places of a direction that no message has reached yet; where there are more, all is taken for masked."""
HTTP2: Final = "http2"
UPGRADED: Final = WEBSOCKET
"""What a connection is to a policy once a request has changed its protocol (enforcer/proxy/judge.py)."""
MISSING: Final = {
    "gap": "places where bytes of agents were not captured",
    "skipped": "places where no message was found in what agents said",
    "resumed": "places where a decoder began anew",
    "decoder": "places where a decoder failed",
}
"""What may hold messages that nobody can judge, by what a record calls it."""
MASKED: Final = "the recording hides a part of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A message that was recorded, as an action.

    Attributes:
        action: what is judged.
        ordinal: which message of its session; None: the connection itself.
        time_ns: when it was said.
        summary: in one line, as the agent said it: not safe for a terminal.
    """

    action: Action
    ordinal: int | None
    time_ns: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A place in a session at which messages may be that cannot be judged; `reason` says why, in the plural."""

    reason: str
    time_ns: int


def unjudged(row: SessionRow) -> str | None:
    """Say why a session is none that a policy judges; None: it is one."""
    if row.transport not in {"tcp", None}:
        return f"{row.transport} sessions, which are not redirected"
    if row.role == "server":
        return "sessions in which the agent is the server"
    if row.target.port is None or not 1 <= row.target.port <= PORT_MAX or row.target.host is None:
        return "sessions whose target is not known"
    return None


def recorded_actions(row: SessionRow, records: Iterator[Record]) -> Iterator[Recorded | Missing]:
    """Give the actions of a session that a policy judges (`unjudged`), and where some may be missing."""
    reading = _Reading(row)
    if reading.protocol not in {HTTP, *OF_DATABASES}:
        action = Action(
            principal=reading.principal, run=reading.run, target=reading.target(), protocol=reading.protocol, operation=CONNECT
        )
        yield Recorded(action=action, ordinal=None, time_ns=row.started_ns, summary=f"connect {reading.host}:{row.target.port}")
        return
    for record in records:
        if (reason := _missing(record)) is not None:
            reading.lose()
            yield Missing(reason=reason, time_ns=record.time_ns)
        elif record.direction is not Direction.REQUEST:
            reading.take_answer(record)
        elif record.kind is Kind.MASKED:
            reading.take_masked(record.body)
        elif record.kind is Kind.MESSAGE:
            yield from reading.message(record)


def _missing(record: Record) -> str | None:
    """Say whether something that the agent said may be missing here."""
    if record.direction is Direction.RESPONSE or record.body.get("layer", "application") not in APPLICATION:
        return None
    name = "gap" if record.kind is Kind.GAP else record.body.get("name") if record.kind is Kind.MARKER else None
    return MISSING.get(name) if isinstance(name, str) else None


class _Reading:
    def __init__(self, row: SessionRow) -> None:
        self.protocol = of_recorded(row.protocol)
        known: Mapping[str, Value] = row.principal or {}
        name = known.get("name")
        self.principal = (
            Principal(name=name, kind=str(known.get("kind") or "user"), verified=known.get("verified") is True)
            if isinstance(name, str)
            else None
        )
        labels = {key: value for key, value in row.labels.items() if isinstance(value, str)}
        self.run = Run(name=row.run_name, id=None if row.run is None else str(row.run), labels=labels)
        self._row = row
        # The name of a database's session is that of its database, which is no host.
        named = row.target.name if self.protocol in {HTTP, TLS_PROTOCOL} else None
        self.host = _host(named or row.target.host or "")
        self._encrypted = row.tie is not None
        self._masked: list[tuple[int, int]] = []
        self._all_masked = False
        self._database = RecordedDatabase(self.protocol) if self.protocol in OF_DATABASES else None

    def target(self) -> Target:
        """Give the target, as far as it is known now."""
        host, port = self._row.target.host or "", self._row.target.port or 0
        opened = Tls.INSPECTED if self._encrypted else Tls.NONE
        tls = Tls.PASSTHROUGH if self.protocol == TLS_PROTOCOL else opened
        return Target(host=self.host, port=port, address=address(host), tls=tls)

    def lose(self) -> None:
        """Note that something is missing: what it made of a database's session is not known."""
        if self._database is not None:
            self._database.lose()

    def take_answer(self, record: Record) -> None:
        """Note that what follows was said inside of TLS, and what the server says of the session."""
        if record.kind is Kind.MARKER and record.body.get("name") == "tls":
            self._encrypted = True
        elif record.kind is Kind.GAP:
            self.lose()
        elif record.kind is Kind.MESSAGE and self._database is not None:
            fields = record.body.get("fields")
            if isinstance(fields, Mapping):
                self._database.answered(record.body.get("type"), fields)

    def take_masked(self, body: Mapping[str, Value]) -> None:
        """Note what is hidden."""
        if body.get("layer") not in APPLICATION:
            return
        places = body.get("places")
        for place in places if isinstance(places, Sequence) and not isinstance(places, str | bytes) else ():
            match place:
                case [int(start), int(length), *_]:
                    self._masked.append((start, start + length))
        self._all_masked = self._all_masked or len(self._masked) > MASKED_PLACES_MAX

    def message(self, record: Record) -> Iterator[Recorded]:
        """Give the action of a message, if it is one."""
        body = record.body
        kind = body.get("type")
        if body.get("protocol") not in PROTOCOLS:
            return
        ordinal = body.get("ordinal")
        for action in self._actions(kind, body):
            found = Recorded(
                action=action,
                ordinal=ordinal if isinstance(ordinal, int) else None,
                time_ns=record.time_ns,
                summary=_text(body.get("summary")) or _text(kind),
            )
            yield found
            if self._database is None and _upgrades(body):
                target = action.target
                whole = Action(principal=self.principal, run=self.run, target=target, protocol=UPGRADED, operation=CONNECT)
                summary = f"WebSocket with {target.host}:{target.port}, after {found.summary}"
                yield replace(found, action=replace(whole, problems=action.problems), summary=summary)

    def _actions(self, kind: Value, body: Mapping[str, Value]) -> list[Action]:
        if self._database is not None:
            return self._said(kind, body, self._database)
        return [self._request(body)] if kind == "request" else []

    def _request(self, body: Mapping[str, Value]) -> Action:
        fields = body.get("fields")
        told: Mapping[str, Value] = fields if isinstance(fields, Mapping) else {}
        method, target = _text(told.get("method")), _text(told.get("target"))
        problems = [f"in the recording: {note}" for note in [body.get("incomplete")] if isinstance(note, str)]
        if not method or not target:
            problems.append(LEFT_OUT)
        # HTTP/2: what breaks RFC 9113 section 8, and CONNECT that is an upgrade (RFC 8441).
        problems += [f"the request is malformed: {_text(told.get('malformed'))}"] if told.get("malformed") else []
        problems += [f"the request asks for {_text(told.get('protocol'))}"] if told.get("protocol") else []
        path, _, query = target.partition("?")
        if body.get("protocol") == HTTP2:
            # Its head is packed, and hidden as a whole where anything in it is; its fields have stars in the place of that.
            hidden = self._hidden(body, PACKED_BYTES, forget=True)
            path_hidden, query_hidden = hidden and "*" in path, hidden and "*" in query
        else:  # what is hidden behind the question mark leaves method and path as they were
            path_hidden = self._hidden(body, len(f"{method} {path}"))
            query_hidden = self._hidden(body, len(f"{method} {target}"), forget=True)
        if path_hidden:
            problems.append(MASKED)
        headers = [(_text(pair[0]), _text(pair[1])) for pair in _pairs(told.get("headers"))]
        head = RequestHead(method=method, target=target, headers=headers, connection=self.target(), problems=tuple(problems))
        return http_action(head, principal=self.principal, run=self.run, query_known=not query_hidden)

    def _said(self, kind: Value, body: Mapping[str, Value], database: RecordedDatabase) -> list[Action]:
        """Give what a message to a database is judged as."""
        fields = body.get("fields")
        problems = [f"in the recording: {note}" for note in [body.get("incomplete")] if isinstance(note, str)]
        start, end = body.get("start"), body.get("end")
        length = end - start if isinstance(start, int) and isinstance(end, int) else 0
        if self._hidden(body, length, forget=True):
            problems.append(MASKED)
        opening = Action(
            principal=self.principal, run=self.run, target=self.target(), protocol=self.protocol, operation=CONNECT
        )
        return database.said(_text(kind), fields if isinstance(fields, Mapping) else {}, tuple(problems), opening)

    def _hidden(self, body: Mapping[str, Value], length: int, *, forget: bool = False) -> bool:
        """Say whether anything of a message's first bytes is hidden; what lies before its end can be forgotten."""
        start, end = body.get("start"), body.get("end")
        if not isinstance(start, int) or not isinstance(end, int):
            return True
        hidden = self._all_masked or any(first < start + length and last > start for first, last in self._masked)
        if forget:
            self._masked = [place for place in self._masked if place[1] > end]
        return hidden


def _upgrades(body: Mapping[str, Value]) -> bool:
    """Say whether a request asks for WebSocket (RFC 6455 section 4.1)."""
    fields = body.get("fields")
    headers = _pairs(fields.get("headers")) if isinstance(fields, Mapping) else []
    asked = [_text(pair[1]).strip().lower() for pair in headers if _text(pair[0]).lower() == "upgrade"]
    return WEBSOCKET in asked


def _host(text: str) -> str:
    try:
        return normal_host(f"[{text}]" if ":" in text and not text.startswith("[") else text)
    except HostNameError:
        return UNREADABLE_HOST


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


def _pairs(value: Value) -> list[Sequence[Value]]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [pair for pair in value if isinstance(pair, Sequence) and not isinstance(pair, str | bytes) and len(pair) > 1]
