"""Servers that know what was really exchanged: they hash every byte that they read and write, after decryption.

What lives here: the ledger of a conversation and the servers that keep it. What must not: anything of capd.
"""

from __future__ import annotations

import hashlib
import io
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any

RECEIVE_BYTES = 1 << 16
CLOSE_SECONDS = 5
"""How long a server waits for the client's part of the TLS farewell."""


@dataclass(frozen=True, slots=True, order=True)
class Hash:
    """What a stream held: its length and SHA-256."""

    length: int
    sha256: str

    @staticmethod
    def of(data: bytes) -> Hash:
        """Hash bytes."""
        return Hash(len(data), hashlib.sha256(data).hexdigest())


Pair = tuple[Hash, Hash]
"""(request, response) of a conversation."""


class Tally:
    """Length and hash of a stream that is still growing."""

    def __init__(self) -> None:
        self.length = 0
        self._sha256 = hashlib.sha256()

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.length += len(data)
        self._sha256.update(data)

    def hash(self) -> Hash:
        """Give what came so far."""
        return Hash(self.length, self._sha256.hexdigest())


@dataclass(slots=True)
class Conversation:
    """One connection as its server saw it. `request` is what the server read."""

    request: Tally = field(default_factory=Tally)
    response: Tally = field(default_factory=Tally)
    closed: bool = False

    def pair(self) -> Pair:
        """Give both hashes."""
        return self.request.hash(), self.response.hash()


class Ledger:
    """All conversations of one server, in the order in which they began."""

    def __init__(self) -> None:
        self._conversations: list[Conversation] = []
        self._changed = threading.Condition()

    @property
    def begun(self) -> int:
        """How many conversations were begun since some were taken."""
        return len(self._conversations)

    @property
    def request_bytes(self) -> int:
        """How much was read in them."""
        return sum(conversation.request.length for conversation in list(self._conversations))

    def ended(self) -> list[Pair]:
        """Give those that are over, in the order in which they began."""
        return [conversation.pair() for conversation in list(self._conversations) if conversation.closed]

    def begin(self) -> Conversation:
        """Note a new connection."""
        conversation = Conversation()
        with self._changed:
            self._conversations.append(conversation)
        return conversation

    def end(self, conversation: Conversation) -> None:
        """Note that a connection is over."""
        with self._changed:
            conversation.closed = True
            self._changed.notify_all()

    def take(self, count: int, seconds: float = 60) -> Counter[Pair]:
        """Wait until exactly `count` conversations have begun and ended; give them and forget them."""

        def enough() -> bool:
            return sum(conversation.closed for conversation in self._conversations) >= count

        with self._changed:
            assert self._changed.wait_for(enough, seconds), f"{len(self._conversations)} of {count} conversations were had"
            had, self._conversations = self._conversations, []
        assert count == len(had)
        return Counter(conversation.pair() for conversation in had)


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, tally: Tally) -> None:
        super().__init__()
        self._connection = connection
        self._tally = tally

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the base class's own signature
        count = self._connection.recv_into(buffer)
        self._tally.add(memoryview(buffer)[:count])
        return count


class _Writer(io.BufferedIOBase):
    def __init__(self, connection: socket.socket, tally: Tally) -> None:
        super().__init__()
        self._connection = connection
        self._tally = tally

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - the base class's own signature
        self._connection.sendall(data)
        self._tally.add(data)
        return len(data)


class Mirror(BaseHTTPRequestHandler):
    """POST /N with any body is answered with N bytes that look random and depend on the path; GET /N too."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        """Do the server's side of TLS, if there is any, and put the tallies into the way of the bytes."""
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.connection = self.request
        self.conversation = self.server.ledger.begin()
        self.rfile = io.BufferedReader(_Reader(self.connection, self.conversation.request), RECEIVE_BYTES)
        self.wfile = _Writer(self.connection, self.conversation.response)

    def finish(self) -> None:
        """Close, and only then call the conversation over."""
        super().finish()
        with suppress(OSError), self.connection:
            self.connection.settimeout(CLOSE_SECONDS)
            if isinstance(self.connection, ssl.SSLSocket):
                self.connection.unwrap()
        self.server.ledger.end(self.conversation)

    def do_GET(self) -> None:
        """Answer with the bytes asked for."""
        content = answer(self.path)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Read the whole body, then answer with the bytes asked for."""
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, RECEIVE_BYTES)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, byte by byte, until the client ends its side."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        conversation = self.server.ledger.begin()
        try:
            while data := self.request.recv(RECEIVE_BYTES):
                conversation.request.add(data)
                self.request.sendall(data)
                conversation.response.add(data)
        finally:
            self.request.close()
            self.server.ledger.end(conversation)


class Drain(socketserver.BaseRequestHandler):
    """Speaks TLS and reads until the client is gone, however that happens."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        assert self.server.context is not None
        with suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True) as connection:
            while connection.recv(1 << 20):
                pass


class Sink(socketserver.BaseRequestHandler):
    """Reads everything and answers with one line at the end."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        conversation = self.server.ledger.begin()
        try:
            while data := self.request.recv(1 << 20):
                conversation.request.add(data)
            self.request.sendall(b"done\n")
            conversation.response.add(b"done\n")
        finally:
            self.request.close()
            self.server.ledger.end(conversation)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on loopback with one thread for each connection and a ledger."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(
        self, handler: Callable[..., socketserver.BaseRequestHandler], *, context: ssl.SSLContext | None = None
    ) -> None:
        self.context = context
        self.ledger = Ledger()
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class UnixServer(Server):
    """The same on a unix stream socket."""

    address_family = socket.AF_UNIX

    def __init__(self, handler: Callable[..., socketserver.BaseRequestHandler], path: str) -> None:
        self.context = None
        self.ledger = Ledger()
        socketserver.TCPServer.__init__(self, path, handler)  # type: ignore[arg-type]  # an address of the family above

    def server_bind(self) -> None:
        """Bind; a path has no host name and port to remember."""
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; a unix client has no address to show."""
        connection, _ = self.socket.accept()
        return connection, ("unix", 0)


class Server6(Server):
    """The same on IPv6."""

    address_family = socket.AF_INET6

    def __init__(self, handler: Callable[..., socketserver.BaseRequestHandler]) -> None:
        self.context = None
        self.ledger = Ledger()
        socketserver.TCPServer.__init__(self, ("::1", 0), handler)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server in the background; stop it at the end."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="truth", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def echoing_datagrams() -> Iterator[int]:
    """Send every datagram back where it came from, on IPv4 and IPv6 of one port, until the end."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        server.settimeout(0.1)
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                with suppress(TimeoutError):
                    server.sendto(*server.recvfrom(65536))

        thread = threading.Thread(target=serve, name="datagrams", daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        stopping.set()
        thread.join()


def answer(path: str) -> bytes:
    """Give the body for a path: as many bytes as its last part says, without a pattern, the same each time."""
    return noise(path, int(path.rsplit("/", 1)[-1]))


def noise(seed: str, length: int) -> bytes:
    """Give bytes that no compressor shortens and that are the same for the same seed."""
    return Random(seed).randbytes(length)
