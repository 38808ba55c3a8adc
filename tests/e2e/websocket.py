"""A WebSocket server over TLS, by another's implementation, that says back what it hears.

What lives here: the server. What must not: anything of capd.
"""

from __future__ import annotations

import socketserver
import ssl
from contextlib import suppress

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.e2e.certificates import Certificates
from tests.e2e.truth import RECEIVE_BYTES, Server


class Parrot(socketserver.BaseRequestHandler):
    """Says every text back, as a whole, behind a ping."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        assert self.server.context is not None
        conversation = self.server.ledger.begin()
        ours = WSConnection(ConnectionType.SERVER)
        with suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True) as connection:
            parts: list[str] = []
            while data := connection.recv(RECEIVE_BYTES):
                conversation.request.add(data)
                ours.receive_data(data)
                said = b"".join(self._answer(ours, event, parts) for event in ours.events())
                connection.sendall(said)
                conversation.response.add(said)
        self.server.ledger.end(conversation)

    @staticmethod
    def _answer(ours: WSConnection, event: Event, parts: list[str]) -> bytes:
        if isinstance(event, Request):
            return ours.send(AcceptConnection(extensions=[PerMessageDeflate()] if event.extensions else []))
        if isinstance(event, CloseConnection):
            return ours.send(event.response())
        if not isinstance(event, TextMessage):
            return b""
        parts.append(event.data)
        if not event.message_finished:
            return b""
        whole = "".join(parts)
        parts.clear()
        return ours.send(Ping(b"?")) + ours.send(TextMessage(whole))


def websocket_server(trusted: Certificates) -> Server:
    """Give a server that is not started yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    return Server(Parrot, context=context)
