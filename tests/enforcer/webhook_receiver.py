"""A receiver of webhooks: what came stands in a file, one JSON object a line; a path says what is answered.

What lives here: that. What must not: anything of capd: it is the other end.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE, KEY, PORT, FILE = sys.argv[1:]
LOCK = threading.Lock()
SEEN: Counter[str] = Counter()
FAILURES = 2
"""Of `/flaky`, before it takes what comes."""


class Handler(BaseHTTPRequestHandler):
    """Takes what comes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Write it down, and answer by the path."""
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = {name.lower(): value for name, value in self.headers.items()}
        with LOCK, Path(FILE).open("a", encoding="utf-8") as file:
            SEEN[self.path] += 1
            status = 503 if self.path == "/flaky" and SEEN[self.path] <= FAILURES else 200
            status = 400 if self.path == "/refuses" else status
            file.write(json.dumps({"path": self.path, "fields": fields, "body": body.decode(), "status": status}) + "\n")
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


server = ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
sys.stdout.write("ready\n")
sys.stdout.flush()
server.serve_forever()
