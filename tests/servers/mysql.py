"""A real MySQL on a free loopback port: the root file system that packaging/mysql makes, and databases of its own.

What lives here: starting and stopping it, its own clients. What must not: anything of a test.

It runs by chroot, as root, in a mount namespace in which its databases lie in a temporary directory: the root file system stays
as it is, and several can run side by side.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.decoders.relay import free_port
from tests.e2e.certificates import Certificates
from tests.requirements import require_obtained, require_root
from tests.servers.mariadb import DATABASE, PASSWORD, USER, MariaDb

MADE: Final = Path(__file__).parents[2] / ".cache" / "mysql"
ROOT: Final = MADE / "root"
INSIDE: Final = "/databases/used"
"""Where the server has its files."""
USERS: Final = (
    f"CREATE DATABASE {DATABASE}",
    f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
    f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
)
OPTIONS: Final = (
    *("--no-defaults", "--user=root", f"--datadir={INSIDE}/data", f"--socket={INSIDE}/s", f"--pid-file={INSIDE}/pid"),
    *("--mysqlx=OFF", "--secure-file-priv=NULL", "--skip-name-resolve", "--skip-log-bin"),
    *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--innodb-redo-log-capacity=16M"),
)
_INTO: Final = 'mount --bind "$1" "$2"; shift 2; exec chroot "$@"'


class Mysql(MariaDb):
    """A running one: its administrator speaks to it as to a MariaDB."""


def client(name: str) -> list[str]:
    """Give what begins a command of one of MySQL's own clients, such as `mysqldump`; whoever runs it needs no chroot."""
    require_mysql()
    libraries = next((ROOT / "usr/lib").glob("*-linux-gnu"))
    (loader,) = libraries.glob("ld-linux-*.so.*")
    return [str(loader), "--library-path", str(libraries), str(ROOT / "usr/bin" / name)]


def require_mysql() -> None:
    """Skip where there is none."""
    require_root()
    require_obtained(MADE, "MySQL")


@contextmanager
def mysql(
    options: Sequence[str] = (),
    *,
    tls: Certificates | None = None,
    within: Sequence[str] = (),
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[Mysql]:
    """Run a server with USER, PASSWORD and DATABASE of tests/servers/mariadb.py; it has an RSA key for passwords that it made.

    Args:
        options: further ones of mysqld; `{directory}` in them is where it sees what is in `directory` of the server.
        tls: with which it speaks TLS; None: with a certificate that it made.
        within: what its command begins with, such as what enters a network namespace.
        address: on which it listens.
        port: likewise; 0: a free one.
    """
    require_mysql()
    with TemporaryDirectory(prefix="capd-mysql-server-", ignore_cleanup_errors=True) as name:
        directory, port = Path(name), port or free_port()
        directory.chmod(0o755)
        subprocess.run(["cp", "-a", "--reflink=auto", f"{ROOT}/databases/empty", f"{name}/data"], check=True)
        place = [name, f"{ROOT}{INSIDE}", str(ROOT), "/usr/sbin/mysqld"]
        words = [*OPTIONS, f"--port={port}", f"--bind-address={address}", *(one.format(directory=INSIDE) for one in options)]
        if tls is not None:
            shutil.copy(tls.certificate, directory / "certificate")
            shutil.copy(tls.key, directory / "key")
            words += [f"--ssl-cert={INSIDE}/certificate", f"--ssl-key={INSIDE}/key"]
        command = [*within, "unshare", "-m", "sh", "-ec", _INTO, "sh", *place, *words]
        server = Mysql(command=command, port=port, socket=directory / "s", directory=directory)
        try:
            server.begin()
            server.administer(*USERS)
            yield server
        finally:
            server.end()
