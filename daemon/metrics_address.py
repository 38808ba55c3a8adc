"""Where capd may be asked by HTTP: a unix socket, or a loopback address.

What lives here: reading `metrics.listen` and `approvals.listen`, and listening there. What must not: what is served
(metrics_endpoint.py, callback_listener.py).

Whoever reaches metrics may read them: there is no password, and nothing is encrypted. So no listener is to be reached from
other hosts but through a proxy of the operator's, and an address that would be is refused before anything is started.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon.errors import CannotListenError

UNIX: Final = "unix:"
PATH_BYTES_MAX: Final = 107
"""sockaddr_un has 108 with the final zero (unix(7))."""
PORTS: Final = range(1, 65536)
SOCKET_UMASK: Final = 0o111
"""Gives mode 0666, as the control socket has it: everybody may know how much is recorded and lost; the directory may be closed
to others."""
WAITING_MAX: Final = 16
"""Who asks for metrics comes every few seconds."""
FORMS: Final = "`unix:/path`, `127.0.0.1:PORT` or `[::1]:PORT`"


@dataclass(frozen=True, kw_only=True)
class UnixAddress:
    """A path, which is made when listening begins."""

    path: Path

    def __str__(self) -> str:
        """Give it as it is configured."""
        return f"{UNIX}{self.path}"


@dataclass(frozen=True, kw_only=True)
class LoopbackAddress:
    """An address of this host that no other host reaches."""

    host: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        """Give it as it is configured."""
        return f"[{self.host}]:{self.port}" if isinstance(self.host, ipaddress.IPv6Address) else f"{self.host}:{self.port}"


def parse(text: str) -> UnixAddress | LoopbackAddress:
    """Read an address as it is configured.

    Raises:
        ValueError: it is none, or other hosts could reach it; says why.
    """
    if text.startswith(UNIX):
        return _unix(text.removeprefix(UNIX))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) not in PORTS:
        raise ValueError(f"must be {FORMS}")
    return LoopbackAddress(host=_loopback(host), port=int(port))


def listen(address: UnixAddress | LoopbackAddress, what: str = "metrics") -> socket.socket:
    """Listen there; `what` is served, for the message. A socket that a dead process left is replaced, anything else is not.

    To be called before there is a second thread: the process's umask is another one meanwhile.

    Raises:
        CannotListenError: it is taken, or may not be made.
    """
    try:
        return _listen_at(address.path) if isinstance(address, UnixAddress) else _listen_on(address)
    except OSError as error:
        raise CannotListenError(f"cannot serve {what} at {address}: {error.strerror}") from error


def _unix(text: str) -> UnixAddress:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("what follows `unix:` must be an absolute path")
    if len(os.fsencode(text)) > PATH_BYTES_MAX:
        raise ValueError(f"the path of a unix socket has at most {PATH_BYTES_MAX} bytes")
    return UnixAddress(path=path)


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Names are refused: what they lead to is decided elsewhere, and may change."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(f"{host!r} is no address; must be {FORMS}") from None
    if isinstance(found, ipaddress.IPv6Address) != (bare is not host):
        raise ValueError(f"must be {FORMS}")
    if not found.is_loopback or "%" in bare:
        raise ValueError(
            f"{host} can be reached from other hosts, and there is neither password nor encryption; "
            "listen on 127.0.0.1 and let a proxy or an agent of your monitoring go on from there"
        )
    return found


def _listen_on(address: LoopbackAddress) -> socket.socket:
    family = socket.AF_INET if isinstance(address.host, ipaddress.IPv4Address) else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address.host), address.port))
        listener.listen(WAITING_MAX)
    except BaseException:
        listener.close()
        raise
    return listener


def _listen_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Not chmod afterwards: root would do it to whatever the directory's owner has put there by then.
    umask = os.umask(SOCKET_UMASK)
    try:
        _remove_dead(path)
        listener.bind(str(path))
        listener.listen(WAITING_MAX)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is something else, which is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
