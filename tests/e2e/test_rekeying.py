"""TLS connections that change their keys, or take turns on one thread, are replayed byte for byte.

What lives here: KeyUpdate, renegotiation, alternation. What must not: plain bodies (test_byte_exact).
"""

from __future__ import annotations

import shlex
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.certificates import Certificates
from tests.e2e.instance import CLIENTS, PYTHON, Instance
from tests.e2e.truth import Echo, Hash, Server, noise, serving
from tests.requirements import require_command

pytestmark = pytest.mark.e2e

ALLOW_CLIENT_RENEGOTIATION = 1 << 8
"""SSL_OP_ALLOW_CLIENT_RENEGOTIATION, for which Python 3.11 has no name."""
TEXT_BYTES = 20_000
"""More than one TLS record, so that old and new keys are both used for several."""


class TlsEcho(Echo):
    """Echo over TLS."""

    def setup(self) -> None:
        """Do the server's side of the handshake."""
        assert self.server.context is not None
        self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def handle(self) -> None:
        """Serve one connection; a client may go without a farewell."""
        with suppress(ssl.SSLError):
            super().handle()


@pytest.fixture(scope="module")
def echo_over_tls(trusted: Certificates) -> Iterator[Server]:
    """A TLS server that sends back what it gets, and lets clients renegotiate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    with serving(Server(TlsEcho, context=context)) as server:
        yield server


def texts(seed: str) -> list[str]:
    """Give what is said before, between and after: hexadecimal digits, none of which openssl takes for a command."""
    return [noise(f"{seed}{number}", TEXT_BYTES // 2).hex() for number in range(3)]


def interactive(command: list[str], said: list[str], between: str) -> list[str | Path]:
    """Give a shell command that says texts through openssl, with a command letter of its own between them."""
    lines = [
        f"sleep 0.5; printf %s {text}; sleep 0.5; echo {letter}" for text, letter in zip(said, [*between, "Q"], strict=True)
    ]
    return ["/bin/sh", "-c", f"({'; '.join(lines)}) | {shlex.join(command)} 2>&1"]


@pytest.mark.parametrize(
    ("version", "letters"),
    [("-tls1_3", "Kk"), ("-tls1_3", "kK"), ("-tls1_2", "RR")],
    ids=["KeyUpdate", "one side first", "renegotiation"],
)
def test_a_client_that_changes_keys(
    capd: Instance, trusted: Certificates, echo_over_tls: Server, version: str, letters: str
) -> None:
    """KeyUpdate with and without an answer, and TLS 1.2 renegotiation, in the middle of what is said."""
    require_command("openssl")
    name = f"client {version} {letters}"
    command = ["openssl", "s_client", version, "-CAfile", str(trusted.authority), "-connect", f"127.0.0.1:{echo_over_tls.port}"]
    said = texts(name)
    printed = capd.run(name, *interactive(command, said, letters))
    assert 2 == printed.count(b"KEYUPDATE") + printed.count(b"RENEGOTIATING")
    truth = echo_over_tls.ledger.take(1)
    assert Counter({(Hash.of("".join(said).encode()),) * 2: 1}) == truth
    capd.assert_recorded(name, truth, state="closed")


@pytest.mark.parametrize(("version", "letters"), [("-tls1_3", "Kk"), ("-tls1_2", "rr")], ids=["KeyUpdate", "renegotiation"])
def test_a_server_that_changes_keys(capd: Instance, trusted: Certificates, version: str, letters: str) -> None:
    """The same where the agent is the server, and asks for the change."""
    require_command("openssl")
    name = f"server {version} {letters}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = ["openssl", "s_server", version, "-accept", f"127.0.0.1:{port}", "-naccept", "1"]
    command += ["-cert", str(trusted.certificate), "-key", str(trusted.key)]
    said, heard = texts(name), []

    def client() -> None:
        context = ssl.create_default_context(cafile=str(trusted.authority))
        while True:
            with suppress(ConnectionRefusedError):
                plain = socket.create_connection(("127.0.0.1", port))
                break
        with plain, context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.sendall(b"what the client says")
            with suppress(ssl.SSLError):
                while data := stream.recv(1 << 16):
                    heard.append(data)

    thread = threading.Thread(target=client)
    thread.start()
    printed = capd.run(name, *interactive(command, said, letters))
    assert 2 <= printed.count(b"SSL_do_handshake -> 1")
    thread.join()
    assert "".join(said).encode() == b"".join(heard)
    truth = Counter({(Hash.of(b"".join(heard)), Hash.of(b"what the client says")): 1})
    capd.assert_recorded(name, truth, state="closed")


@pytest.mark.parametrize("how", ["blocking", "memory"])
def test_two_connections_in_turns(capd: Instance, trusted: Certificates, echo_over_tls: Server, how: str) -> None:
    """One thread, two TLS connections, a call on the one and then on the other: two sessions, nothing mixed."""
    name = f"turns {how}"
    capd.run(name, PYTHON, "-I", CLIENTS / "alternating.py", how, trusted.authority, str(echo_over_tls.port), "40")
    capd.assert_recorded(name, echo_over_tls.ledger.take(2), state="closed")
