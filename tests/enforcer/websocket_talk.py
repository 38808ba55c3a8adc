"""The `websockets` library on both ends; each a process: `serve CERTIFICATE KEY`, `talk PORT TRUST ADDRESS`.

What lives here: an echo, and what is said to it. What must not: capd.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

SIZES = (0, 1, 125, 126, 65_535, 65_536, 3_000_000)


def echo(connection: ServerConnection) -> None:
    """Give back what comes, until `bye`."""
    for message in connection:
        if message == "bye":
            connection.close(1000, "as you wish")
            return
        connection.send(message)


def serving(certificate: str, key: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(echo, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        print("ready", server.socket.getsockname()[1], flush=True)  # noqa: T201 - who started us waits for it
        server.serve_forever()


def talk(port: str, trust: str, address: str) -> None:
    """Say things, and print what came of it."""
    context = ssl.create_default_context(cafile=trust)
    connection = socket.create_connection((address, int(port)))
    told: dict[str, object] = {}
    try:
        with connect(f"wss://api.test:{port}/", sock=connection, ssl=context, max_size=None) as found:
            messages: list[str | bytes] = [*("\u00e4" * size for size in SIZES), *(bytes(size) for size in SIZES)]
            for message in messages:
                found.send(message)
                told["echoed"] = told.get("echoed", True) and found.recv() == message
            told["pinged"] = found.ping().wait(180)
            told["extensions"] = [str(one) for one in found.protocol.extensions]
            found.send("bye")
            try:
                found.recv()
            except ConnectionClosedOK as error:
                told["code"] = error.rcvd.code if error.rcvd else None
    except InvalidStatus as error:
        told["status"] = error.response.status_code
    print(json.dumps(told))  # noqa: T201 - what whoever started us reads


if __name__ == "__main__":
    (serving if sys.argv[1] == "serve" else talk)(*sys.argv[2:])
