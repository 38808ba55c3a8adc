"""Whose a redirected datagram is: the cgroup in which its socket was made, by the kernel's word.

What lives here: asking sock_diag (sock_diag(7); include/uapi/linux/inet_diag.h). What must not: which run a cgroup is; TCP,
of which both ends are known (enforcer/proxy/flow.py).

Of a datagram only the peer is known. Where the answer is not certain there is none, and who asks refuses.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from capd.enforcer.forcing.attributes import by_kind

End: TypeAlias = tuple[str, int]
"""Address in text, without a zone, and port."""

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
REQUEST, DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
CGROUP_ID: Final = 21
"""INET_DIAG_CGROUP_ID (Linux 5.9)."""
ALL_STATES: Final = 0xFFFFFFFF
ANSWER_SECONDS_MAX: Final = 2.0
RECEIVE_BYTES: Final = 1 << 16
NO_COOKIE: Final = b"\xff" * 8
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct(">HH")
_ENDS_BYTES: Final = 48
"""struct inet_diag_sockid: ports, two addresses of 16 bytes, interface, cookie."""
_MESSAGE_BYTES: Final = 4 + _ENDS_BYTES + 20
"""struct inet_diag_msg: four bytes, the ends, five numbers."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A socket's.

    Attributes:
        cgroup: the kernel's number of the cgroup in which it was made.
        user: number of the user who made it.
        inode: of the socket.
    """

    cgroup: int
    user: int
    inode: int


class SocketOwners:
    """Asks the kernel about the sockets of one network namespace. One thread calls it."""

    def __init__(self, made: socket.socket | None = None) -> None:
        """Take a netlink socket, which asks in the namespace in which it was made; None: open one here.

        Raises:
            OSError: the kernel has no sock_diag.
        """
        self._sequence = 0
        self._socket = made or socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._socket.settimeout(ANSWER_SECONDS_MAX)

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def of_datagram(self, family: socket.AddressFamily, local: End) -> Owner | None:
        """Give the owner of a UDP socket by its own end.

        Returns:
            None when there is no such socket any more, or there are several of different cgroups.
        """
        found = set()
        for kind, body in self._ask(family, socket.IPPROTO_UDP, bytes(40) + NO_COOKIE, DUMP):
            if kind == SOCK_DIAG_BY_FAMILY and _PORTS.unpack_from(body, 4)[0] == local[1] and _is_at(body, local[0]):
                found.add(_owner(body))
        cgroups = {owner.cgroup if owner else None for owner in found}
        return found.pop() if len(cgroups) == 1 else None

    def _ask(self, family: int, protocol: int, ends: bytes, flags: int) -> Iterator[tuple[int, bytes]]:
        """Give the answers: kind and body. An error is none, a socket that is not there for one."""
        self._sequence += 1
        body = _REQUEST.pack(family, protocol, 0, ALL_STATES) + ends
        header = _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, REQUEST | flags, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            position = 0
            while position + _HEADER.size <= len(data):
                length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, position)
                if sequence == self._sequence:
                    if kind in {NLMSG_ERROR, NLMSG_DONE}:
                        return
                    yield kind, data[position + _HEADER.size : position + length]
                    if not flags:
                        return
                position += length + -length % 4


def _packed(address: IPv4Address | IPv6Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _is_at(body: bytes, host: str) -> bool:
    """Say whether a socket has an address, or all."""
    own = body[8:24]
    return own in {_packed(ip_address(host)), bytes(16)}


def _owner(body: bytes) -> Owner | None:
    if len(body) < _MESSAGE_BYTES:
        return None
    user, inode = struct.unpack_from("=II", body, 4 + _ENDS_BYTES + 12)
    cgroup = by_kind(body[_MESSAGE_BYTES:]).get(CGROUP_ID)
    return None if cgroup is None else Owner(cgroup=int.from_bytes(cgroup, "little"), user=user, inode=inode)
