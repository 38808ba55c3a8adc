"""What the witness reads of an OPEN record, which anything may stand in.

What lives here: that. What must not: what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from capd.daemon.witness.matching import NOT_OPENED
from capd.recording.record import Value

COOKIES: Final = 1 << 62
"""From here on the probes' numbers of sockets are no cookies (probes/bpf/sockets.bpf.c)."""
MID_STREAM: Final = "it began before capture"
UUID_BYTES: Final = 16


def is_outward(body: Mapping[str, Value]) -> bool:
    """Say whether it is of a connection that goes through the enforcer: one of TCP that the run did not accept."""
    return body.get("transport") == "tcp" and body.get("role") != "server"


def incomparable_of(body: Mapping[str, Value], before: str | None) -> str | None:
    """Say why bytes cannot be compared, as far as it tells; `before`: what was said so far."""
    if body.get("role") != "client":
        return NOT_OPENED
    if body.get("mid_stream"):
        return MID_STREAM
    return None if before == NOT_OPENED else before


def cookie_of(body: Mapping[str, Value]) -> int | None:
    """Give the kernel's number of the socket; None in the classic tier."""
    socket = body.get("socket")
    return socket if isinstance(socket, int) and 0 < socket < COOKIES else None


def ends_of(value: Value) -> tuple[str, int] | None:
    """Give address and port of an end."""
    if not isinstance(value, dict):
        return None
    host, port = value.get("host"), value.get("port")
    return (host, port) if isinstance(host, str) and isinstance(port, int) else None


def uuid_of(value: Value) -> UUID | None:
    """Give an id."""
    return UUID(bytes=value) if isinstance(value, bytes) and len(value) == UUID_BYTES else None
