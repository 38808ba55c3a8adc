"""A service manager as far as it keeps descriptors: sd_notify(3) and sd_listen_fds(3), for a service of one process.

What lives here: receiving, keeping, handing over. What must not: cases; any knowledge of what is kept.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MESSAGE_BYTES_MAX: Final = 1 << 16
DESCRIPTORS_MAX: Final = 253
"""Of one message (SCM_MAX_FD)."""
BECOMES: Final = """
import fcntl, os, sys
numbers, names = [int(word) for word in sys.argv[1].split(",") if word], sys.argv[2]
above = 3 + len(numbers)
aside = [fcntl.fcntl(number, fcntl.F_DUPFD, above) for number in numbers]
for place, number in enumerate(aside, 3):
    os.dup2(number, place, inheritable=True)
os.closerange(above, max([above, *aside, *numbers]) + 1)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=names)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Puts descriptors where a service expects them, and becomes the service."""


class ServiceManager:
    """Keeps what one service gives it."""

    def __init__(self, directory: Path) -> None:
        self.address = directory / "notify"
        self.kept: list[tuple[str, int]] = []
        """Name and descriptor, in the order in which they came."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def command(self, words: Sequence[str]) -> tuple[list[str], list[int]]:
        """Give the command line that starts a service with what is kept, and the descriptors that it must inherit."""
        numbers, names = [number for _, number in self.kept], [name for name, _ in self.kept]
        become = [sys.executable, "-P", "-c", BECOMES, ",".join(map(str, numbers)), ":".join(names)]
        return [*become, *words], numbers

    def settle(self) -> None:
        """Wait until all messages that were sent are taken."""
        done = threading.Event()
        self._barrier = done
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"settled", str(self.address))
        assert done.wait(180)

    def drop(self) -> None:
        """Close all that is kept, as at the end of a service that is stopped."""
        for _name, number in self.kept:
            os.close(number)
        self.kept.clear()

    def close(self) -> None:
        """End it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"end", str(self.address))
        self._thread.join()
        self._socket.close()
        self.drop()

    def _serve(self) -> None:
        while True:
            message, descriptors, _flags, _from = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
            fields = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
            if message == b"end":
                return
            if message == b"settled":
                self._barrier.set()
            self._take(fields, descriptors)

    def _take(self, fields: Mapping[str, str], descriptors: Sequence[int]) -> None:
        name = fields.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in fields:
            for gone in [entry for entry in self.kept if entry[0] == name]:
                self.kept.remove(gone)
                os.close(gone[1])
        if "FDSTORE" in fields:
            self.kept += [(name, descriptor) for descriptor in descriptors]
        else:
            for descriptor in descriptors:
                os.close(descriptor)
