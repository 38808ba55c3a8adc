"""Bytes of Redis for tests.

What lives here: building commands and answers. What must not: expectations.
"""

from __future__ import annotations


def string(value: bytes, code: bytes = b"$") -> bytes:
    """A bulk string."""
    return code + str(len(value)).encode() + b"\r\n" + value + b"\r\n"


def command(*words: bytes | str) -> bytes:
    """A command as clients send it."""
    raw = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(map(string, raw))


def array(*values: bytes, code: bytes = b"*") -> bytes:
    """Values that are ready, as an array; a map's count is that of its pairs."""
    count = len(values) // 2 if code in b"%|" else len(values)
    return code + b"%d\r\n" % count + b"".join(values)


def published(channel: bytes, text: bytes, code: bytes = b"*") -> bytes:
    """A message of a channel."""
    return array(string(b"message"), string(channel), string(text), code=code)


def confirmed(kind: bytes, channel: bytes | None, count: int, code: bytes = b"*") -> bytes:
    """What SUBSCRIBE and its like are answered with for each channel."""
    name = b"$-1\r\n" if channel is None else string(channel)
    return array(string(kind), name, b":%d\r\n" % count, code=code)


OK = b"+OK\r\n"
NIL = b"$-1\r\n"
QUEUED = b"+QUEUED\r\n"
PING = command("PING")
PONG = b"+PONG\r\n"
HELLO_3 = array(string(b"server"), string(b"redis"), string(b"proto"), b":3\r\n", code=b"%")
HELLO_2 = array(string(b"server"), string(b"redis"), string(b"proto"), b":2\r\n")
