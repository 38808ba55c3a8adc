"""A client and a server of PostgreSQL that do no more than sign in.

What lives here: the shell around the state machines: sockets and frames. What must not: cases.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.postgresql_client import PostgresqlClient
from capd.enforcer.sign_in.postgresql_server import PostgresqlServer
from tests.e2e.certificates import Certificates
from tests.e2e.postgres import SSL_REQUEST

SECONDS_MAX = 120.0
VERSION_3 = 196_608
READY = b"Z\0\0\0\x05I"


def message(kind: bytes, content: bytes) -> bytes:
    """Give a message."""
    return kind + struct.pack("!i", len(content) + 4) + content


def exactly(stream: socket.socket, length: int) -> bytes:
    """Read so many bytes."""
    found = b""
    while len(found) < length:
        part = stream.recv(length - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def read(stream: socket.socket) -> tuple[bytes, bytes]:
    """Read a message."""
    head = exactly(stream, 5)
    return head[:1], exactly(stream, struct.unpack("!i", head[1:])[0] - 4)


def sign_in(
    port: int, made: SignIn, *, tls: Certificates | None, prove: bool = True, shown: bytes | None = None
) -> tuple[PostgresqlClient, bytes]:
    """Sign in to a server by our client; give it, and the type of the message that came behind its success or refusal.

    Args:
        port: of the server.
        made: with what.
        tls: whom to trust in TLS; None: without.
        prove: whether its name counts as proven.
        shown: the certificate that counts as the server's; None: its own.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as plain, contextlib.ExitStack() as held:
        stream: socket.socket = plain
        channel = Channel()
        if tls is not None:
            plain.sendall(SSL_REQUEST)
            assert exactly(plain, 1) == b"S"
            context = ssl.create_default_context(cafile=str(tls.authority))
            secured = held.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            stream = secured
            channel = Channel(encrypted=True, proven=prove, certificate=shown or secured.getpeercert(binary_form=True))
        assert made.user is not None
        words = b"".join(word.encode() + b"\0" for word in ("user", made.user, "database", "postgres"))
        content = struct.pack("!i", VERSION_3) + words + b"\0"
        stream.sendall(struct.pack("!i", len(content) + 4) + content)
        client = PostgresqlClient(made, made.user, channel, os.urandom)
        while True:
            kind, content = read(stream)
            if kind != b"R":
                return client, kind
            answer = client.answer(content)
            if answer is not None:
                stream.sendall(message(b"p", answer))


@contextlib.contextmanager
def letting_in(placeholder: str | None, certificates: Certificates) -> Iterator[tuple[int, list[str]]]:
    """Listen with TLS, and let clients in by our server; give the port and what became of each."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    shown = x509.load_pem_x509_certificate(certificates.certificate.read_bytes()).public_bytes(Encoding.DER)
    listener = socket.create_server(("127.0.0.1", 0))
    outcomes: list[str] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(SECONDS_MAX)
                with contextlib.ExitStack() as held, contextlib.suppress(EOFError, OSError):
                    held.enter_context(connection)
                    _serve(held, connection, context, shown, placeholder=placeholder, outcomes=outcomes)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], outcomes
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS_MAX)
        listener.close()


def _serve(
    held: contextlib.ExitStack,
    connection: socket.socket,
    context: ssl.SSLContext,
    shown: bytes,
    *,
    placeholder: str | None,
    outcomes: list[str],
) -> None:
    stream, channel = connection, Channel()
    (length,) = struct.unpack("!i", exactly(stream, 4))
    first = exactly(stream, length - 4)
    if first == SSL_REQUEST[4:]:
        connection.sendall(b"S")
        stream = held.enter_context(context.wrap_socket(connection, server_side=True))
        channel = Channel(encrypted=True, certificate=shown)
        (length,) = struct.unpack("!i", exactly(stream, 4))
        exactly(stream, length - 4)
    server = PostgresqlServer(placeholder, channel, os.urandom)
    try:
        _let_in(stream, server)
    except SignInError as error:
        outcomes.append(str(error))
        stream.sendall(message(b"E", b"SFATAL\0VFATAL\0C28P01\0M" + str(error).encode() + b"\0\0"))
        return
    except (EOFError, OSError):
        outcomes.append("left")
        return
    outcomes.append("in")
    stream.sendall(message(b"S", b"server_version\00015.0\0") + READY)
    with contextlib.suppress(EOFError, OSError):
        read(stream)


def _let_in(stream: socket.socket, server: PostgresqlServer) -> None:
    stream.sendall(message(b"R", server.begin()))
    while not server.done:
        kind, content = read(stream)
        if kind != b"p":
            raise EOFError
        stream.sendall(b"".join(message(b"R", one) for one in server.answer(content)))
