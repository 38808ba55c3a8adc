"""Answering who asks for metrics: just enough of HTTP/1.1.

What lives here: connections, requests, answers, within limits that no client can stretch. What must not: what is served
(metrics.py), where (metrics_address.py).

Source: RFC 9112 section 2.1 (messages), RFC 9110 section 15 (statuses). Each connection has one request; a body is not read.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from capd.daemon.metrics import CONTENT_TYPE
from capd.enforcer.accepting import words_of

REQUEST_BYTES_MAX: Final = 8192
"""A scraper's header section has a few hundred bytes."""
REQUEST_SECONDS_MAX: Final = 2.0
"""From connecting to the end of the header section, and again for taking the answer."""
CONNECTIONS_MAX: Final = 16
"""At a time; who comes above is hung up on. On a loopback address any user of the host may fill them."""
ACCEPT_AGAIN_SECONDS: Final = 0.2
PATH: Final = "/metrics"
ANSWERS: Final = {
    HTTPStatus.BAD_REQUEST: "this is no request of HTTP/1.1\n",
    HTTPStatus.NOT_FOUND: f"capd serves {PATH} and nothing else\n",
    HTTPStatus.METHOD_NOT_ALLOWED: "GET and HEAD are served\n",
    HTTPStatus.SERVICE_UNAVAILABLE: "capd did not say in time how it is; `capd status` says why\n",
}
_CHUNK_BYTES: Final = 4096

Page = Callable[[], bytes | None]
"""Gives the metrics; None: not to be had in time."""


class Endpoint:
    """Serves a page at a listening socket, in threads of its own, until it is told to stop."""

    def __init__(self, listener: socket.socket, page: Page) -> None:
        """Take a socket that listens."""
        self._listener, self._page = listener, page
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="capd-metrics", daemon=True)
        self._open = 0
        self.served = self.refused = 0
        """Answers with metrics, and all others."""
        self.not_taken: Counter[str] = Counter()
        """How often nobody could be taken, by why."""

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; answers under way are given. To be called once, after `start`."""
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _address = self._listener.accept()
            except OSError as error:  # such as no descriptor left, or a client that is gone already
                if not self._stopping.is_set():
                    self.not_taken[words_of(error)] += 1
                self._stopping.wait(ACCEPT_AGAIN_SECONDS)
                continue
            with self._lock:
                crowded = self._open >= CONNECTIONS_MAX
                self._open += not crowded
                self.refused += crowded
            if crowded:
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="capd-scrape", daemon=True).start()
            except RuntimeError:  # no room for one more thread: this one client is hung up on, the next may be served
                self._done(connection, None)

    def _serve(self, connection: socket.socket) -> None:
        status = None
        try:
            with contextlib.suppress(OSError):
                head = _receive(connection, time.monotonic() + REQUEST_SECONDS_MAX)
                if head is not None:
                    status, content = answer(head, self._page)
                    connection.settimeout(REQUEST_SECONDS_MAX)
                    connection.sendall(content)
        finally:
            self._done(connection, status)

    def _done(self, connection: socket.socket, status: HTTPStatus | None) -> None:
        connection.close()
        with self._lock:
            self._open -= 1
            self.served += status is HTTPStatus.OK
            self.refused += status is not HTTPStatus.OK


def answer(head: bytes, page: Page) -> tuple[HTTPStatus, bytes]:
    """Give the status and the whole answer to a header section."""
    status, body = _judge(head)
    content = page() if status is HTTPStatus.OK else ANSWERS[status].encode("ascii")
    if content is None:
        status, content = HTTPStatus.SERVICE_UNAVAILABLE, ANSWERS[HTTPStatus.SERVICE_UNAVAILABLE].encode("ascii")
    kind = CONTENT_TYPE if status is HTTPStatus.OK else "text/plain; charset=us-ascii"
    allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    header = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return status, header.encode("ascii") + (content if body else b"")


def _judge(head: bytes) -> tuple[HTTPStatus, bool]:
    """Give the status for a request, and whether its answer has a body."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):  # noqa: PLR2004 - method, target, version
        return HTTPStatus.BAD_REQUEST, True
    method, target, _version = words
    if method not in {b"GET", b"HEAD"}:
        return HTTPStatus.METHOD_NOT_ALLOWED, True
    if target.split(b"?", 1)[0] != PATH.encode("ascii"):
        return HTTPStatus.NOT_FOUND, method == b"GET"
    return HTTPStatus.OK, method == b"GET"


def _receive(connection: socket.socket, deadline: float) -> bytes | None:
    """Take a header section; None when it does not come in time, or does not end."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0 or len(received) > REQUEST_BYTES_MAX:
            return None
        connection.settimeout(left)
        chunk = connection.recv(_CHUNK_BYTES)
        if not chunk:
            return None
        received += chunk
    return bytes(received)
