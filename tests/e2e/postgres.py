"""A real PostgreSQL on a free loopback port, and a relay before it that ends TLS and knows what was said.

What lives here: starting and stopping the server, and the relay. What must not: anything of capd.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.certificates import Certificates
from tests.e2e.truth import Conversation, Ledger, Tally
from tests.requirements import require

PASSWORD = "agent's password"
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""Length 8, request code 80877103: PostgreSQL documentation, section 55.7, SSLRequest."""
RECEIVE_BYTES = 1 << 16


def programs() -> Path:
    """Give the directory of the newest installed server's programs; skip without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require(found, "needs a PostgreSQL server below /usr/lib/postgresql")
    return found[-1].parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A running server.

    Attributes:
        port: where it listens on 127.0.0.1, with TLS.
        environment: libpq's variables for a client that verifies it.
    """

    port: int
    environment: Mapping[str, str]


@contextmanager
def database(
    directory: Path,
    certificates: Certificates,
    *,
    through: Sequence[str] = (),
    address: str = "127.0.0.1",
    port: int = 0,
    settings: Sequence[str] = (),
) -> Iterator[Database]:
    """Run a server with its data in a directory; stop it at the end.

    Args:
        directory: for its data, and its socket.
        certificates: of the server.
        through: what begins a command that runs elsewhere.
        address: where it listens, there.
        port: likewise; 0: a free one.
        settings: further ones, such as `fsync=off`.
    """
    bin_ = programs()
    data = directory / "data"
    directory.mkdir()
    shutil.chown(directory, "postgres")
    password = directory / "password"
    password.write_text(PASSWORD, encoding="ascii")
    _as_postgres(bin_ / "initdb", "-D", data, "-U", "agent", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync")
    for source, name in ((certificates.key, "server.key"), (certificates.certificate, "server.crt")):
        shutil.copy(source, data / name)
        shutil.chown(data / name, "postgres")
        (data / name).chmod(0o600)
    with (data / "pg_hba.conf").open("a", encoding="ascii") as rules:
        rules.write(f"host all all {address}/32 scram-sha-256\n")
    port = port or free_port()
    options = f"-p {port} -c listen_addresses={address} -c unix_socket_directories={directory} -c ssl=on -c fsync=off"
    options = " -c ".join([options, *settings])
    _as_postgres(bin_ / "pg_ctl", "-s", "-w", "-D", data, "-l", directory / "log", "-o", options, "start", through=through)
    try:
        yield Database(port=port, environment=environment(port, certificates))
    finally:
        _as_postgres(bin_ / "pg_ctl", "-s", "-D", data, "-m", "immediate", "stop")


def environment(port: int, certificates: Certificates) -> dict[str, str]:
    """Give libpq's variables for a server on a port of this machine."""
    return {
        "PGHOST": "localhost",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "agent",
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": "postgres",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(certificates.authority),
    }


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _as_postgres(*command: str | Path, through: Sequence[str] = ()) -> None:
    # The server keeps pg_ctl's standard output open: it must not be a pipe that somebody reads to its end.
    environment_ = {"PATH": os.environ["PATH"], "LANG": "C"}
    user = [*through, "runuser", "-u", "postgres", "--"]
    subprocess.run([*user, *map(str, command)], check=True, cwd="/", env=environment_, stdout=subprocess.DEVNULL)


@contextmanager
def relay(target: int, certificates: Certificates) -> Iterator[tuple[int, Ledger]]:
    """Listen with TLS as PostgreSQL does, pass the plaintext on to a server's port, and keep a ledger of it.

    The server behind is spoken to without TLS: what the client and the relay say to each other is all there is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    ledger = Ledger()
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=_serve, args=(connection, context, target, ledger), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1]), ledger
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(client: socket.socket, context: ssl.SSLContext, target: int, ledger: Ledger) -> None:
    conversation = ledger.begin()
    try:
        first = client.recv(len(SSL_REQUEST), socket.MSG_WAITALL)
        assert first == SSL_REQUEST
        conversation.request.add(first)
        client.sendall(b"S")
        conversation.response.add(b"S")
        with context.wrap_socket(client, server_side=True) as inside, socket.create_connection(("127.0.0.1", target)) as server:
            _both_ways(inside, server, conversation)
    finally:
        client.close()
        ledger.end(conversation)


def _both_ways(client: ssl.SSLSocket, server: socket.socket, conversation: Conversation) -> None:
    """Pass bytes on in both directions until one side ends. One thread: a TLS connection belongs to one at a time."""
    while True:
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        if client in ready and not _pass_on(client, server, conversation.request):
            return
        if server in ready and not _pass_on(server, client, conversation.response):
            return


def _pass_on(source: socket.socket, target: socket.socket, tally: Tally) -> bool:
    data = source.recv(RECEIVE_BYTES)
    tally.add(data)
    target.sendall(data)
    return bool(data)
