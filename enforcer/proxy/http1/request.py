"""A request: what is refused whatever the policy says, and how it is written anew.

What lives here: one target from request line, Host field and SNI; framing; what may follow. What must not: bytes on their way
(layer.py), the policy.

Refused here is what two readers could take for different things, because then what is judged is not what happens: more than one
Host or Content-Length, a Host that is not the name that TLS proved or not the port that is dialled (RFC 9110 7.4: 421), targets
without one meaning, CONNECT through a connection that goes elsewhere. Folded lines, bare LF, Content-Length beside
Transfer-Encoding and their like do not come this far: decoders/http1 has an error for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from capd.decoders.message import Message
from capd.enforcer.proxy.authority import (
    BAD_REQUEST,
    EXPECTATION_FAILED,
    FORBIDDEN,
    RequestRefused,
    authority_text,
    one_host,
)
from capd.enforcer.proxy.http1.fields import (
    HOP_BY_HOP,
    Lines,
    Named,
    NominationError,
    by_name,
    disguised,
    end_to_end,
    field_lines,
    members,
    split,
)
from capd.enforcer.proxy.http1.target import Target, TargetError, read_target
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Request
from capd.enforcer.proxy.websocket.handshake import EXTENSIONS, HandshakeError, check_request

WEBSOCKET: Final = "websocket"
"""The one protocol that an upgrade is forwarded for (RFC 6455); others, `h2c` above all, no target gets to see."""
_DROPPED: Final = HOP_BY_HOP | {"host", "expect", EXTENSIONS}


@dataclass(slots=True, kw_only=True)
class Incoming:
    """A request and what of it concerns its own connection. Nobody changes it; freezing is slow.

    Attributes:
        request: to be judged and sent.
        chunked: framing of its body.
        length: of its body; None when it is chunked or has none.
        old: HTTP/1.0.
        keeps: the client wants to go on afterwards.
        expects: it waits for 100 before it sends the body.
        nominates: it says something of its connection.
    """

    request: Request
    chunked: bool
    length: int | None
    old: bool
    keeps: bool
    expects: bool
    nominates: bool = False

    @property
    def has_body(self) -> bool:
        """Whether bytes follow the head."""
        return self.chunked or bool(self.length)


class Requests:
    """Reads the requests of one connection. Field lines that are those of the request before are not read again."""

    def __init__(self, around: Surroundings) -> None:
        """Take where they would go."""
        self._around = around
        self._before: _Said | None = None

    def read(self, message: Message) -> Incoming:
        """Read a decoded request.

        Args:
            message: of type `request`, whole.

        Raises:
            RequestRefused: no policy can allow it.
        """
        said = cast("dict[str, Any]", message.fields)  # as the decoder says
        method, old = said["method"], said["version"] == "1.0"
        if method == "CONNECT":
            raise RequestRefused(FORBIDDEN, "CONNECT would lead elsewhere, where nothing could be judged")
        try:
            target = read_target(method, said["target"])
            fields = self._fields(said["headers"])
        except (TargetError, NominationError) as error:
            raise RequestRefused(BAD_REQUEST, str(error)) from error
        if fields.refused is not None:
            raise RequestRefused(BAD_REQUEST, fields.refused)
        if not fields.hosts and not old:
            raise RequestRefused(BAD_REQUEST, "no Host field")
        request = Request(
            method=method,
            host=self._host(target, fields),
            path=target.path,
            query=target.query,
            fields=fields.kept,
            upgrade=fields.upgrade,
        )
        chunked, length = said["framing"] == "chunked", said["length"]
        body = chunked or bool(length)
        if request.upgrade is not None:
            _check_handshake(method, fields.named, body=body)
        keeps = not old and "close" not in fields.nominated
        expects = bool(fields.expected) and expects_continue(fields.named, old=old) and body
        return Incoming(
            request=request,
            chunked=chunked,
            length=length,
            old=old,
            keeps=keeps,
            expects=expects,
            nominates=bool(fields.nominated),
        )

    def _fields(self, sent: list[list[str]]) -> _Said:
        """Give what field lines say. The decoder gives the same object for the same lines; raises NominationError."""
        if self._before is None or self._before.sent is not sent:
            self._before = _read_fields(sent)
        return self._before

    def _host(self, target: Target, fields: _Said) -> str:
        if target.authority is not None or target.scheme is not None:
            return one_host(
                [*([] if target.authority is None else [target.authority]), *fields.hosts], target.scheme, self._around
            )
        if fields.host is None:
            fields.host = one_host(fields.hosts, None, self._around)
        return fields.host


@dataclass(slots=True, kw_only=True)
class _Said:
    """What the field lines of a request say, whatever its first line.

    Attributes:
        sent: as decoded.
        named: values by name.
        nominated: what the Connection field names.
        kept: those that go across.
        hosts: values of Host fields.
        expected: whether there is an Expect field.
        upgrade: WEBSOCKET where it is asked for.
        refused: why no request with these can be allowed, or None.
        host: that they name, on their connection; None: not asked yet.
    """

    sent: list[list[str]]
    named: Named
    nominated: Sequence[str]
    kept: tuple[tuple[str, str], ...]
    hosts: Sequence[str]
    expected: bool
    upgrade: str | None
    refused: str | None
    host: str | None = None


def _read_fields(sent: list[list[str]]) -> _Said:
    named: Named
    kept, named = split(sent, _DROPPED)
    nominated = members(named, "connection")
    if nominated:
        kept = end_to_end(kept, nominated, _DROPPED)
    upgrades = "upgrade" in nominated and members(named, "upgrade") == [WEBSOCKET]
    if upgrades:
        named = by_name([(name, value) for name, value in sent])
    return _Said(
        sent=sent,
        named=named,
        nominated=nominated,
        kept=tuple(kept),
        hosts=[value.strip(" \t") for value in named.get("host", ())],
        expected="expect" in named,
        upgrade=WEBSOCKET if upgrades else None,
        refused=doubled(named),
    )


def _check_handshake(method: str, named: Named, *, body: bool) -> None:
    try:
        check_request(method, named, body=body)
    except HandshakeError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error


def doubled(named: Named) -> str | None:
    """Say what leaves open where a body ends, or what a field is; None: nothing does."""
    lengths = named.get("content-length", ())
    if len(lengths) > 1 or any("," in value for value in lengths):
        return "more than one Content-Length"
    taken = disguised(named)
    return f"some servers take the field {taken[0]} for another one" if taken else None


def refuse_doubles(named: Named) -> None:
    """Refuse that. Raises RequestRefused."""
    reason = doubled(named)
    if reason is not None:
        raise RequestRefused(BAD_REQUEST, reason)


def expects_continue(named: Named, *, old: bool) -> bool:
    """Say whether the client waits for 100. Raises RequestRefused: for something else."""
    expected = members(named, "expect")
    if any(member != "100-continue" for member in expected):
        raise RequestRefused(EXPECTATION_FAILED, f"nobody can meet the expectation {', '.join(expected)}")
    return bool(expected) and not old


def request_head(
    incoming: Incoming, around: Surroundings, *, upgrade: bool, expects: bool, lines: Lines | None = None
) -> bytes:
    """Write the head of an allowed request.

    Args:
        incoming: the request.
        around: for the port, which the Host field names where it is not the scheme's own.
        upgrade: whether it may change the protocol.
        expects: whether the target is asked before the body.
        lines: writes the fields that go across.
    """
    request = incoming.request
    host = authority_text(request.host, around)
    target = request.path if request.query is None else f"{request.path}?{request.query}"
    kept = (lines or Lines()).text(request.fields)
    own: list[tuple[str, str]] = []
    if incoming.chunked:
        own.append(("transfer-encoding", "chunked"))
    elif incoming.length is not None:
        own.append(("content-length", str(incoming.length)))
    if expects:
        own.append(("expect", "100-continue"))
    if upgrade and request.upgrade is not None:
        own += [("connection", "upgrade"), ("upgrade", request.upgrade)]
    elif not incoming.keeps:
        own.append(("connection", "close"))
    ours = field_lines(own) if own else ""
    return f"{request.method} {target} HTTP/1.1\r\nhost: {host}\r\n{kept}{ours}\r\n".encode("latin-1")


def summary(said: Mapping[str, object]) -> str:
    """Give a request line for a log, as far as it is known."""
    return " ".join(str(said[key]) for key in ("method", "target") if key in said)
