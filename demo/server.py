"""A small ticket service over HTTPS: the web side of the demo.

What lives here: a real HTTP/1.1 server with TLS from Python's standard library. What must not: anything of capd.

    server.py CERTIFICATE KEY PORT_FILE     listens on a free port of 127.0.0.1 and writes the port into PORT_FILE
"""

from __future__ import annotations

import json
import ssl
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TICKETS = {
    7: {"id": 7, "customer": "Ada Lovelace", "subject": "Charged twice in October", "state": "open"},
    8: {"id": 8, "customer": "Grace Hopper", "subject": "Nanoseconds too long", "state": "open"},
}


class Tickets(BaseHTTPRequestHandler):
    """GET /v1/tickets, GET /v1/tickets/N, POST /v1/tickets/N/notes, GET /health."""

    protocol_version = "HTTP/1.1"
    server_version = "tickets/1"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a ticket, all of them, or the health of the service."""
        match self.path.strip("/").split("/"):
            case ["health"]:
                self.answer(HTTPStatus.OK, {"status": "ok"})
            case ["v1", "tickets"]:
                self.answer(HTTPStatus.OK, list(TICKETS.values()))
            case ["v1", "tickets", number] if number.isdigit() and int(number) in TICKETS:
                self.answer(HTTPStatus.OK, TICKETS[int(number)])
            case _:
                self.answer(HTTPStatus.NOT_FOUND, {"error": f"nothing at {self.path}"})

    def do_POST(self) -> None:
        """Take a note about a ticket."""
        note = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self.answer(HTTPStatus.CREATED, {"saved": note})

    def answer(self, status: HTTPStatus, body: object) -> None:
        """Send a JSON body."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent: the demo's output is capd's."""


def main(certificate: str, key: str, port_file: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tickets)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    waiting = Path(port_file).with_suffix(".new")
    waiting.write_text(str(server.server_port), encoding="ascii")
    waiting.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
