"""A request: what is refused whatever the policy says, and how it is written anew.

What lives here: one target from request line, Host field and SNI; framing; what may follow. What must not: bytes on their way
(layer.py), the policy.

Refused here is what two readers could take for different things, because then what is judged is not what happens: more than one
Host or Content-Length, a Host that is not the name that TLS proved or not the port that is dialled (RFC 9110 7.4: 421), targets
without one meaning, CONNECT through a connection that goes elsewhere. Folded lines, bare LF, Content-Length beside
Transfer-Encoding and their like do not come this far: decoders/http1 has an error for each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from capd.decoders.message import Message
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import HostNameError, normal_host
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
from capd.enforcer.proxy.http1.target import Target, TargetError, read_target
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Request

WEBSOCKET: Final = "websocket"
"""The one protocol that an upgrade is forwarded for (RFC 6455); others, `h2c` above all, no target gets to see."""
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
EXPECTATION_FAILED: Final = 417
MISDIRECTED: Final = 421
AUTHORITIES_MAX: Final = 1_024
"""Remembered; agents ask the same few hosts again and again."""
_DROPPED: Final = HOP_BY_HOP | {"host", "expect"}
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/?#]+)(?::([0-9]{1,5}))?", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class RequestRefused(Exception):  # noqa: N818 - an answer to a client, no failure of ours
    """A request that is never forwarded.

    Attributes:
        status: that it is answered with.
        reason: for a person.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


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
    _refuse_doubles(named)
    request = Request(
        method=method,
        host=_host(target, named, version, around),
        path=target.path,
        query=target.query,
        fields=tuple(kept),
        upgrade=WEBSOCKET if "upgrade" in nominated and members(named, "upgrade") == [WEBSOCKET] else None,
    )
    old = version == "1.0"
    return Incoming(
        request=request,
        chunked=said["framing"] == "chunked",
        length=cast("int | None", said["length"]),
        old=old,
        keeps=not old and "close" not in nominated,
        expects=_expects(named, old=old) and (said["framing"] == "chunked" or bool(said["length"])),
    )


def _refuse_doubles(named: Named) -> None:
    lengths = named.get("content-length", ())
    if len(lengths) > 1 or any("," in value for value in lengths):
        raise RequestRefused(BAD_REQUEST, "more than one Content-Length")
    taken = disguised(named)
    if taken:
        raise RequestRefused(BAD_REQUEST, f"some servers take the field {taken[0]} for another one")


def _expects(named: Named, *, old: bool) -> bool:
    expected = members(named, "expect")
    if any(member != "100-continue" for member in expected):
        raise RequestRefused(EXPECTATION_FAILED, f"nobody can meet the expectation {', '.join(expected)}")
    return bool(expected) and not old


def _host(target: Target, named_fields: Named, version: str, around: Surroundings) -> str:
    """Give the one host that everything names (RFC 9112 3.2)."""
    scheme = "https" if around.inspected else "http"
    hosts = named_fields.get("host", ())
    if not hosts and version != "1.0":
        raise RequestRefused(BAD_REQUEST, "no Host field")
    named = [_authority(value.strip(" \t"), scheme, around) for value in hosts]
    if target.authority is not None:
        if target.scheme != scheme:
            raise RequestRefused(MISDIRECTED, f"the request is for {target.scheme}, its connection is {scheme}")
        named.append(_authority(target.authority, scheme, around))
    if around.server_name is not None:
        named.append(around.server_name)
    different = sorted(set(named))
    if len(different) > 1:
        raise RequestRefused(MISDIRECTED, f"the request names {' and '.join(different)} for its target")
    host = different[0] if different else around.destination.address
    if _is_address(host) and host != around.destination.address:
        raise RequestRefused(MISDIRECTED, f"the request is for {host}, its connection goes to {around.destination.address}")
    return host


def _authority(text: str, scheme: str, around: Surroundings) -> str:
    try:
        host, named_port = _read_authority(text)
    except HostNameError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error
    port = named_port or _DEFAULT_PORTS[scheme]
    if port != around.destination.port:
        reason = f"the request is for port {port}, its connection goes to port {around.destination.port}"
        raise RequestRefused(MISDIRECTED, reason)
    return host


@lru_cache(maxsize=AUTHORITIES_MAX)
def _read_authority(text: str) -> tuple[str, int | None]:
    """Give host, normalised, and port. Raises HostNameError, which is not remembered: what is, is short."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise HostNameError("the Host is none that everybody reads alike")
    return normal_host(found[1]), int(found[2]) if found[2] else None


def _is_address(host: str) -> bool:
    """Say whether a normalised host is an address: no name ends with a number."""
    return ":" in host or (host[-1:].isdigit() and address(host) is not None)


def request_head(incoming: Incoming, around: Surroundings, *, upgrade: bool, expects: bool) -> bytes:
    """Write the head of an allowed request.

    Args:
        incoming: the request.
        around: for the port, which the Host field names where it is not the scheme's own.
        upgrade: whether it may change the protocol.
        expects: whether the target is asked before the body.
    """
    request = incoming.request
    host = f"[{request.host}]" if ":" in request.host else request.host
    port = around.destination.port
    if port != _DEFAULT_PORTS["https" if around.inspected else "http"]:
        host = f"{host}:{port}"
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
