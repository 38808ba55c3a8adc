"""Agent: children that send over TLS as fast as they can and are gone with the last byte, without any farewell.

abrupt.py CA PORT ROUNDS WRITES BYTES
"""

from __future__ import annotations

import os
import socket
import ssl
import sys


def main(ca: str, port: str, rounds: str, writes: str, size: str) -> None:
    """Make one child after the other."""
    context = ssl.create_default_context(cafile=ca)
    content = bytes(int(size))
    for _round in range(int(rounds)):
        child = os.fork()
        if not child:
            secret = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="127.0.0.1")
            for _write in range(int(writes)):
                secret.sendall(content)
            os._exit(0)
        assert 0 == os.waitpid(child, 0)[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
