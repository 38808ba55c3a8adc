"""What clients in use speak to, in one server.

Git, an index of Python packages, a registry of npm, the API of Kubernetes, WebSocket, events, and blobs.

What lives here: what a path answers, and a list of every request that came. What must not: anything of capd: it is the other
end. All content is below the folder that it is started for (service_content.py).

Run: services.py CERTIFICATE KEY FOLDER
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from websockets.sync.server import ServerConnection, serve

PORT, SOCKET_PORT = 8443, 8444
EVENTS = 3
HEARD = threading.Semaphore(0)
HEARD_SECONDS_MAX = 120
"""An event is sent when the client has asked for `/heard`, which says that it got the one before."""
SEEN = "seen"
"""The file of requests: method and target of each, a line each."""
KINDS = {"pods": "Pod", "namespaces": "Namespace"}


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self._note()
        path, _, query = self.path.partition("?")
        first = path.split("/")[1]
        if first == "git":
            self._git(path, query, b"")
        elif first == "k8s":
            self._kubernetes(path.removeprefix("/k8s"))
        elif first == "events":
            self._events()
        elif first == "heard":
            HEARD.release()
            self._whole(200, b"", "text/plain")
        else:
            self._file(unquote(path))

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def do_POST(self) -> None:
        """Take a body; give it back, or to Git."""
        self._note()
        body = self._body()
        path, _, query = self.path.partition("?")
        if path.startswith("/git/"):
            self._git(path, query, body)
        else:
            self._whole(200, body, "application/octet-stream")

    do_PUT = do_DELETE = do_POST  # noqa: N815 - as above

    def _note(self) -> None:
        note(self.folder, f"{self.command} {self.path}")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _whole(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _file(self, path: str) -> None:
        found = self.folder / path.lstrip("/")
        found = found / "index.html" if found.is_dir() else found
        kind = {".html": "text/html", ".json": "application/json"}.get(found.suffix, "application/octet-stream")
        if found.is_file() and found.resolve().is_relative_to(self.folder.resolve()):
            self._whole(200, found.read_bytes(), kind)
        else:
            self._whole(404, b"", kind)

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

    def _git(self, path: str, query: str, body: bytes) -> None:
        """Run Git's own server (git-http-backend(1))."""
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path.removeprefix("/git"),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._whole(int(fields.pop("Status", "200").split()[0]), content, fields["Content-Type"])

    def _kubernetes(self, path: str) -> None:
        """Be an API server with two kinds and no extension groups."""
        resources = [
            {"name": name, "singularName": "", "namespaced": name == "pods", "kind": kind, "verbs": ["get", "list"]}
            for name, kind in {**KINDS, "secrets": "Secret"}.items()
        ]
        answers: dict[str, object] = {
            "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources},
        }
        name = path.rpartition("/")[2]
        if name in KINDS:
            item = {"metadata": {"name": "shop-7f9c", "namespace": "default"}, "status": {"phase": "Running"}}
            answers[path] = {"kind": f"{KINDS[name]}List", "apiVersion": "v1", "metadata": {}, "items": [item]}
        found = answers.get(path)
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
        self._whole(200 if found else 404, json.dumps(found or status).encode(), "application/json")


def note(folder: Path, line: str) -> None:
    """Write down that a request came, before it is answered."""
    with (folder / SEEN).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


class Server(ThreadingHTTPServer):
    """Both families."""

    address_family = socket.AF_INET6
    daemon_threads = True


def echo(folder: Path, connection: ServerConnection) -> None:
    """Give back what a WebSocket's peer says."""
    assert connection.request is not None
    note(folder, f"WEBSOCKET {connection.request.path}")
    for message in connection:
        connection.send(message)


def main() -> None:
    """Serve."""
    certificate, key, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    Handler.folder = folder
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    secure = Server(("::", PORT), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    listener = socket.create_server(("::", SOCKET_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with serve(lambda connection: echo(folder, connection), sock=listener, ssl=context, max_size=None) as sockets:
        print("ready", flush=True)  # noqa: T201 - who started us waits for it
        sockets.serve_forever()


if __name__ == "__main__":
    main()
