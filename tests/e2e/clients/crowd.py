"""Agent: many short connections, one after the other, when it is told to.

crowd.py PORT COUNT BYTES DIRECTORY     begins when DIRECTORY/go is there, makes DIRECTORY/gone, ends with DIRECTORY/end
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    while not path.exists():
        time.sleep(0.02)


def main(port: str, count: str, size: str, name: str) -> None:
    """Make the connections."""
    directory = Path(name)
    wait_for(directory / "go")
    for _number in range(int(count)):
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            connection.sendall(bytes(int(size)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(64):
                pass
    (directory / "gone").touch()
    wait_for(directory / "end")


if __name__ == "__main__":
    main(*sys.argv[1:])
