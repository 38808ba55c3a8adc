"""Other network namespaces, as containers have them: their own rules, and capd's listeners opened inside.

What lives here: finding which namespaces processes live in, and opening one. What must not: who listens on the sockets.

A rule of the host sees no packet of another namespace, and nothing there leads to the host's loopback. So the same table is put
there, owned by a socket of ours, and listening sockets are made there: a socket belongs for ever to the namespace in which it
was made, whoever accepts from it. Till then the second layer lets nothing out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from capd.enforcer.forcing.ruleset import ForcingError, Ruleset
from capd.enforcer.forcing.socket_owner import NETLINK_SOCK_DIAG
from capd.enforcer.forcing.table import Table

PROC: Final = Path("/proc")
CLONE_NEWNET: Final = 0x40000000
BACKLOG: Final = 128
FREEBIND: Final = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND, IPV6_FREEBIND (Linux 4.20): a namespace that was just made has no address of loopback yet, and will have."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A namespace in which forcing is in place.

    Attributes:
        number: the kernel's of the namespace.
        descriptor: of the namespace, by which it is entered again.
        ruleset: owns the table there.
        proxy: listening TCP sockets there, the proxy's of each family.
        resolver: the resolver's of each family: listening TCP, then bound UDP.
    """

    number: int
    descriptor: int
    ruleset: Ruleset
    proxy: tuple[socket.socket, ...]
    resolver: tuple[socket.socket, ...]

    def diagnosis(self) -> socket.socket:
        """Make a socket that asks sock_diag(7) about the sockets of this namespace.

        Raises:
            OSError: the kernel refused.
        """
        return inside(_path(self.descriptor), _diagnosis)

    def close(self) -> None:
        """Let go of it: the table stays there as long as the namespace does, and what it forces is refused."""
        for made in (*self.proxy, *self.resolver):
            made.close()
        self.ruleset.close()
        os.close(self.descriptor)


def own_namespace(proc: Path = PROC) -> int:
    """Give the number of the network namespace of this thread."""
    return (proc / "thread-self/ns/net").stat().st_ino


def namespaces_of(pids: Iterable[int], own: int, proc: Path = PROC) -> dict[int, int]:
    """Give the network namespaces that processes live in, by their number, each with one of the processes.

    `own`, the number of ours, is left out, and so are processes that are gone.
    """
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found.setdefault((proc / str(pid) / "ns/net").stat().st_ino, pid)
    return {number: pid for number, pid in found.items() if number != own}


def open_namespace(path: Path, table: Table, *, proxy_port: int, resolver_port: int) -> Opened:
    """Put a table into a network namespace and listen there.

    Args:
        path: of the namespace, such as /proc/PID/ns/net.
        table: as on the host.
        proxy_port: where the proxy listens, as on the host: on 127.0.0.1, and on ::1 where the kernel has IPv6.
        resolver_port: where the resolver does.

    Raises:
        ForcingError: the namespace is gone, its kernel objects cannot be made, or somebody there has the ports.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return inside(_path(descriptor), lambda: _open(descriptor, table, proxy_port, resolver_port))
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise ForcingError(f"cannot force traffic in the network namespace {path}: {error.strerror or error}") from error


def inside(path: Path, make: Callable[[], _Made]) -> _Made:
    """Call a function in a network namespace: by a thread of its own, which is the only one that goes there.

    Raises:
        OSError: the namespace cannot be entered; or what the function raises.
    """
    made: list[_Made] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            _enter(path)
            made.append(make())
        except Exception as error:  # noqa: BLE001 - it is the caller's, who waits in another thread
            failed.append(error)

    thread = threading.Thread(target=work, name="capd-namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(descriptor, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def _path(descriptor: int) -> Path:
    return PROC / "self/fd" / str(descriptor)


def _diagnosis() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)


def _open(descriptor: int, table: Table, proxy_port: int, resolver_port: int) -> Opened:
    """Listen first: what is redirected to nobody is refused, but a program there must not get the ports before us."""
    with contextlib.ExitStack() as stack:
        families = [(socket.AF_INET, "127.0.0.1"), *([(socket.AF_INET6, "::1")] if _has_ipv6() else [])]

        def made(kind: socket.SocketKind, port: int) -> list[socket.socket]:
            return [stack.enter_context(_bound(family, kind, host, port)) for family, host in families]

        proxy = made(socket.SOCK_STREAM, proxy_port)
        resolver = [*made(socket.SOCK_STREAM, resolver_port), *made(socket.SOCK_DGRAM, resolver_port)]
        ruleset = Ruleset()
        stack.callback(ruleset.close)
        ruleset.apply(table)
        number = own_namespace()
        stack.pop_all()
    return Opened(number=number, descriptor=descriptor, ruleset=ruleset, proxy=tuple(proxy), resolver=tuple(resolver))


def _has_ipv6() -> bool:
    """Say whether this kernel has IPv6."""
    try:
        _bound(socket.AF_INET6, socket.SOCK_DGRAM, "::1", 0).close()
    except OSError:
        return False
    return True


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(*FREEBIND[family], 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
