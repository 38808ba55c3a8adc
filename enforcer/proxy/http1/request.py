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
from typing import Final, cast

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
    Named,
    NominationError,
    by_name,
    disguised,
    end_to_end,
    members,
    written,
)
from capd.enforcer.proxy.http1.target import TargetError, read_target
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Request
from capd.enforcer.proxy.websocket.handshake import EXTENSIONS, HandshakeError, check_request

WEBSOCKET: Final = "websocket"
"""The one protocol that an upgrade is forwarded for (RFC 6455); others, `h2c` above all, no target gets to see."""
_DROPPED: Final = HOP_BY_HOP | {"host", "expect", EXTENSIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request and what of it concerns its own connection.

    Attributes:
        request: to be judged and sent.
        chunked: framing of its body.
        length: of its body; None when it is chunked or has none.
        old: HTTP/1.0.
        keeps: the client wants to go on afterwards.
        expects: it waits for 100 before it sends the body.
    """

    request: Request
    chunked: bool
    length: int | None
    old: bool
    keeps: bool
    expects: bool

    @property
    def has_body(self) -> bool:
        """Whether bytes follow the head."""
        return self.chunked or bool(self.length)


def read_request(message: Message, around: Surroundings) -> Incoming:
    """Read a decoded request.

    Args:
        message: of type `request`, whole.
        around: where it would go.

    Raises:
        RequestRefused: no policy can allow it.
    """
    said = message.fields
    method, version = str(said["method"]), str(said["version"])
    fields = [(name, value) for name, value in cast("Sequence[tuple[str, str]]", said["headers"])]
    if method == "CONNECT":
        raise RequestRefused(FORBIDDEN, "CONNECT would lead elsewhere, where nothing could be judged")
    named = by_name(fields)
    nominated = members(named, "connection")
    try:
        target = read_target(method, str(said["target"]))
        kept = end_to_end(fields, nominated, _DROPPED)
    except (TargetError, NominationError) as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error
    refuse_doubles(named)
    request = Request(
        method=method,
        host=one_host(
            [*([] if target.authority is None else [target.authority]), *_hosts(named, version)], target.scheme, around
        ),
        path=target.path,
        query=target.query,
        fields=tuple(kept),
        upgrade=WEBSOCKET if "upgrade" in nominated and members(named, "upgrade") == [WEBSOCKET] else None,
    )
    old = version == "1.0"
    if request.upgrade is not None:
        _check_handshake(method, named, body=said["framing"] == "chunked" or bool(said["length"]))
    return Incoming(
        request=request,
        chunked=said["framing"] == "chunked",
        length=cast("int | None", said["length"]),
        old=old,
        keeps=not old and "close" not in nominated,
        expects=expects_continue(named, old=old) and (said["framing"] == "chunked" or bool(said["length"])),
    )


def _check_handshake(method: str, named: Named, *, body: bool) -> None:
    try:
        check_request(method, named, body=body)
    except HandshakeError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error


def refuse_doubles(named: Named) -> None:
    """Refuse what leaves open where a body ends, or what a field is. Raises RequestRefused."""
    lengths = named.get("content-length", ())
    if len(lengths) > 1 or any("," in value for value in lengths):
        raise RequestRefused(BAD_REQUEST, "more than one Content-Length")
    taken = disguised(named)
    if taken:
        raise RequestRefused(BAD_REQUEST, f"some servers take the field {taken[0]} for another one")


def expects_continue(named: Named, *, old: bool) -> bool:
    """Say whether the client waits for 100. Raises RequestRefused: for something else."""
    expected = members(named, "expect")
    if any(member != "100-continue" for member in expected):
        raise RequestRefused(EXPECTATION_FAILED, f"nobody can meet the expectation {', '.join(expected)}")
    return bool(expected) and not old


def _hosts(named: Named, version: str) -> list[str]:
    hosts = named.get("host", ())
    if not hosts and version != "1.0":
        raise RequestRefused(BAD_REQUEST, "no Host field")
    return [value.strip(" \t") for value in hosts]


def request_head(incoming: Incoming, around: Surroundings, *, upgrade: bool, expects: bool) -> bytes:
    """Write the head of an allowed request.

    Args:
        incoming: the request.
        around: for the port, which the Host field names where it is not the scheme's own.
        upgrade: whether it may change the protocol.
        expects: whether the target is asked before the body.
    """
    request = incoming.request
    host = authority_text(request.host, around)
    target = request.path if request.query is None else f"{request.path}?{request.query}"
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
    return written(f"{request.method} {target} HTTP/1.1", [("host", host), *request.fields, *own])


def summary(said: Mapping[str, object]) -> str:
    """Give a request line for a log, as far as it is known."""
    return " ".join(str(said[key]) for key in ("method", "target") if key in said)
