"""What a real curl and Python's own server say to each other, decoded, against what both say it was."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from capd.decoders.detect import detect
from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import Direction, Message, ProtocolError, Skipped
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, check_spans, feed, normal, split_at
from tests.decoders.relay import Relay, relay_to
from tests.requirements import require_command

CHUNK_BYTES = 7_919
BODY = bytes(range(256)) * 4096


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve a fixed body in the asked framing."""
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for begin in range(0, len(BODY), CHUNK_BYTES):
                part = BODY[begin : begin + CHUNK_BYTES]
                self.wfile.write(b"%x;x=y\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\nX-Trailer: t\r\n\r\n")
        elif self.path == "/close":
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(BODY)
        else:
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

    def do_HEAD(self) -> None:
        """Answer with the length of a body that is not sent."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()

    def do_POST(self) -> None:
        """Answer with the hash of what came."""
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"sha256": hashlib.sha256(body).hexdigest()}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def port() -> Iterator[int]:
    """A running server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="server")
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def curl(relay: Relay, *arguments: str) -> bytes:
    """Run curl; gives what it printed."""
    require_command("curl")
    paths = [f"http://127.0.0.1:{relay.port}{argument}" if argument.startswith("/") else argument for argument in arguments]
    return subprocess.run(["curl", "-sS", "--http1.1", "--noproxy", "*", *paths], check=True, capture_output=True).stdout


def decoded(arrivals: Sequence[Arrival]) -> list[Message]:
    """All messages of a conversation, which must decode whole, and the same when it is cut elsewhere."""
    seen = feed(Http1Decoder(), arrivals)
    check_spans(arrivals, seen)
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    assert normal(seen) == normal(feed(Http1Decoder(), split_at(arrivals, range(0, 3 << 20, 997))))
    messages = [event for event in seen if isinstance(event, Message)]
    assert [] == [message for message in messages if message.incomplete]
    return messages


def content(messages: Sequence[Message], direction: Direction, exchange: int = 0) -> bytes:
    """The body of an exchange in a direction."""
    return b"".join(message.content for message in messages if message.direction is direction and message.exchange == exchange)


def heads(messages: Sequence[Message]) -> list[tuple[int | None, str]]:
    """Exchange and summary of all heads."""
    return [(message.exchange, message.summary) for message in messages if message.type in ("request", "response")]


@pytest.mark.parametrize("path", ["/length", "/chunked", "/close"])
def test_download(port: int, path: str) -> None:
    """A body is what curl got, in each framing."""
    with relay_to(port) as relay:
        got = curl(relay, path)
    (arrivals,) = relay.conversations
    messages = decoded(arrivals)
    assert BODY == got
    assert BODY == content(messages, RESPONSE)
    assert [(0, f"GET {path} HTTP/1.1"), (0, "200 OK")] == heads(messages)
    assert "http1" == detect(
        b"".join(data for to, data in arrivals if to is REQUEST and isinstance(data, bytes)), b"", None, ended=False
    )
    trailers = [message.fields["trailers"] for message in messages if message.type == "end" and message.direction is RESPONSE]
    assert [[["X-Trailer", "t"]] if path == "/chunked" else []] == trailers


@pytest.mark.parametrize("header", ["Content-Type: x/y", "Transfer-Encoding: chunked"])
def test_upload(port: int, tmp_path: Path, header: str) -> None:
    """An uploaded body is what the server got, with and without chunks, after `100 Continue`."""
    (tmp_path / "body").write_bytes(BODY)
    with relay_to(port) as relay:
        answer = curl(relay, "/upload", "-H", header, "-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path / 'body'}")
    messages = decoded(relay.conversations[0])
    assert BODY == content(messages, REQUEST)
    assert hashlib.sha256(BODY).hexdigest() == json.loads(answer)["sha256"]
    assert answer == content(messages, RESPONSE)
    assert [(0, "POST /upload HTTP/1.1"), (0, "100 Continue"), (0, "201 Created")] == heads(messages)


def test_keep_alive(port: int) -> None:
    """Several exchanges of one connection are told apart."""
    with relay_to(port) as relay:
        got = curl(relay, "/a", "/chunked", "/b")
    (arrivals,) = relay.conversations
    messages = decoded(arrivals)
    assert BODY * 3 == got
    expected = [
        (number, summary)
        for number, path in enumerate(("/a", "/chunked", "/b"))
        for summary in (f"GET {path} HTTP/1.1", "200 OK")
    ]
    assert expected == heads(messages)
    assert [BODY] * 3 == [content(messages, RESPONSE, number) for number in range(3)]


def test_head(port: int) -> None:
    """The answer to HEAD has no body, whatever its length field says."""
    with relay_to(port) as relay:
        curl(relay, "-I", "/x", "--next", "-sS", "/y")
    messages = decoded(relay.conversations[0])
    assert b"" == content(messages, RESPONSE, 0)
