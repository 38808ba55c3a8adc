"""Socket addresses as the probes give them, in the words of a record.

What lives here: (family, port, 16 bytes) to {host, port}, transport names. What must not: name resolution.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from capd.probes.layouts import SocketOpenEvent
from capd.recording.record import Value

IPV4_BYTES: Final = 4
IPPROTO_UDP: Final = 17
SOCK_DGRAM: Final = 2


def endpoint(family: int, port: int, address: bytes) -> dict[str, Value]:
    """Give `host` and `port` of an internet address; IPv4 mapped into IPv6 is shown as the IPv4 address that it is."""
    if family == socket.AF_INET:
        return {"host": str(ipaddress.IPv4Address(address[:IPV4_BYTES])), "port": port}
    whole = ipaddress.IPv6Address(address)
    return {"host": str(whole.ipv4_mapped or whole), "port": port}


def unix_endpoint(path: bytes) -> dict[str, Value]:
    """Give the address of a unix socket; an abstract name is shown with "@" for its leading NUL, as ss(8) does."""
    text = path.rstrip(b"\0") if not path.startswith(b"\0") else b"@" + path[1:].rstrip(b"\0")
    return {"host": text.decode("utf-8", "backslashreplace"), "port": None}


def transport(event: SocketOpenEvent) -> str:
    """Give "unix", "udp" or "tcp"."""
    if event.family == socket.AF_UNIX:
        return "unix"
    return "udp" if event.protocol == IPPROTO_UDP or event.type == SOCK_DGRAM else "tcp"


def local_of(event: SocketOpenEvent) -> dict[str, Value] | None:
    """Give the own address of a socket, or None when it has none yet."""
    if event.family == socket.AF_UNIX:
        return None
    return endpoint(event.family, *event.local) if event.local[0] else None


def target_of(event: SocketOpenEvent) -> dict[str, Value] | None:
    """Give the peer's address, or None when it is not connected."""
    if event.family == socket.AF_UNIX:
        return unix_endpoint(event.path) if event.path else None
    return endpoint(event.family, *event.peer) if event.peer[0] else None
