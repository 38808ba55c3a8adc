"""Targets for clients behind an enforcer: HTTP with and without TLS, a server that speaks first.

What lives here: what a path answers. What must not: anything of capd: it is the other end.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE_BYTES = 8 << 20
EVENTS = 3
HEARD = threading.Semaphore(0)
HEARD_SECONDS_MAX = 120
"""An event is sent when the client has asked for `/heard`, which says that it got the one before."""
SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 4.2.2."""
NAME_SERVER = "127.0.0.9"
HTTP_PORTS, HTTPS_PORT, BANNER_PORT = (80, 8080), 443, 2525
MANY = 64
"""Addresses of a name that begins with `many`: more than fit into a datagram of 512 bytes."""
SEEN: Counter[str] = Counter()
"""How often each path was asked for, and of each name its first label, with the kind (1: A)."""


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        if self.path.startswith("/large"):
            self._whole(bytes(LARGE_BYTES))
        elif self.path.startswith("/events"):
            self._events()
        elif self.path.startswith("/heard"):
            HEARD.release()
            self._told(b"")
        elif self.path.startswith("/upgrade"):
            self._upgrade()
        elif self.path.startswith("/back"):
            self._back(b"")
        else:
            self._told(b"")

    do_HEAD = do_DELETE = do_GET  # noqa: N815 - the library's names

    def do_POST(self) -> None:
        """Tell what came."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path.startswith("/back"):
            self._back(body)
        else:
            self._told(body)

    do_PUT = do_POST  # noqa: N815 - as above

    def _told(self, body: bytes) -> None:
        SEEN[self.path] += 1
        told = {
            "times": SEEN[self.path],
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "hashes": {name.lower(): hashlib.sha256(value.encode()).hexdigest() for name, value in self.headers.items()},
            "path_hash": hashlib.sha256(self.path.encode()).hexdigest(),
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "seen": dict(SEEN),
        }
        self._whole(json.dumps(told).encode())

    def _back(self, body: bytes) -> None:
        """Say a body back, with the type and coding that the request wants, and all its fields in one of the answer's."""
        said = json.dumps({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-type", self.headers.get("x-type", "application/json"))
        if coding := self.headers.get("x-coding"):
            self.send_header("content-encoding", coding)
        self.send_header("etag", '"abc"')
        self.send_header("x-said", said)
        body = body or said.encode()
        if piece := int(self.headers.get("x-piece", "0")):
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), piece):
                part = body[at : at + piece]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _whole(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.send_header("alt-svc", 'h3=":443"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            event = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.flush()
            if not HEARD.acquire(timeout=HEARD_SECONDS_MAX):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def _upgrade(self) -> None:
        self.send_response(101)
        self.send_header("connection", "upgrade")
        self.send_header("upgrade", "websocket")
        proof = hashlib.sha1(self.headers["sec-websocket-key"].encode() + SALT, usedforsecurity=False)
        self.send_header("sec-websocket-accept", base64.b64encode(proof.digest()).decode())
        self.end_headers()
        while head := self.rfile.read(6):
            key, payload = head[2:], self.rfile.read(head[1] & 0x7F)
            said = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)).upper()
            self.connection.sendall(bytes([head[0], len(said)]) + said)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Both families."""

    address_family = socket.AF_INET6
    daemon_threads = True


def banner(listener: socket.socket) -> None:
    """Speak first, then give back what comes until its end, then say goodbye."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_greet, args=(connection,), daemon=True).start()


def _greet(connection: socket.socket) -> None:
    with connection:
        connection.sendall(b"220 target ready\r\n")
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"bye\r\n")


def names() -> None:
    """Be a name server over UDP whose every name has an address, or many, of which it tells nothing by UDP."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((NAME_SERVER, 53))
    while True:
        query, peer = server.recvfrom(2000)
        SEEN[f"{query[13 : 13 + query[12]].decode()} {query[query.index(0, 12) + 2]}"] += 1
        server.sendto(_answer(query, whole=False), peer)


def whole_names() -> None:
    """Be the same over TCP."""
    listener = socket.create_server((NAME_SERVER, 53))
    while True:
        connection, _address = listener.accept()
        with connection, connection.makefile("rb") as file:
            while length := int.from_bytes(file.read(2), "big"):
                answer = _answer(file.read(length), whole=True)
                connection.sendall(len(answer).to_bytes(2, "big") + answer)


def _answer(query: bytes, *, whole: bool) -> bytes:
    end = query.index(b"\0", 12) + 5
    many, bound = query[13:17] == b"many", query[13:18] == b"bound"
    addresses = (
        [f"c0000{number:03x}" for number in range(0x200, 0x200 + MANY)] if many else ["c6336407" if bound else "c0000207"]
    )
    cut = many and not whole
    found = [] if cut or query[end - 3] != 1 else addresses
    answers = b"".join(bytes.fromhex(f"c00c00010001000000050004{address}") for address in found)
    flags = b"\x83\x80" if cut else b"\x81\x80"
    return query[:2] + flags + b"\0\1" + len(found).to_bytes(2, "big") + bytes(4) + query[12:end] + answers


def main() -> None:
    """Serve."""
    for serve in (names, whole_names):
        threading.Thread(target=serve, daemon=True).start()
    for port in HTTP_PORTS:
        server = Server(("::", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    context.set_alpn_protocols(["http/1.1"])
    secure = Server(("::", HTTPS_PORT), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    listener = socket.create_server(("::", BANNER_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)  # noqa: T201 - who started us waits for it
    banner(listener)


if __name__ == "__main__":
    main()
