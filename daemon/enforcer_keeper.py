"""The enforcer's keeper of credentials: a process of its own, made before the role gives up its rights.

What lives here: making it, and seeing it end. What must not: credentials' values (enforcer/credentials).

As root it reads what only root can. As a unit with `User=` it has no more rights than the role: it reads what systemd gives
to the unit, and files that root gave to the role's group. It ends with the last process of the role, of which it hears by a
pipe: the kernel's parent-death signal is not sent from a user to root.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from capd.daemon.confinement import leave_no_dump
from capd.daemon.credentials import credentials_of
from capd.daemon.errors import KeeperError
from capd.daemon.locations import KEEPER_SOCKET, SEARCH_SOCKET
from capd.enforcer.credentials.given import Given
from capd.enforcer.credentials.keeper import Keeper, bind
from capd.enforcer.credentials.search_server import SearchServer, bind_for_all
from capd.enforcer.credentials.store import Store

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

SYSTEMD_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""Set by systemd for units with LoadCredential= and its like (systemd.exec(5))."""


class KeeperProcess:
    """The process, as its parent knows it."""

    def __init__(self, pid: int, alive: int) -> None:
        self._pid, self._alive = pid, alive

    def left(self) -> None:
        """Let go of it in a child, so that it ends with the parent."""
        os.close(self._alive)

    def ended(self) -> bool:
        """Say whether it is gone, which takes all credentials away."""
        return bool(os.waitpid(self._pid, os.WNOHANG)[0])


def start_keeper(configuration: Configuration, uid: int, gid: int, say: Callable[[str], None]) -> KeeperProcess | None:
    """Start it, if there are credentials. Nothing else of the role may have begun.

    Args:
        configuration: with the credentials.
        uid: of the enforcer, who alone is answered.
        gid: of the enforcer, whose files may be readable.
        say: tells whoever reads the log.

    Raises:
        KeeperError: its socket cannot be made.
        SandboxError: core dumps cannot be switched off.
    """
    if not configuration.credentials:
        return None
    # Values are in the memory of this process and of its children from here on.
    leave_no_dump()
    path = configuration.enforcer_runtime_dir / KEEPER_SOCKET
    searched = configuration.enforcer_runtime_dir / SEARCH_SOCKET
    try:
        listener = bind(path, uid)
        searching = bind_for_all(searched)
        recorder = configuration.recorder_runtime_dir.stat().st_uid
    except OSError as error:
        raise KeeperError(f"{error.filename or path}: {error.strerror}") from error
    gone, alive = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(alive)
        credentials = credentials_of(configuration.credentials)
        store = Store(
            credentials,
            time.monotonic,
            directory=Path(directory) if (directory := os.environ.get(SYSTEMD_DIRECTORY)) else None,
            group=gid,
            owner=os.geteuid(),
        )
        given = Given()

        def refresh() -> None:
            given.add_files(credentials, store.value)

        server = SearchServer(searching, given, recorder, refresh=refresh, say=say)
        _be(Keeper(listener, store, uid, say, given=given.add), server, gone, say)
    os.close(gone)
    listener.close()
    searching.close()
    return KeeperProcess(pid, alive)


def _be(keeper: Keeper, searching: SearchServer, gone: int, say: Callable[[str], None]) -> NoReturn:
    """Answer until the role is gone."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # The role decides when it ends; what it starts must not inherit that it does not.
            signal.signal(number, lambda _number, _frame: None)
        threading.Thread(target=searching.run, args=(gone,), daemon=True).start()
        keeper.run(gone)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the last line of a process: its parent must hear of it
        say(f"capd enforcer: keeper of credentials: {type(error).__name__}")
    finally:
        os._exit(status)
