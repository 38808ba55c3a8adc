"""What the witness reads of an OPEN record, which anything may stand in.

What lives here: that. What must not: what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from capd.recording.record import Value

COOKIES: Final = 1 << 62
"""From here on the probes' numbers of sockets are no cookies (probes/bpf/sockets.bpf.c)."""
UUID_BYTES: Final = 16


def is_outward(body: Mapping[str, Value]) -> bool:
    """Say whether it is of a connection that a run makes, which goes through the enforcer."""
    return body.get("transport") == "tcp" and body.get("role") == "client"


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
