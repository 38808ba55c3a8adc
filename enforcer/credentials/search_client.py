"""The recorder's side of the search for credentials: texts go to the keeper, places come back.

What lives here: `Searcher.search`. What must not: values; what is done about a hit.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack

from capd.enforcer.credentials.search import Hit
from capd.enforcer.credentials.search_server import ANSWER_BYTES_MAX, QUESTION_BYTES_MAX, framed, receive

ANSWER_SECONDS_MAX: Final = 5.0
"""Four megabytes take fifty milliseconds on a quiet machine. The recorder waits as long, and records without it then."""
RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found.

    Attributes:
        found: for each piece in which something is: its number, and where.
        begun: for each piece that ends inside of what may become a value: its number, and where that begins.
        kept_bytes: how many last bytes of a stream are to be asked about again, with those that follow.
    """

    found: tuple[tuple[int, Hit], ...] = ()
    begun: tuple[tuple[int, int], ...] = ()
    kept_bytes: int = 0


class Searcher:
    """Asks the keeper that listens at a path.

    Attributes:
        problem: why it does not answer; None: it does.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self._path, self._monotonic = path, monotonic
        self._connection: socket.socket | None = None
        self._retry_at = 0.0
        self.problem: str | None = None

    def search(self, pieces: Sequence[bytes]) -> Answer | None:
        """Give where credentials are; None: nobody can say, for now."""
        found: list[tuple[int, Hit]] = []
        begun: list[tuple[int, int]] = []
        kept = 0
        for first, asked in _parted(pieces):
            answer = self._ask(asked)
            if answer is None:
                return None
            kept = answer.kept_bytes
            found += ((first + number, hit) for number, hit in answer.found)
            begun += ((first + number, at) for number, at in answer.begun)
        return Answer(found=tuple(found), begun=tuple(begun), kept_bytes=kept)

    def _ask(self, pieces: Sequence[bytes]) -> Answer | None:
        now = self._monotonic()
        if self._connection is None and now < self._retry_at:
            return None
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.sendall(framed({"pieces": list(pieces)}))
            told = receive(self._connection, ANSWER_BYTES_MAX)
            found = tuple((int(number), Hit(int(start), int(end), str(name))) for number, start, end, name in told["found"])
            begun = tuple((int(number), int(at)) for number, at in told["begun"])
            self.problem = None
            return Answer(found=found, begun=begun, kept_bytes=int(told["kept"]))
        except (OSError, EOFError, ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            self.close()
            self.problem = f"the keeper of credentials does not answer ({type(error).__name__})"
            self._retry_at = now + RETRY_SECONDS
            return None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(ANSWER_SECONDS_MAX)
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _parted(pieces: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Give the pieces in questions that are not too long, each with the number of its first; no piece is as long as one."""
    first, size = 0, 0
    for number, piece in enumerate(pieces):
        if size and size + len(piece) > QUESTION_BYTES_MAX:
            yield first, pieces[first:number]
            first, size = number, 0
        size += len(piece)
    if first < len(pieces):
        yield first, pieces[first:]
