"""The enforcer's listeners, which outlive it: the service manager keeps them while it is started anew.

What lives here: binding, taking back what was kept, having it kept. What must not: who serves which (enforcer_role.py), the
protocol of the manager (descriptor_store.py).

What agents begin meanwhile waits in the queue of a listener instead of being refused. Without a service manager nothing is
kept.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.daemon import descriptor_store
from capd.daemon.errors import PortTakenError
from capd.enforcer.proxy.shell import BACKLOG

NAME: Final = "capd-listener"
"""Of all of them at the service manager: which is which, their own addresses say."""
LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Where a redirect on the output of this host leads (nft(8), `redirect`)."""

SO_NETNS_COOKIE: Final = 71
"""asm-generic/socket.h: which network namespace a socket is of, for whoever has it (Linux 5.14)."""
COOKIE_BYTES: Final = 8

Place = tuple[int, int, str, int]
"""Family, kind, address and port."""


class Listeners:
    """Gives sockets that are bound: kept ones first."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what was kept; `environment`: of this process, from which the variables of the protocol are removed."""
        received = descriptor_store.received(environment)
        self._kept: dict[Place, list[socket.socket]] = {}
        for descriptor in received.pop(NAME, []):
            made = _listener(descriptor)
            if made is not None:
                self._kept.setdefault(_place(made), []).append(made)
        for others in received.values():
            descriptor_store.close_all(others)
        self._given: list[socket.socket] = []
        self.taken = 0
        """How many of those that were given had been kept."""

    def bind(self, port: int, kind: socket.SocketKind) -> list[socket.socket]:
        """Give a socket for each loopback address.

        There is one for every worker, among whose queues the kernel divides those that come; each accepts from all.

        Raises:
            PortTakenError: somebody else listens there.
        """
        found = []
        for family, address in LOOPBACK:
            if waiting := self._kept.get((family, kind, address, port)):
                found.append(waiting.pop(0))
                self.taken += 1
                continue
            try:
                found.append(_bound(family, address, port, kind))
            except OSError as error:
                if family == socket.AF_INET6 and not _has_ipv6():
                    continue  # a redirect there finds nobody, which refuses it
                raise PortTakenError(address, port, error) from error
        self._given += found
        return found

    def keep(self, say: Callable[[str], None]) -> None:
        """Have those kept that were given, and let go of the others, which nobody would serve. `say`: tells the operator."""
        if self.taken:
            say(f"capd enforcer: goes on with {self.taken} listeners of the enforcer before")
        descriptor_store.let_go(NAME)
        for left in (one for ones in self._kept.values() for one in ones):
            left.close()
        self._kept.clear()
        descriptor_store.keep(NAME, [one.fileno() for one in self._given])


def _bound(family: int, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            # Of datagrams this would let others bind there too, and hear what is meant for us.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        if kind is socket.SOCK_STREAM:
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listener(descriptor: int) -> socket.socket | None:
    """Give a socket that was kept if it is one of ours: of this network namespace, bound, and listening if it is to."""
    try:
        made = socket.socket(fileno=descriptor)
    except OSError:
        descriptor_store.close_all([descriptor])
        return None
    with suppress(OSError):
        listens = made.type != socket.SOCK_STREAM or made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        internet = made.family in {socket.AF_INET, socket.AF_INET6} and made.type in {socket.SOCK_STREAM, socket.SOCK_DGRAM}
        if internet and listens and _is_here(made):
            return made
    made.close()
    return None


def _is_here(made: socket.socket) -> bool:
    """Say whether a socket is of our network namespace, as far as the kernel tells."""
    with socket.socket(made.family, socket.SOCK_DGRAM) as own:
        try:
            cookies = {one.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, COOKIE_BYTES) for one in (own, made)}
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            # Refused, the resolver's would stay bound at the manager, and no enforcer could start beside it.
            return True
    return len(cookies) == 1


def _place(made: socket.socket) -> Place:
    address, port = made.getsockname()[:2]
    return made.family, made.type, address, port


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text(encoding="ascii") != ""
