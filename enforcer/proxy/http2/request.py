"""A request of a stream: what is refused whatever the policy says, and how it is written anew.

What lives here: RFC 9113 8.3.1 and 8.5, over the rules that requests of HTTP/1.1 have too. What must not: streams, the policy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from capd.enforcer.proxy.authority import (
    BAD_REQUEST,
    FORBIDDEN,
    RequestRefused,
    authority_text,
    one_host,
    scheme_of,
)
from capd.enforcer.proxy.http1.fields import HOP_BY_HOP, by_name
from capd.enforcer.proxy.http1.request import Incoming, expects_continue, refuse_doubles
from capd.enforcer.proxy.http1.target import TargetError, read_target
from capd.enforcer.proxy.http2.fields import FieldsError, Section, read_section
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Request

PSEUDO: Final = frozenset({":method", ":scheme", ":authority", ":path", ":protocol"})
GRPC: Final = "application/grpc"
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)
_DROPPED: Final = HOP_BY_HOP | {"host", "expect", "cookie"}
Fields = list[tuple[str, str]]


def read_request(raw: Sequence[tuple[bytes, bytes]], around: Surroundings, *, ends: bool) -> Incoming:
    """Read the head of a stream.

    Args:
        raw: its fields.
        around: where it would go.
        ends: nothing follows it.

    Raises:
        RequestRefused: no policy can allow it.
    """
    try:
        section = read_section(raw, PSEUDO)
    except FieldsError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error
    method = _method(section)
    named = by_name(section.fields)
    refuse_doubles(named)
    if ends and section.length:
        raise RequestRefused(BAD_REQUEST, "the body is shorter than its content-length")
    host = one_host(_names(section), section.pseudo.get(":scheme", "").lower(), around)
    try:
        target = read_target(method, section.pseudo[":path"])
    except TargetError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error
    request = Request(method=method, host=host, path=target.path, query=target.query, fields=_kept(section))
    chunked = section.length is None and not ends
    expects = expects_continue(named, old=False) and (chunked or bool(section.length))
    return Incoming(request=request, chunked=chunked, length=section.length, old=False, keeps=True, expects=expects)


def _method(section: Section) -> str:
    """Give the method of a request that has what it must have."""
    method = section.pseudo.get(":method", "")
    if method == "CONNECT" or ":protocol" in section.pseudo:
        raise RequestRefused(FORBIDDEN, "CONNECT would lead elsewhere, where nothing could be judged")
    if _METHOD.fullmatch(method) is None:
        raise RequestRefused(BAD_REQUEST, "the method is none")
    path = section.pseudo.get(":path", "")
    if not path.startswith("/") and path != "*":
        raise RequestRefused(BAD_REQUEST, "the path is none")
    if ":scheme" not in section.pseudo:
        raise RequestRefused(BAD_REQUEST, "no scheme")
    return method


def _names(section: Section) -> list[str]:
    hosts = [value for name, value in section.fields if name == "host"]
    if len(hosts) > 1:
        raise RequestRefused(BAD_REQUEST, "more than one Host field")
    named = [*([section.pseudo[":authority"]] if ":authority" in section.pseudo else []), *hosts]
    if not named:
        raise RequestRefused(BAD_REQUEST, "neither :authority nor a Host field")
    return named


def _kept(section: Section) -> tuple[tuple[str, str], ...]:
    """Give what goes on; a cookie that came in crumbs is one field again (RFC 9113 8.2.3)."""
    kept = [pair for pair in section.fields if pair[0] not in _DROPPED]
    crumbs = [value for name, value in section.fields if name == "cookie"]
    return (*kept, ("cookie", "; ".join(crumbs))) if crumbs else tuple(kept)


def request_fields(incoming: Incoming, around: Surroundings, *, trailers: bool, expects: bool) -> Fields:
    """Write the head of an allowed request for a target that speaks HTTP/2.

    Args:
        incoming: the request.
        around: for the port and the scheme.
        trailers: whether the client takes trailers.
        expects: whether the target is asked before the body.
    """
    request = incoming.request
    target = request.path if request.query is None else f"{request.path}?{request.query}"
    own = [
        (":method", request.method),
        (":scheme", scheme_of(around)),
        (":authority", authority_text(request.host, around)),
        (":path", target),
    ]
    fields = [(name.lower(), value) for name, value in request.fields]
    if incoming.length is not None:
        fields.append(("content-length", str(incoming.length)))
    if trailers:
        fields.append(("te", "trailers"))
    if expects:
        fields.append(("expect", "100-continue"))
    return own + fields


def takes_trailers(raw: Sequence[tuple[bytes, bytes]]) -> bool:
    """Say whether a client takes trailers, which gRPC's must."""
    return any(name == b"te" for name, _ in raw)


def is_grpc(request: Request) -> bool:
    """Say whether a request is a call of gRPC."""
    return any(name.lower() == "content-type" and value.startswith(GRPC) for name, value in request.fields)


def summary(raw: Sequence[tuple[bytes, bytes]]) -> str:
    """Give a request line for a log, as far as it is known."""
    found = dict(raw)
    return " ".join(str(found[name], "latin-1") for name in (b":method", b":path") if name in found)
