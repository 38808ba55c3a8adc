"""Agent: says each line of a file over WebSocket and TLS, waits until it comes back, and says goodbye.

talking.py CA PORT FILE PACKED
"""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage
from wsproto.extensions import PerMessageDeflate


def heard(connection: ssl.SSLSocket, ours: WSConnection) -> list[Event]:
    """Wait for more, and give what it was."""
    ours.receive_data(connection.recv(1 << 16) or None)
    return list(ours.events())


def main(ca: str, port: str, file: str, packed: str) -> None:
    """Say everything."""
    context = ssl.create_default_context(cafile=ca)
    ours = WSConnection(ConnectionType.CLIENT)
    extensions = [PerMessageDeflate()] if packed == "1" else []
    with context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="127.0.0.1") as connection:
        connection.sendall(ours.send(Request(host=f"127.0.0.1:{port}", target="/talk", extensions=list(extensions))))
        while not any(isinstance(event, AcceptConnection) for event in heard(connection, ours)):
            pass
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            connection.sendall(ours.send(TextMessage(line)))
            back = ""
            while back != line:
                back += "".join(event.data for event in heard(connection, ours) if isinstance(event, TextMessage))
        connection.sendall(ours.send(CloseConnection(1000, "done")))
        while not any(isinstance(event, CloseConnection) for event in heard(connection, ours)):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
