"""Agent: uses one plain TCP connection through several descriptors and processes; the peer echoes.

descriptors.py dup|inherit|pass PORT TEXT...
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

IN_CHILD = "import os, sys; os.write(0, sys.argv[1].encode())"


def exchange(connection: socket.socket, text: str) -> None:
    """Send a text and read its echo."""
    connection.sendall(text.encode())
    read_echo(connection, text)


def read_echo(connection: socket.socket, text: str) -> None:
    """Read as many bytes as a text has."""
    left = len(text.encode())
    while left:
        left -= len(connection.recv(left))


def by_dup(connection: socket.socket, text: str) -> None:
    """Send and receive on a duplicate, closed after."""
    with connection.dup() as duplicate:
        exchange(duplicate, text)


def by_inheritance(connection: socket.socket, text: str) -> None:
    """Let a new program write to the connection, its standard input."""
    subprocess.run([sys.executable, "-I", "-c", IN_CHILD, text], stdin=connection.fileno(), check=True)
    read_echo(connection, text)


def by_passing(connection: socket.socket, text: str) -> None:
    """Let a process that never had the connection get it through a unix socket (SCM_RIGHTS)."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        number = connection.fileno()
        connection.detach()
        os.close(number)
        ours.close()
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        exchange(socket.socket(fileno=descriptors[0]), text)
        os._exit(0)
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    _, status = os.waitpid(child, 0)
    assert status == 0


WAYS = {"dup": by_dup, "inherit": by_inheritance, "pass": by_passing}


def main(way: str, port: str, *texts: str) -> None:
    """Send the texts in turn directly and the other way."""
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        for number, text in enumerate(texts):
            (exchange if number % 2 == 0 else WAYS[way])(connection, text)


if __name__ == "__main__":
    main(*sys.argv[1:])
