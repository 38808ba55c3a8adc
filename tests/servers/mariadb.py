"""A real MariaDB on a free loopback port, in a temporary directory.

What lives here: starting and stopping it, its users. What must not: anything of a test.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pymysql

from tests.decoders.relay import free_port
from tests.e2e.certificates import Certificates
from tests.requirements import require, require_command

START_SECONDS_MAX: Final = 180.0
STOP_SECONDS_MAX: Final = 90.0
USER: Final = "agent"
PASSWORD: Final = "correct-horse-battery"
DATABASE: Final = "shop"
USERS: Final = (
    f"CREATE DATABASE {DATABASE}",
    f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
    f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
)


@dataclass(slots=True, kw_only=True)
class MariaDb:
    """A running server.

    Attributes:
        command: what it is begun with.
        port: on 127.0.0.1.
        socket: of its administrator, who needs no password.
        directory: which clients may write to.
        running: its process.
    """

    command: Sequence[str]
    port: int
    socket: Path
    directory: Path
    running: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.directory / "log").read_text(errors="replace")

    def begin(self) -> None:
        """Start it, for the first time or because it died; returns when it answers."""
        self.socket.unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.running = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.socket.exists():
            assert self.running.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def died(self) -> bool:
        """Tell whether it ended by itself; waits a moment for one that is about to."""
        assert self.running is not None
        try:
            self.running.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kill it."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(STOP_SECONDS_MAX)

    def administer(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the administrator; gives the rows of the last one."""
        connection = pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())


@contextmanager
def mariadb(
    options: Sequence[str] = (),
    *,
    tls: Certificates | None = None,
    within: Sequence[str] = (),
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[MariaDb]:
    """Run a server with USER, PASSWORD and DATABASE.

    Args:
        options: further ones of mariadbd; `{directory}` in them is that of the server.
        tls: with which it speaks TLS; None: it does not.
        within: what its command begins with, such as what enters a network namespace.
        address: on which it listens.
        port: likewise; 0: a free one.
    """
    require_command("mariadb-install-db")
    program = shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
    require(program, "needs a MariaDB server: mariadbd")
    assert program is not None
    with TemporaryDirectory(prefix="capd-mariadb-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        user, data, socket, port = getpass.getuser(), directory / "data", directory / "s", port or free_port()
        # Each has a directory of its own for temporary tables: one that starts removes all that it finds there.
        where = [f"--datadir={data}", f"--tmpdir={directory}"]
        install = ["mariadb-install-db", "--no-defaults", f"--user={user}", *where, "--skip-test-db"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL)
        own = [*where, f"--socket={socket}", f"--pid-file={directory}/pid", f"--user={user}"]
        own += [
            f"--port={port}",
            f"--bind-address={address}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=0",
            *(one.format(directory=directory) for one in options),
        ]
        own += [] if tls is None else [f"--ssl-cert={tls.certificate}", f"--ssl-key={tls.key}"]
        command = [*within, program, "--no-defaults", *own]
        server = MariaDb(command=command, port=port, socket=socket, directory=directory)
        try:
            server.begin()
            server.administer(*USERS)
            yield server
        finally:
            server.end()


def environment() -> dict[str, str]:
    """Give the environment for the server's own clients, without the files of whoever runs the tests."""
    return {**os.environ, "MYSQL_PWD": PASSWORD, "HOME": "/nonexistent"}
