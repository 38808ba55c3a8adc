"""A server of Redis as far as the proxy can tell: values, transactions, databases, users, channels; it tells what it ran.

What lives here: the server's side as a machine of values. What must not: sockets, what is expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from capd.decoders.redis.commands import CommandReader
from capd.decoders.stream import Stream
from tests.decoders import redis_bytes as rd

DATABASES = 16
WRONG = b"wrong"
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
"""Said of the name behind SETNAME when HELLO has signed in already."""


@dataclass
class Model:
    """One connection.

    Attributes:
        ran: every command that was carried out, with its user and database.
        heard: every command that came.
    """

    ran: list[tuple[str, int, tuple[bytes, ...]]] = field(default_factory=list)
    heard: list[tuple[bytes, ...]] = field(default_factory=list)
    user: str = "default"
    database: int = 0
    values: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    _queue: list[tuple[bytes, ...]] | None = None
    _stream: Stream = field(default_factory=Stream)

    def __post_init__(self) -> None:
        self._reader = CommandReader(self._stream)

    def hears(self, data: bytes) -> bytes:
        """Take bytes and give the answers to what became whole."""
        self._stream.append(data)
        said = b""
        while (command := self._reader.read()) is not None:
            words = tuple(command.arguments)
            self.heard.append(words)
            said += self._take(words)
        return said

    def _take(self, words: tuple[bytes, ...]) -> bytes:
        name = words[0].upper()
        if name == b"MULTI":
            self._queue = []
            return rd.OK
        if name == b"DISCARD":
            self._queue = None
            return rd.OK
        if name == b"EXEC":
            queue, self._queue = self._queue or [], None
            return rd.array(*[self._run(queued) for queued in queue])
        if self._queue is not None:
            self._queue.append(words)
            return rd.QUEUED
        return self._run(words)

    def _run(self, words: Sequence[bytes]) -> bytes:
        name = words[0].upper()
        self.ran.append((self.user, self.database, tuple(words)))
        match name:
            case b"SET":
                self.values[self.database, words[1]] = words[2]
                return rd.OK
            case b"GET":
                found = self.values.get((self.database, words[1]))
                return rd.NIL if found is None else rd.string(found)
            case b"SELECT":
                fits = int(words[1]) < DATABASES
                self.database = int(words[1]) if fits else self.database
                return rd.OK if fits else b"-ERR DB index is out of range\r\n"
            case b"AUTH":
                return self._signs_in(words[1] if len(words) > len(("AUTH", "password")) else b"default", words[-1])
            case b"HELLO" if b"AUTH" in words:
                at = words.index(b"AUTH")
                told = self._signs_in(words[at + 1], words[at + 2])
                named = words[words.index(b"SETNAME") + 1] if b"SETNAME" in words else b""
                return told if told != rd.OK else BAD_NAME if b" " in named else rd.HELLO_3
            case b"SUBSCRIBE":
                return b"".join(rd.confirmed(b"subscribe", name, at, b">") for at, name in enumerate(words[1:], 1))
        return {b"HELLO": rd.HELLO_3, b"QUIT": rd.OK}.get(name, rd.PONG)

    def _signs_in(self, user: bytes, password: bytes) -> bytes:
        if password == WRONG:
            return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        self.user = user.decode()
        return rd.OK
