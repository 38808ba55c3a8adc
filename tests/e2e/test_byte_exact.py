"""What capd replays is what was exchanged, byte for byte, for every client and size.

What lives here: many clients against servers that hash what they read and write. What must not: loss on purpose.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.instance import CLIENTS, PYTHON, Instance
from tests.e2e.postgres import Database, environment, relay
from tests.e2e.truth import Server, noise
from tests.requirements import require_command

pytestmark = pytest.mark.e2e

SIZES = (1, 16 << 10, 1 << 20, 8 << 20)
"""Bytes of a body: the least, one TLS record, and what takes several and many system calls."""

Command = list[str | Path]
Files = Sequence[str | Path]


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Path]:
    """A file for each size."""
    directory = tmp_path_factory.mktemp("bodies")
    files = {size: directory / f"{size}.bin" for size in SIZES}
    for size, path in files.items():
        path.write_bytes(noise("body", size))
    return files


def one_after_another(commands: list[Command]) -> Command:
    """Give one shell command that runs several; a failure ends it."""
    lines = [shlex.join(map(str, command)) for command in commands]
    return ["/bin/sh", "-c", "\n".join(["set -e", *lines])]


def python_blocking(ca: Path, port: int, path: str, files: Files) -> Command:
    """One Python process, one connection for each body."""
    return [PYTHON, "-I", CLIENTS / "blocking.py", ca, str(port), path, *files]


def python_asyncio(ca: Path, port: int, path: str, files: Files) -> Command:
    """One Python process with TLS in memory BIOs, all connections at once."""
    return [PYTHON, "-I", CLIENTS / "streams.py", ca, str(port), path, "9", *files]


def after_fork(ca: Path, port: int, path: str, files: Files) -> Command:
    """The handshake in a parent, the rest in its child."""
    return [PYTHON, "-I", CLIENTS / "forked.py", ca, str(port), path, *files]


def curl(ca: Path, port: int, path: str, files: Files) -> Command:
    """One curl for each body."""
    require_command("curl")
    return one_after_another(
        [
            ["curl", "-sSf", "--http1.1", "--cacert", ca, "-o", "/dev/null", "--data-binary", f"@{file}", url(port, path, file)]
            for file in files
        ]
    )


def wget(ca: Path, port: int, path: str, files: Files) -> Command:
    """One wget, which speaks GnuTLS, for each body."""
    require_command("wget")
    return one_after_another(
        [
            ["wget", "-q", f"--ca-certificate={ca}", "-O", "/dev/null", f"--post-file={file}", url(port, path, file)]
            for file in files
        ]
    )


def s_client(ca: Path, port: int, path: str, files: Files) -> Command:
    """One `openssl s_client` for each body; it sends what stands in its input."""
    lines = ["set -e"]
    for file in files:
        size = Path(file).stat().st_size
        head = (
            f"POST {path}/{size} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\nContent-Length: {size}\\r\\n\\r\\n"
        )
        connect = f"openssl s_client -quiet -verify_quiet -CAfile {ca} -connect 127.0.0.1:{port}"
        lines.append(f"(printf '{head}'; cat {file}) | {connect} >/dev/null")
    return ["/bin/sh", "-c", "\n".join(lines)]


def url(port: int, path: str, file: str | Path) -> str:
    """Ask for as many bytes as the file has."""
    return f"https://127.0.0.1:{port}{path}/{Path(file).stat().st_size}"


@pytest.mark.parametrize("client", [python_blocking, python_asyncio, after_fork, curl, wget, s_client])
def test_https_bodies(
    capd: Instance,
    trusted: Certificates,
    mirror: Server,
    bodies: Mapping[int, Path],
    client: Callable[[Path, int, str, Files], Command],
) -> None:
    """Bodies of 1 B, 16 KiB, 1 MiB and 8 MiB, up and down, are replayed as they were sent and received."""
    name = f"bodies-{client.__name__}"
    capd.run(name, *client(trusted.authority, mirror.port, f"/{name}", list(bodies.values())))
    capd.assert_recorded(name, mirror.ledger.take(len(SIZES)), protocol="http1", state="closed")


def test_psql_bodies(
    capd: Instance, trusted: Certificates, database: Database, directory: Path, bodies: Mapping[int, Path]
) -> None:
    """Statements and rows of 1 B to 8 MiB through psql are replayed as the server of its TLS connection saw them."""
    with relay(database.port, trusted) as (port, ledger):
        files = []
        for size in SIZES:
            files.append(directory / f"{size}.sql")
            files[-1].write_text(f"SELECT length('{'q' * size}'), repeat('r', {size});\n", encoding="ascii")
        commands: list[Command] = [["psql", "-X", "-q", "-o", "/dev/null", "-f", file] for file in files]
        capd.run("bodies-psql", *one_after_another(commands), environment=environment(port, trusted))
        capd.assert_recorded("bodies-psql", ledger.take(len(SIZES)), protocol="postgresql", state="closed")


def acquaint(capd: Instance, module: str) -> None:
    """Let capd meet the library that a wheel brings: a session that begins while it does is `partial`, and rightly so."""
    capd.run(f"meets {module}", sys.executable, "-P", "-c", f"import time, {module}; time.sleep(2)")

    def watched() -> bool:
        attachments = json.loads(capd.ask("status", "--json", check=False).stdout)["attachments"]
        return any(f"{module}_binary.libs/libssl" in attachment["path"] for attachment in attachments)

    wait_until(watched, f"the library of {module} is watched")


@pytest.mark.parametrize(
    ("python", "library"), [(PYTHON, "the system's"), (sys.executable, "a wheel's")], ids=["system-openssl", "bundled-openssl"]
)
def test_psycopg(capd: Instance, trusted: Certificates, database: Database, python: str, library: str) -> None:
    """Statements, COPY and pipelines of psycopg are whole, over the OpenSSL of the system and over the one in its wheel."""
    name = f"psycopg of {library} OpenSSL"
    if python == sys.executable:
        acquaint(capd, "psycopg")
    with relay(database.port, trusted) as (port, ledger):
        client: Command = [python, "-P", CLIENTS / "statements.py", *map(str, SIZES)]
        capd.run(name, *client, environment=environment(port, trusted))
        capd.assert_recorded(name, ledger.take(1), protocol="postgresql", state="closed")


def test_psycopg2_over_openssl_1_1(capd: Instance, trusted: Certificates, database: Database) -> None:
    """The wheel of an older psycopg2 brings OpenSSL 1.1.1: statements, COPY and rows of 1 B to 8 MiB are whole over it too."""
    name = "psycopg2 of OpenSSL 1.1"
    acquaint(capd, "psycopg2")
    with relay(database.port, trusted) as (port, ledger):
        client: Command = [sys.executable, "-P", CLIENTS / "statements2.py", *map(str, SIZES)]
        capd.run(name, *client, environment=environment(port, trusted))
        capd.assert_recorded(name, ledger.take(1), protocol="postgresql", state="closed")


def test_keep_alive(capd: Instance, trusted: Certificates, mirror: Server, bodies: Mapping[int, Path]) -> None:
    """Forty requests on one connection are one session, whole."""
    files = [bodies[1], bodies[16 << 10]] * 20
    client = python_blocking(trusted.authority, mirror.port, "/keep", ["--keep-alive", *files])
    capd.run("keep-alive", *client)
    capd.assert_recorded("keep-alive", mirror.ledger.take(1), protocol="http1", state="closed")


def test_two_hundred_connections_at_once(
    capd: Instance, trusted: Certificates, mirror: Server, bodies: Mapping[int, Path]
) -> None:
    """Two hundred concurrent TLS connections of one process are two hundred sessions, none mixed with another."""
    files = [bodies[16 << 10]] * 200
    capd.run("crowd", *python_asyncio(trusted.authority, mirror.port, "/crowd", files)[:6], "200", *files)
    capd.assert_recorded("crowd", mirror.ledger.take(200), protocol="http1", state="closed")


@pytest.mark.slow
def test_short_lived_processes(capd: Instance, trusted: Certificates, mirror: Server) -> None:
    """Processes in a row, each alive for one request, leave as many whole sessions; `make soak` makes a thousand."""
    require_command("curl")
    count = int(os.environ.get("CAPD_SHORT_LIVED", "200"))
    each = f"curl -sSf --cacert {trusted.authority} -o /dev/null https://127.0.0.1:{mirror.port}/short.$i/$((i % 97))"
    capd.run("short", "/bin/sh", "-ec", f"i=0; while [ $i -lt {count} ]; do {each}; i=$((i+1)); done")
    sessions = capd.assert_recorded("short", mirror.ledger.take(count), protocol="http1", state="closed")
    assert count == len({session["process"]["pid"] for session in sessions})
    assert {"curl"} == {Path(session["process"]["exe"]).name for session in sessions}
