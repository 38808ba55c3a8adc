"""Whose connection it is, and where it wanted to go: what the kernel knows of a redirected TCP connection.

What lives here: SO_ORIGINAL_DST, and one question to sock_diag(7). What must not: which run a cgroup belongs to.

TCP has no SO_PEERCRED. But the agent's own socket is on this host, known by its addresses: from the agent's port to where it
believes to be connected. sock_diag finds it and tells its owner, its cookie, and the cgroup that it was created in
(INET_DIAG_CGROUP_ID, Linux 5.9; the structures are in linux/inet_diag.h). The agent can change none of them afterwards. A
socket that is not found, since it was closed at once or is in another network namespace than is asked in, belongs to nobody.
One that only tries to connect is passed over: it may want the ends that the one who was connected has just left.
Where there is no such connection the kernel answers with whoever listens at the first end (inet_diag_find_one_icsk): that one
is passed over.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

SO_ORIGINAL_DST: Final = 80
"""linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h: the same number at SOL_IP and SOL_IPV6."""
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 1
INET_DIAG_CGROUP_ID: Final = 21
ANY_STATE: Final = 0xFFFFFFFF
ESTABLISHED: Final = 1
CLOSING: Final = frozenset({4, 5, 8, 9, 11})
"""FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (linux/tcp_states.h)."""
NO_COOKIE: Final = 0xFFFFFFFF
ANSWER_BYTES_MAX: Final = 8_192
ANSWER_SECONDS_MAX: Final = 1.0
"""The kernel answers before `send` returns; a limit all the same, since every connection waits for it."""

_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI2H16s16s3I")
_MESSAGE_BYTES: Final = 72
_ENDS: Final = struct.Struct("!2H16s16s")
_STATE_AT: Final = 1
_ENDS_AT: Final = 4
_MAPPED: Final = b"\0" * 10 + b"\xff" * 2
"""Before an IPv4 address of a socket of IPv6 (RFC 4291 2.5.5.2)."""
_COOKIE_AT: Final = 44
_UID_AT: Final = 64
_ATTRIBUTE: Final = struct.Struct("=HH")
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")

Endpoint = tuple[str, int]
"""Address in text, and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose socket it is.

    Attributes:
        uid: of who created it.
        cookie: the socket's number in this boot, as probes see it too.
        cgroup: id of the cgroup that it was created in.
    """

    uid: int
    cookie: int
    cgroup: int


def original_destination(connection: socket.socket) -> Endpoint | None:
    """Say where a redirected connection wanted to go; None: it was not redirected.

    IPv4 that is written as IPv6 comes out as IPv4: both listeners are of one family only.
    """
    inet6 = connection.family == socket.AF_INET6
    level, size = (socket.IPPROTO_IPV6, _SOCKADDR_IN6.size) if inet6 else (socket.IPPROTO_IP, _SOCKADDR_IN.size)
    try:
        raw = connection.getsockopt(level, SO_ORIGINAL_DST, size)
    except OSError:
        return None
    port, address = (_SOCKADDR_IN6 if inet6 else _SOCKADDR_IN).unpack(raw)
    return socket.inet_ntop(connection.family, address), port


class SocketOwners:
    """Asks the kernel about sockets. One netlink socket, one question at a time."""

    def __init__(self, made: socket.socket | None = None) -> None:
        """Take a netlink socket, which asks in the network namespace in which it was made; None: open one here.

        Raises:
            OSError: the kernel has no sock_diag.
        """
        self._socket = made or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._socket.settimeout(ANSWER_SECONDS_MAX)
        self._sequence = 0

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def find(self, own: Endpoint, peer: Endpoint) -> Owner | None:
        """Give the owner of a TCP socket.

        Args:
            own: the socket's own end.
            peer: what it is connected to, as it believes.

        Raises:
            OSError: the kernel did not answer.
        """
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._socket.send(_question(own, peer, self._sequence))
        while True:
            answer = self._socket.recv(ANSWER_BYTES_MAX)
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(answer)
            if sequence == self._sequence:
                return _owner(kind, answer[_HEADER.size : length], own, peer)


def _question(own: Endpoint, peer: Endpoint, sequence: int) -> bytes:
    family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
    addresses = [socket.inet_pton(family, address).ljust(16, b"\0") for address in (own[0], peer[0])]
    ports = [socket.htons(port) for port in (own[1], peer[1])]
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, ANY_STATE, *ports, *addresses, 0, NO_COOKIE, NO_COOKIE)
    return _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, sequence, 0) + body


def _owner(kind: int, body: bytes, own: Endpoint, peer: Endpoint) -> Owner | None:
    if kind == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", body)
        if -code in (errno.ENOENT, errno.ESTALE):
            return None
        raise OSError(-code, os.strerror(-code))
    if body[_STATE_AT] != ESTABLISHED and body[_STATE_AT] not in CLOSING:
        return None
    if not _connects(body, own, peer):
        return None
    low, high = struct.unpack_from("=II", body, _COOKIE_AT)
    (uid,) = struct.unpack_from("=I", body, _UID_AT)
    cgroup = _attribute(body[_MESSAGE_BYTES:], INET_DIAG_CGROUP_ID)
    if cgroup is None:
        return None
    return Owner(uid=uid, cookie=high << 32 | low, cgroup=int.from_bytes(cgroup[:8], "little"))


def _connects(body: bytes, own: Endpoint, peer: Endpoint) -> bool:
    """Say whether the socket that was told is the one that was asked for."""
    own_port, peer_port, *addresses = _ENDS.unpack_from(body, _ENDS_AT)
    if (own_port, peer_port) != (own[1], peer[1]):
        return False
    return all(told in _forms(end[0]) for told, end in zip(addresses, (own, peer), strict=True))


def _forms(address: str) -> tuple[bytes, ...]:
    """Give an address as sockets of either family have it."""
    if ":" in address:
        return (socket.inet_pton(socket.AF_INET6, address),)
    packed = socket.inet_pton(socket.AF_INET, address)
    return packed.ljust(16, b"\0"), _MAPPED + packed


def _attribute(data: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind == wanted:
            return data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return None
