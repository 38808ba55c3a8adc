"""Agent: plain sockets of every sort; peers echo.

sockets.py udp PORT TEXT...         datagrams from one unconnected socket to 127.0.0.1 and to ::1, in turn
sockets.py unix PATH TEXT...        one unix stream
sockets.py tcp6 PORT TEXT...        one IPv6 connection, by writev and readv
sockets.py plain PORT FILE          one IPv4 connection, the file in sends of 1 MiB
sockets.py slowly PORT FILE         the same in sends of 16 KiB, and a rest after each
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

SEND_BYTES = 1 << 20


def udp(port: str, *texts: str) -> None:
    """Send each text as a datagram and wait for its echo."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as four_and_six:
        four_and_six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for number, text in enumerate(texts):
            four_and_six.sendto(text.encode(), ("::ffff:127.0.0.1" if number % 2 == 0 else "::1", int(port)))
            four_and_six.recvfrom(65536)


def unix(path: str, *texts: str) -> None:
    """Send each text and read its echo."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        for text in texts:
            connection.sendall(text.encode())
            connection.recv(65536)


def tcp6(port: str, *texts: str) -> None:
    """Send all texts as one vector, and read the echo into two buffers at once."""
    with socket.create_connection(("::1", int(port))) as connection:
        parts = [text.encode() for text in texts]
        total = sum(map(len, parts))
        assert os.writev(connection.fileno(), parts) == total
        while total:
            total -= os.readv(connection.fileno(), [bytearray(3), bytearray(total)])


def slowly(port: str, name: str) -> None:
    """Send a file so that a small ring can be drained meanwhile."""
    plain(port, name, SEND_BYTES // 64, 0.01)


def plain(port: str, name: str, size: int = SEND_BYTES, seconds: float = 0) -> None:
    """Send a file and read to the end."""
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        content = memoryview(Path(name).read_bytes())
        for start in range(0, len(content), size):
            connection.sendall(content[start : start + size])
            time.sleep(seconds)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


SORTS: dict[str, Callable[..., None]] = {"udp": udp, "unix": unix, "tcp6": tcp6, "plain": plain, "slowly": slowly}

if __name__ == "__main__":
    SORTS[sys.argv[1]](*sys.argv[2:])
