"""An HTTP/2 server over TLS, by another's implementation, whose answers depend on the path.

What lives here: the server. What must not: anything of capd.
"""

from __future__ import annotations

import socketserver
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated

from tests.e2e.certificates import Certificates
from tests.e2e.truth import RECEIVE_BYTES, Conversation, Server, answer


@dataclass
class Asked:
    """A request on its way, and what is left of its answer."""

    path: str
    length: int = 0
    left: deque[bytes] = field(default_factory=deque)


class Mirror2(socketserver.BaseRequestHandler):
    """Answers GET and POST /anything/N with N bytes that depend on the path, all streams at a time, and a trailer."""

    server: Server

    def handle(self) -> None:
        """Serve one connection."""
        assert self.server.context is not None
        conversation = self.server.ledger.begin()
        with suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True) as connection:
            self._serve(connection, conversation)
        self.server.ledger.end(conversation)

    def _serve(self, connection: ssl.SSLSocket, conversation: Conversation) -> None:
        ours = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        ours.initiate_connection()
        asked: dict[int, Asked] = {}
        self._send(ours, connection, conversation)
        while data := connection.recv(RECEIVE_BYTES):
            conversation.request.add(data)
            for event in ours.receive_data(data):
                if isinstance(event, RequestReceived):
                    head = {str(name): str(value) for name, value in event.headers or ()}
                    asked[event.stream_id] = Asked(head[":path"])
                elif isinstance(event, DataReceived):
                    asked[event.stream_id].length += len(event.data)
                    ours.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._begin(ours, event.stream_id, asked[event.stream_id])
                elif isinstance(event, StreamReset):
                    asked.pop(event.stream_id, None)
                if isinstance(event, StreamEnded | WindowUpdated):
                    self._go_on(ours, asked)
            self._send(ours, connection, conversation)

    def _begin(self, ours: H2Connection, number: int, one: Asked) -> None:
        body = answer(one.path.partition("?")[0])
        one.left.extend(body[at : at + 5_000] for at in range(0, len(body), 5_000))
        kind = ("content-type", "application/octet-stream")
        ours.send_headers(number, [(":status", "200"), kind, ("x-received", str(one.length)), ("set-cookie", "seen=1")])

    def _go_on(self, ours: H2Connection, asked: dict[int, Asked]) -> None:
        """Send a part of each answer in turn, as far as the client allows."""
        while sendable := [
            (number, one) for number, one in asked.items() if one.left and ours.local_flow_control_window(number) >= 5_000
        ]:
            for number, one in sendable:
                if ours.local_flow_control_window(number) >= 5_000:
                    ours.send_data(number, one.left.popleft())
                if not one.left:
                    ours.send_headers(number, [("x-trailer", "end")], end_stream=True)
                    del asked[number]

    def _send(self, ours: H2Connection, connection: ssl.SSLSocket, conversation: Conversation) -> None:
        data = ours.data_to_send()
        connection.sendall(data)
        conversation.response.add(data)


def http2_server(trusted: Certificates) -> Server:
    """Give a server that is not started yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    context.set_alpn_protocols(["h2"])
    return Server(Mirror2, context=context)
