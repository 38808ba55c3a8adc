"""A relay before a server that cuts a connection after so many bytes, and a client of scripted bytes that cuts its own.

What lives here: carrying bytes until the cut. What must not: protocols, what is expected.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

RECEIVE_BYTES = 65_536
SECONDS_MAX = 120.0
"""Until something that must end has ended: a hang is what takes longer, however busy the machine is."""


class Place(StrEnum):
    """Where bytes are counted."""

    SAID = "said by the client"
    ASKED = "asked of the server"
    ANSWERED = "answered by the server"
    TOLD = "told to the client"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One.

    Attributes:
        place: what is counted.
        at: how many bytes go through before it.
        reset: by a reset, not an end.
    """

    place: Place
    at: int
    reset: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a client says before it waits.

    Attributes:
        said: that.
        until: code of the message that it waits for; empty: for nothing.
        times: how many of them.
    """

    said: bytes
    until: str = ""
    times: int = 1


@dataclass
class Heard:
    """What went through in a conversation."""

    passed: dict[Place, bytearray] = field(default_factory=lambda: {place: bytearray() for place in Place})


def end(connection: socket.socket, *, reset: bool) -> None:
    """Close a connection."""
    if reset:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@dataclass
class Relay:
    """A running one: one connection after the other.

    Attributes:
        cut: of the connections that come.
        heard: in the last one.
        mistakes: of its own.
        port: where it listens.
    """

    target: int
    cut: Cut | None = None
    heard: Heard = field(default_factory=Heard)
    mistakes: list[Exception] = field(default_factory=list)
    port: int = 0
    _probe: int = 0

    def serve(self, listener: socket.socket) -> None:
        """Accept until the listener is shut."""
        while True:
            try:
                connection, (_, port) = listener.accept()
            except OSError:
                return
            if port == self._probe:
                connection.close()
                continue
            try:
                self._carry(connection)
            except Exception as error:  # noqa: BLE001 - told to the test
                self.mistakes.append(error)

    def settle(self) -> None:
        """Wait until every connection that has come is over: they are served in their order, and one more comes behind them."""
        with socket.socket() as probe:
            probe.settimeout(SECONDS_MAX)
            probe.bind(("127.0.0.1", 0))
            self._probe = probe.getsockname()[1]
            probe.connect(("127.0.0.1", self.port))
            assert not probe.recv(1)

    def _carry(self, client: socket.socket) -> None:
        cut = self.cut
        reset = cut is not None and cut.reset
        server = socket.create_connection(("127.0.0.1", self.target))
        places = {client: (server, Place.ASKED), server: (client, Place.ANSWERED)}
        with suppress(ConnectionError):
            while True:
                ready, _, _ = select.select([client, server], [], [], SECONDS_MAX)
                if not ready:
                    raise TimeoutError(cut)
                for source in ready:
                    to, place = places[source]
                    data = source.recv(RECEIVE_BYTES)
                    kept = self.heard.passed[place]
                    whole = cut is not None and cut.place is place and len(kept) + len(data) >= cut.at
                    piece = data[: cut.at - len(kept)] if cut is not None and whole else data
                    kept += piece
                    to.sendall(piece)
                    if whole or not data:
                        raise ConnectionError
        end(server, reset=reset)
        end(client, reset=reset)


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """Run one before a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Relay(target, port=int(listener.getsockname()[1]))
        thread = threading.Thread(target=running.serve, args=(listener,))
        thread.start()
        try:
            yield running
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS_MAX)
            assert not thread.is_alive()


class Client:
    """Says steps, and keeps what it is told."""

    def __init__(self, address: tuple[str, int], cut: Cut | None, heard: Heard) -> None:
        self._cut, self._heard = cut, heard
        self._connection = socket.create_connection(address, SECONDS_MAX)

    def run(self, steps: Sequence[Step], seen: Callable[[bytes, str], int]) -> None:
        """Say them until all is said, the connection has ended or it is cut; then read to the end.

        Args:
            steps: what is said.
            seen: tells how many messages of a code there are in bytes.

        Raises:
            TimeoutError: nobody ended it.
        """
        try:
            for step in steps:
                before = seen(self._told, step.until)
                if not self._says(step.said) or not self._waits(step, before, seen):
                    break
            self._ends()
        except ConnectionError:
            pass
        finally:
            self._connection.close()

    @property
    def _told(self) -> bytes:
        return bytes(self._heard.passed[Place.TOLD])

    def _says(self, data: bytes) -> bool:
        said, cut = self._heard.passed[Place.SAID], self._cut
        whole = cut is None or cut.place is not Place.SAID or len(said) + len(data) < cut.at
        piece = data if whole or cut is None else data[: cut.at - len(said)]
        said += piece
        self._connection.sendall(piece)
        if not whole and cut is not None and cut.reset:
            end(self._connection, reset=True)
            raise ConnectionResetError
        return whole

    def _waits(self, step: Step, before: int, seen: Callable[[bytes, str], int]) -> bool:
        while step.until and seen(self._told, step.until) < before + step.times:
            if not self._reads():
                return False
        return True

    def _reads(self) -> bool:
        told, cut = self._heard.passed[Place.TOLD], self._cut
        if cut is not None and cut.place is Place.TOLD and len(told) >= cut.at:
            end(self._connection, reset=cut.reset)
            raise ConnectionResetError
        limit = RECEIVE_BYTES if cut is None or cut.place is not Place.TOLD else cut.at - len(told)
        data = self._connection.recv(limit)
        told += data
        return bool(data)

    def _ends(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        while self._reads():
            pass
