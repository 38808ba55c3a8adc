"""Passwords in the text of SQL: `PASSWORD 'x'`, `IDENTIFIED BY 'x'`, options and settings with such names.

What lives here: which literals of a statement are passwords. What must not: what statements do (enforcer/sql), messages.

Only literals are hidden, never words: otherwise whoever writes a password could hide what else a statement does. Texts are cut
into pieces as the servers do by default; a literal that has no end goes to the end of the text, where a server refuses it.

A literal is a password where a name of one stands before it, with nothing between but what assigns, or a function that makes
something of it; where it is the second of two, and the first has the name of a setting; where it stands for a column of such a
name in INSERT and UPDATE; as an argument of functions that encrypt; and anywhere behind IDENTIFIED or SET PASSWORD, up to the
end of their statement. What is written in a literal is read as a statement too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final, NamedTuple

from capd.enforcer.masking.place import Place, filled, joined

POSTGRESQL: Final = "postgresql"
MYSQL: Final = "mysql"
KIND: Final = "credential"
RULE: Final = "password in SQL"
_TRIGGER: Final = re.compile(rb"passw|passphrase|identified|crypt", re.IGNORECASE)
_NAME: Final = re.compile(rb"(?:\A|.*[^A-Za-z0-9])?(?:[a-z0-9_\-]*(?:password|passwd|passphrase))\Z", re.IGNORECASE | re.DOTALL)
_ASSIGNS: Final = {
    POSTGRESQL: frozenset({b"=", b":", b":=", b"TO"}),
    MYSQL: frozenset({b"=", b":", b":=", b"TO", b"("}),
}
"""What may stand between a name and its value. `AS`, and in PostgreSQL a bracket, also stand before code."""
_DEFINES: Final = frozenset({b"CREATE", b"ALTER", b"GRANT"})
"""First words of statements in which everything behind IDENTIFIED is of a user."""
_INSERTS: Final = frozenset({b"INSERT", b"REPLACE", b"UPDATE"})
_ENCRYPTS: Final = frozenset(
    {b"CRYPT", b"ENCRYPT", b"DECRYPT", b"PGP_SYM_ENCRYPT", b"PGP_SYM_DECRYPT", b"AES_ENCRYPT", b"AES_DECRYPT"}
)
_MAKES: Final = _ENCRYPTS | {b"MD5", b"SHA", b"SHA1", b"SHA2", b"SHA256", b"SHA512", b"DIGEST", b"HMAC", b"ENCODE", b"CONCAT"}
"""Functions that make of a password what is kept. Of others nobody knows that they do not run what they are given."""
_ASSIGNED: Final = 2
_NAMED: Final = 1
_NESTED_MAX: Final = 4
"""A literal in a literal in a literal is one more than anybody writes."""
_INNER_BYTES_MAX: Final = 65_536
"""A longer literal is not read as a statement."""
_REPEATED_MAX: Final = 8
"""An error repeats one statement, or parts of a few that called each other."""
_QUOTES: Final = re.compile(rb"(?:near|statement|query) [\"']")
"""Behind it an error repeats a part of a statement."""
_ESCAPED: Final = re.compile(rb"''|\"\"|\\.", re.DOTALL)


class _Piece(NamedTuple):
    """A piece of a text.

    Attributes:
        kind: `word`, `name`, `literal` or `sign`; blanks and comments are none.
        start, end: of all of it.
        inner: of a literal or name: what its quotes hold, from where to where; else all of it.
    """

    kind: str
    start: int
    end: int
    inner: tuple[int, int]


@cache
def _pattern(dialect: str) -> re.Pattern[bytes]:
    """Give the pieces of a dialect, each of which begins where the one before ends; every text is some of them."""
    plain = rb"'(?P<{0}>(?:[^']|'')*+)(?:'|\Z)"
    slashed = rb"'(?P<{0}>(?:[^'\\]|''|\\.|\\\Z)*+)(?:'|\Z)"
    if dialect == POSTGRESQL:
        rules = [
            rb"(?P<blank>[\s\x00]++|--[^\r\n]*+)",
            rb"(?P<comment>/\*)",
            rb"[eE]" + slashed.replace(b"{0}", b"escaped"),
            rb"(?:[uU]&|[nNbBxX])?" + plain.replace(b"{0}", b"quoted"),
            rb"\$(?P<tag>(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?)\$(?P<dollars>.*?)(?:\$(?P=tag)\$|\Z)",
            rb'(?P<name>"(?:[^"]|"")*+(?:"|\Z))',
        ]
    else:
        rules = [
            # What stands in a comment that is executed is read as what it is.
            rb"(?P<blank>[\s\x00]++|\#[^\n]*+|--(?=[\x00-\x20\x7f]|\Z)[^\n]*+|/\*M?![0-9]*+|\*/|/\*.*?(?:\*/|\Z))",
            rb"(?:[nNbBxX]|_[A-Za-z0-9]++[ \t]*+)?" + slashed.replace(b"{0}", b"quoted"),
            rb'(?:_[A-Za-z0-9]++[ \t]*+)?"(?P<escaped>(?:[^"\\]|""|\\.|\\\Z)*+)(?:"|\Z)',
            rb"(?P<number>0[xX][0-9A-Fa-f]++)",
            rb"(?P<name>`(?:[^`]|``)*+(?:`|\Z))",
        ]
    rules += [rb"(?P<word>[A-Za-z0-9_@$.\-\x80-\xff]*[A-Za-z0-9_@$.\x80-\xff])", rb"(?P<sign>:=|.)"]
    return re.compile(b"|".join(rules), re.DOTALL)


_NESTED: Final = re.compile(rb"/\*|\*/")


def may_hold(text: bytes) -> bool:
    """Say whether a text may have a password in it; False is certain."""
    return _TRIGGER.search(text) is not None


def places(text: bytes, start: int, dialect: str, *, part: bool = False) -> list[Place]:
    """Give where passwords stand in a text.

    Args:
        text: SQL, of one statement or many, in an encoding in which ASCII is ASCII.
        start: offset of its first byte.
        dialect: POSTGRESQL or MYSQL.
        part: whether what the statement begins with may be missing.
    """
    found = (Place(start + begin, start + end, KIND, RULE) for begin, end in _spans(text, dialect, 0, part=part))
    return [place for place in found if place.end > place.start]


def places_in_error(text: bytes, start: int, dialect: str) -> list[Place]:
    """Give where passwords stand in what an error says, which may repeat a statement, or a part of one in quotes."""
    if not may_hold(text):
        return []
    begins = [0, *(found.end() for found in islice(_QUOTES.finditer(text), _REPEATED_MAX))]
    return joined(place for at in begins for place in places(text[at:], start + at, dialect, part=True))


def hidden(text: str, dialect: str) -> str:
    """Give a text with its passwords hidden; arguments as of `places`."""
    data = text.encode("utf-8", "surrogatepass")
    found = places(data, 0, dialect)
    return filled(data, found).decode("utf-8", "replace") if found else text


def hidden_in_error(text: str, dialect: str) -> str:
    """Give what an error says with passwords hidden."""
    data = text.encode("utf-8", "surrogatepass")
    found = places_in_error(data, 0, dialect)
    return filled(data, found).decode("utf-8", "replace") if found else text


def _spans(text: bytes, dialect: str, depth: int, *, part: bool = False) -> Iterator[tuple[int, int]]:
    if may_hold(text):
        reader = _Reader(text, dialect, depth, part=part)
        yield from reader.read(_pieces(text, dialect))


def _unescaped(content: bytes) -> tuple[bytes, list[int]]:
    """Give what a literal in quotes says, and where each byte of it stands; the last is where it ends."""
    said, places_of = bytearray(), list[int]()
    at = 0
    for found in (*_ESCAPED.finditer(content), None):
        end = len(content) if found is None else found.start()
        said += content[at:end]
        places_of += range(at, end)
        if found is not None:
            said += found[0][1:]
            places_of.append(found.start())
            at = found.end()
    return bytes(said), [*places_of, len(content)]


def _pieces(text: bytes, dialect: str) -> Iterator[_Piece]:
    pattern, at = _pattern(dialect), 0
    while at < len(text):
        found = pattern.match(text, at)
        assert found is not None  # a sign is any byte
        at = found.end()
        kind = found.lastgroup or "sign"
        if kind == "comment":
            at = _behind_comment(text, at)
        elif kind in {"escaped", "quoted", "dollars", "tag"}:
            group = "dollars" if kind in {"dollars", "tag"} else kind
            yield _Piece("literal", found.start(), at, found.span(group))
        elif kind == "name":
            yield _Piece("name", found.start(), at, (found.start() + 1, max(found.start() + 1, at - 1)))
        elif kind == "number":
            yield _Piece("literal", found.start(), at, (found.start() + 2, at))
        elif kind != "blank":
            yield _Piece(kind, found.start(), at, found.span())


def _behind_comment(text: bytes, at: int) -> int:
    """Give where a comment of PostgreSQL ends, which may have others in it."""
    depth = 1
    for mark in _NESTED.finditer(text, at):
        depth += 1 if mark[0] == b"/*" else -1
        if not depth:
            return mark.end()
    return len(text)


class _Columns:
    """Which places of a list of values have the name of a password in the list of columns before it.

    Attributes:
        depth: of brackets.
        hides: whether what stands here is for such a column.
    """

    __slots__ = ("_index", "_listed", "_marked", "_values", "depth", "hides")

    def __init__(self) -> None:
        self.depth = self._index = 0
        self._listed: set[int] = set()
        self._marked: set[int] = set()
        self._values = self.hides = False

    def other(self, upper: bytes, *, named: bool) -> None:
        """Take a piece that is no literal; `named`: it is the name of a password."""
        if upper in (b"VALUES", b"VALUE") or (upper == b"=" and not self.depth):
            self._values = bool(self._listed)
        elif upper == b"(":
            self.depth += 1
            if self.depth == 1:
                self._index, self._marked = 0, set()
        elif upper == b")":
            self.depth -= self.depth > 0
            if not self.depth and not self._values:
                self._listed = self._marked
        elif upper == b"," and self.depth == 1:
            self._index += 1
        elif named and self.depth == 1:
            self._marked.add(self._index)
        elif not self.depth and upper not in (b",", b"ROW"):
            self._values = False
        self.hides = self._values and self.depth > 0 and self._index in self._listed


@dataclass(slots=True)
class _Reader:
    """Reads one text.

    Attributes:
        text: all of it.
        dialect: of it.
        depth: how many literals it stands in.
        part: whether what its statement begins with may be missing.
        armed: a name of a password stands before, with nothing between but what assigns.
        called: whether something assigned, or behind that a function is named.
        hiding: a literal was hidden; those right behind it belong to it.
        wide: everything of the statement from here on is of a user.
        named: a literal with the name of a setting came, and the comma behind it.
        encrypts: what stands in brackets is for a function that encrypts: so deep they are.
        first: first word of the statement.
        columns: of a statement that has a list of them.
    """

    text: bytes
    dialect: str
    depth: int
    part: bool
    armed: bool = False
    called: int = 0
    hiding: bool = False
    wide: bool = False
    named: int = 0
    encrypts: int = 0
    first: bytes = b""
    columns: _Columns | None = None

    def read(self, pieces: Iterator[_Piece]) -> Iterator[tuple[int, int]]:
        """Give where passwords begin and end."""
        for piece in pieces:
            content = self.text[piece.inner[0] : piece.inner[1]]
            if piece.kind == "literal":
                if self._hides():
                    yield piece.inner
                    self.armed, self.hiding, self.named, self.called = False, True, 0, 0
                else:
                    yield from self._inside(piece, content)
                    self.named = 1 if _NAME.fullmatch(content) else 0
                    self.armed = self.hiding = False
                continue
            self._other(piece, content)

    def _hides(self) -> bool:
        """Say whether the literal that comes is a password."""
        of_function = self.encrypts > 1 or (self.columns is not None and self.columns.hides)
        before = self.armed and self.called != _NAMED
        return before or self.hiding or self.wide or of_function or self.named == 2  # noqa: PLR2004 - the name, and the comma

    def _inside(self, piece: _Piece, content: bytes) -> Iterator[tuple[int, int]]:
        """Give the passwords of a statement that a literal holds."""
        if self.depth >= _NESTED_MAX or len(content) > _INNER_BYTES_MAX or not may_hold(content):
            return
        begin, dollars = piece.inner[0], self.text[piece.start : piece.start + 1] == b"$"
        said, places_of = (content, range(len(content) + 1)) if dollars else _unescaped(content)
        for start, end in _spans(said, self.dialect, self.depth + 1):
            yield begin + places_of[start], begin + places_of[end]

    def _other(self, piece: _Piece, content: bytes) -> None:
        if piece.kind == "sign" and content == b";":
            self.armed = self.hiding = self.wide = False
            self.named, self.first, self.called, self.encrypts, self.columns = 0, b"", 0, 0, None
            return
        upper = content.upper()
        self.hiding = False
        self.named = 2 if self.named == 1 and content == b"," else 0
        password = piece.kind in {"word", "name"} and _NAME.fullmatch(content) is not None
        if password:
            self.armed, self.called = True, 0
            self.wide = self.wide or (self.first == b"SET" and upper == b"PASSWORD")
        else:
            self.wide = self.wide or (self.part and self.armed and upper == b"FOR")
            self.armed = self.armed and self._assigns(piece, upper)
        if piece.kind == "word":
            self.first = self.first or upper
            self.wide = self.wide or (upper == b"IDENTIFIED" and (self.part or self.first in _DEFINES))
        self._encloses(piece, upper)
        if self.first in _INSERTS:
            self.columns = self.columns or _Columns()
            self.columns.other(upper, named=password)

    def _assigns(self, piece: _Piece, upper: bytes) -> bool:
        """Say whether a literal behind a piece may still be what a name was given."""
        if self.called == _NAMED:
            self.called = _ASSIGNED
            return upper == b"("
        if upper in _ASSIGNS[self.dialect]:
            self.called = _ASSIGNED if upper != b"(" else self.called
            return True
        makes = piece.kind == "word" and self.called == _ASSIGNED and upper in _MAKES
        self.called = _NAMED if makes else 0
        return makes

    def _encloses(self, piece: _Piece, upper: bytes) -> None:
        """Keep count of the brackets behind the name of a function that encrypts."""
        if not self.encrypts and piece.kind == "word" and upper in _ENCRYPTS:
            self.encrypts = 1
        elif self.encrypts and upper == b"(":
            self.encrypts += 1
        elif self.encrypts and upper == b")":
            self.encrypts = 0 if self.encrypts <= 2 else self.encrypts - 1  # noqa: PLR2004 - the function's own
        elif self.encrypts == 1:
            self.encrypts = 0
