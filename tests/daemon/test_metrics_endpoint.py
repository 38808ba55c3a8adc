"""Where metrics are served: addresses, requests, and clients that want too much."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.daemon import metrics_address, metrics_endpoint
from capd.daemon.errors import CannotListenError
from capd.daemon.metrics_address import UnixAddress
from capd.daemon.metrics_endpoint import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Endpoint, answer
from tests.daemon.conftest import wait_until

PAGE = b"capd_info 1\n"
SECONDS_MAX = 120.0


@pytest.mark.parametrize("text", ["127.0.0.1:9477", "127.9.9.9:1", "[::1]:65535", "unix:/run/capd/metrics/metrics.sock"])
def test_addresses_of_this_host(text: str) -> None:
    """Loopback addresses and paths are read, and written as they were."""
    assert text == str(metrics_address.parse(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0:9477", "0.0.0.0 can be reached from other hosts"),
        ("[::]:9477", "can be reached from other hosts"),
        ("192.168.1.2:9477", "neither password nor encryption"),
        ("[::ffff:127.0.0.1]:9477", "can be reached from other hosts"),
        ("[::1%eth0]:9477", "can be reached from other hosts"),
        ("localhost:9477", "'localhost' is no address"),
        ("::1:9477", "must be"),
        ("[127.0.0.1]:9477", "must be"),
        (":9477", "is no address"),
        ("127.0.0.1", "must be"),
        ("127.0.0.1:0", "must be"),
        ("127.0.0.1:65536", "must be"),
        ("127.0.0.1:٣", "must be"),
        ("9477", "must be"),
        ("", "must be"),
        ("unix:", "must be an absolute path"),
        ("unix:run/x", "must be an absolute path"),
        ("unix:/a\0b", "must be an absolute path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
    ],
)
def test_no_other_address(text: str, reason: str) -> None:
    """What other hosts could reach, what may change its meaning and what is no address is refused, with the reason."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        metrics_address.parse(text)


def test_dead_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """What a dead process left is replaced; a live listener's socket, a file and a link to a file stay."""
    address = UnixAddress(path=tmp_path / "s")
    first = metrics_address.listen(address)
    assert 0o666 == address.path.stat().st_mode & 0o777
    with pytest.raises(CannotListenError, match="in use"):
        metrics_address.listen(address)
    first.close()
    metrics_address.listen(address).close()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with pytest.raises(CannotListenError, match="which is no socket"):
            metrics_address.listen(UnixAddress(path=tmp_path / name))
    assert "kept" == (tmp_path / "link").read_text()


@pytest.mark.parametrize(
    ("head", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, PAGE),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200, PAGE),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 200, b""),
        (b"GET / HTTP/1.1\r\n\r\n", 404, b"capd serves /metrics and nothing else\n"),
        (b"GET /metrics/../../etc HTTP/1.1\r\n\r\n", 404, b"capd serves /metrics and nothing else\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405, b"GET and HEAD are served\n"),
        (b"PRI * HTTP/2.0\r\n\r\n", 400, b"this is no request of HTTP/1.1\n"),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400, b"this is no request of HTTP/1.1\n"),
        (b"\r\n\r\n", 400, b"this is no request of HTTP/1.1\n"),
        (b"\xff\x00 \xff HTTP/1.1\r\n\r\n", 405, b"GET and HEAD are served\n"),
    ],
)
def test_requests(head: bytes, status: int, body: bytes) -> None:
    """Each request gets the status that HTTP has for it, and only GET a page."""
    found, content = answer(head, lambda: PAGE)
    assert (status, body) == (found.value, content.partition(b"\r\n\r\n")[2])


def test_a_page_that_takes_too_long_is_said_so() -> None:
    """When capd cannot say how it is, the scraper gets an error, and no old figures."""
    assert 503 == answer(b"GET /metrics HTTP/1.1\r\n\r\n", lambda: None)[0]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give the port of an endpoint whose clients have little time."""
    monkeypatch.setattr(metrics_endpoint, "REQUEST_SECONDS_MAX", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint(listener, lambda: PAGE)
    endpoint.start()
    yield listener.getsockname()[1]
    endpoint.stop()


def scrape(port: int) -> tuple[int, bytes]:
    """Ask as a scraper does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    return response.status, response.read()


def test_slow_clients_are_hung_up_on(port: int) -> None:
    """Who sends nothing, or a byte now and then, is hung up on in time; another is served meanwhile."""
    with socket.create_connection(("127.0.0.1", port)) as mute, socket.create_connection(("127.0.0.1", port)) as slow:
        wait_until(lambda: (200, PAGE) == _scraped(port), "another is served")  # who is too slow for half a second asks again
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            _dribble(slow)
        mute.settimeout(SECONDS_MAX)
        assert b"" == _rest(mute)


def test_endless_clients_are_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends a head without an end is hung up on long before its time is up."""
    monkeypatch.setattr(metrics_endpoint, "REQUEST_SECONDS_MAX", 10 * SECONDS_MAX)
    with socket.create_connection(("127.0.0.1", port)) as endless:
        endless.sendall(b"GET /metrics HTTP/1.1\r\n" + b"x" * (REQUEST_BYTES_MAX + 5000))
        endless.settimeout(SECONDS_MAX)
        assert b"" == _rest(endless)


def test_who_comes_above_the_limit_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all places taken a client is hung up on at once; when they are free again the next one is served."""
    monkeypatch.setattr(metrics_endpoint, "REQUEST_SECONDS_MAX", 10 * SECONDS_MAX)
    taken = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_MAX)]
    with socket.create_connection(("127.0.0.1", port)) as late:
        late.settimeout(SECONDS_MAX)
        assert b"" == _rest(late)
    for client in taken:
        client.close()
    wait_until(lambda: (200, PAGE) == _scraped(port), "the next one is served")


def _scraped(port: int) -> tuple[int, bytes] | None:
    """Ask as a scraper does; give nothing when hung up on."""
    try:
        return scrape(port)
    except ConnectionError:
        return None


def _dribble(client: socket.socket) -> None:
    """Send a byte now and then, for long."""
    end = time.monotonic() + SECONDS_MAX
    while time.monotonic() < end:
        client.sendall(b"G")
        time.sleep(0.05)


def _rest(client: socket.socket) -> bytes:
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""
