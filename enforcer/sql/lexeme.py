"""Pieces of a statement: words, names, literals, signs; and the ways in which a session reads them.

What lives here: the values. What must not: finding them (postgresql_scanner.py, mysql_scanner.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

MESSAGE_BYTES_MAX: Final = 65_536
"""Of SQL in one message. There is hardly a longer statement that a person wrote, and a parser's time grows with it."""
LEXEMES_MAX: Final = 16_384
"""In one message: a parser makes about a kilobyte of each."""
NESTING_MAX: Final = 40
"""Brackets within brackets. sqlglot takes some twenty calls for each; Python allows a thousand."""


class Dialect(StrEnum):
    """Whose SQL it is; MariaDB's is read as MySQL's, and what only one of them has is refused or means the same."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"


class Kind(IntEnum):
    """What a lexeme is."""

    WORD = 1
    """Without quotes: a keyword or a name."""
    NAME = 2
    """In quotes."""
    STRING = 3
    NUMBER = 4
    PARAMETER = 5
    OPERATOR = 6
    SIGN = 7
    """Brackets, comma, dot, semicolon, colon."""
    VARIABLE = 8
    """Of MySQL: `@a`, `@@a`."""


LITERALS: Final = frozenset({Kind.STRING, Kind.NUMBER, Kind.PARAMETER})


class Lexeme(NamedTuple):
    """One piece.

    Attributes:
        kind: what it is.
        text: of a word the form that is compared (PostgreSQL: lower case), of a name what its quotes hold, else as written.
        start, end: where it stands, in characters.
    """

    kind: Kind
    text: str
    start: int
    end: int


def words(text: str) -> frozenset[str]:
    """Give the words of a text: a table that is read as one."""
    return frozenset(text.split())


class Server(NamedTuple):
    """A server of MySQL's kind, as its greeting says.

    Attributes:
        mariadb: it is MariaDB; else MySQL itself.
        version: as comments have it: 101119 for 10.11.19, 90704 for 9.7.4.
    """

    mariadb: bool
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a session reads text.

    Attributes:
        dialect: whose.
        encoding: Python's name of the client's encoding, one of encodings.SAFE; None: not known, or not safe.
        plain_backslash: a backslash in a string is a character like others: PostgreSQL's standard_conforming_strings, MySQL's
            NO_BACKSLASH_ESCAPES. None: not known.
        double_quotes_name: `"a"` is a name: always in PostgreSQL, in MySQL with ANSI_QUOTES. None: not known.
        server: which server of MySQL's kind it is; None: not known, or PostgreSQL.
    """

    dialect: Dialect
    encoding: str | None = "utf-8"
    plain_backslash: bool | None = True
    double_quotes_name: bool | None = True
    server: Server | None = None


POSTGRESQL_DEFAULT: Final = Reading(dialect=Dialect.POSTGRESQL)
MYSQL_DEFAULT: Final = Reading(dialect=Dialect.MYSQL, plain_backslash=False, double_quotes_name=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A message in pieces.

    Attributes:
        text: of the message.
        lexemes: of all of it, without comments and blanks.
        problems: why this is perhaps not how the server reads it.
    """

    text: str
    lexemes: tuple[Lexeme, ...]
    problems: tuple[str, ...] = ()
