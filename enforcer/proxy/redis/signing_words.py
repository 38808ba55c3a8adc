"""AUTH, HELLO and SELECT: as whom, and where, a client wants to be.

What lives here: reading their words (redis.io, commands AUTH, HELLO, SELECT). What must not: what follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.redis.wire import length_of

DEFAULT_USER: Final = "default"
DATABASE_MAX: Final = (1 << 31) - 1
_VERSIONS: Final = (b"2", b"3")
_AUTH: Final = frozenset({2, 3})
_NAMES: Final = re.compile(rb"[!-~]*")


class WordsError(Exception):
    """Redis would not take it either. Never leaves this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client asks for.

    Attributes:
        user: as whom; None: it does not say, and stays who it is.
        password: the client's own.
        version: of RESP; None: it is AUTH.
        rest: of HELLO, what is said beside that.
    """

    user: str | None
    password: bytes = field(default=b"", repr=False)
    version: bytes | None = None
    rest: tuple[bytes, ...] = ()

    @property
    def without_password(self) -> list[bytes]:
        """Give what HELLO says without signing in."""
        return [b"HELLO", self.version or b"2", *self.rest]


def wish_of(arguments: Sequence[bytes]) -> Wish:
    """Read AUTH or HELLO.

    Raises:
        WordsError: its words make no sense.
    """
    if arguments[0].upper() == b"AUTH":
        if len(arguments) not in _AUTH:
            raise WordsError("wrong number of arguments for 'auth' command")
        return Wish(user=_name(arguments[1]) if len(arguments) == max(_AUTH) else DEFAULT_USER, password=arguments[-1])
    return _hello(arguments)


def _hello(arguments: Sequence[bytes]) -> Wish:
    if len(arguments) == 1:
        return Wish(user=None, version=b"")
    version = arguments[1]
    if version not in _VERSIONS:
        raise WordsError("unsupported protocol version")
    user: str | None = None
    password = b""
    rest: tuple[bytes, ...] = ()
    index = 2
    while index < len(arguments):
        word, left = arguments[index].upper(), len(arguments) - index - 1
        if word == b"AUTH" and left >= 2 and user is None:  # noqa: PLR2004 - user, password
            user, password = _name(arguments[index + 1]), arguments[index + 2]
            index += 3
        elif word == b"SETNAME" and left >= 1 and not rest:
            if _NAMES.fullmatch(arguments[index + 1]) is None:  # the server says so when it has signed in already
                raise WordsError("Client names cannot contain spaces, newlines or special characters.")
            rest = (arguments[index], arguments[index + 1])
            index += 2
        else:
            raise WordsError("syntax error in HELLO")
    return Wish(user=user, password=password, version=version, rest=rest)


def _name(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise WordsError("the name of the user is no text") from None


def database_of(arguments: Sequence[bytes]) -> str | None:
    """Give the database that a SELECT is for, by its number; None: Redis would not take it."""
    if len(arguments) != 2:  # noqa: PLR2004 - SELECT index
        return None
    number = length_of(arguments[1], DATABASE_MAX)
    return None if number is None else str(number)
