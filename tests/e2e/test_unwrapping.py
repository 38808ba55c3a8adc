"""A connection that turns into TLS and back is one conversation, byte for byte.

What lives here: STARTTLS, unwrap, another program on the descriptor. What must not: TLS that lasts (test_byte_exact).
"""

from __future__ import annotations

import socket
import socketserver
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.certificates import Certificates
from tests.e2e.instance import CLIENTS, PYTHON, Instance
from tests.e2e.truth import Server, serving

pytestmark = pytest.mark.e2e

AGENT = (PYTHON, "-I", CLIENTS / "unwrapping.py")
ROUNDS = 3


class Lines(socketserver.BaseRequestHandler):
    """Says every line back; STARTTLS, UNWRAP and DROP are obeyed after that, END ends without an answer."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        conversation = self.server.ledger.begin()
        connection = self.request
        assert self.server.context is not None
        try:
            with suppress(ssl.SSLError):
                while line := self._line(connection):
                    conversation.request.add(line)
                    if line == b"END\n":
                        break
                    connection.sendall(line)
                    conversation.response.add(line)
                    if line == b"STARTTLS\n":
                        connection = self.server.context.wrap_socket(connection, server_side=True)
                    elif line == b"UNWRAP\n":
                        connection = connection.unwrap()
                    elif line == b"DROP\n":
                        connection = socket.socket(fileno=connection.detach())
        finally:
            connection.close()
            self.server.ledger.end(conversation)

    @staticmethod
    def _line(connection: ssl.SSLSocket) -> bytes:
        """Read one line, and no byte behind it; what comes without an end of line is given as it is."""
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                break
            line += byte
        return bytes(line)


@pytest.fixture(scope="module")
def lines(trusted: Certificates) -> Iterator[Server]:
    """A server for `Lines`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    with serving(Server(Lines, context=context)) as server:
        yield server


@pytest.mark.parametrize(("how", "rounds"), [("farewell", 1), ("farewell", ROUNDS), ("drop", ROUNDS)])
def test_clear_text_after_tls(capd: Instance, trusted: Certificates, lines: Server, how: str, rounds: int) -> None:
    """Clear, TLS, clear, once and several times on one connection, with a farewell and without: both directions whole."""
    name = f"{how} {rounds}"
    capd.run(name, *AGENT, how, str(lines.port), trusted.authority, str(rounds))
    (session,) = capd.assert_recorded(name, lines.ledger.take(1), state="closed")
    assert b"clear text behind 0" in capd.raw(session, "request")
    assert 2 * rounds == sum(record["body"].get("name") == "clear" for record in capd.records(session))


def test_starttls_to_the_end(capd: Instance, trusted: Certificates, lines: Server) -> None:
    """STARTTLS and no way back, as mail clients do: nothing of the handshake or the farewell is in what was said."""
    capd.run("starttls", *AGENT, "starttls", str(lines.port), trusted.authority)
    capd.assert_recorded("starttls", lines.ledger.take(1), state="closed")


def test_another_program_on_the_descriptor(capd: Instance, trusted: Certificates, lines: Server) -> None:
    """What a program says on the socket of a TLS stream that ended by exec was said in clear."""
    capd.run("exec", *AGENT, "exec", str(lines.port), trusted.authority)
    ((heard, answered),) = lines.ledger.take(1)
    (session,) = capd.settled("exec", 1, transport="tcp")
    request = capd.raw(session, "request")
    assert request.endswith(b"\nfrom another program\nEND\n")
    assert ("complete", []) == (session["completeness"]["verdict"], session["completeness"]["reasons"])
    assert heard.length == len(request) - len(b"from another program\nEND\n"), "its peer could make nothing of it"
    assert Counter([answered.length]) == Counter([len(capd.raw(session, "response"))])
