"""Reads a statement from its first piece on.

What lives here: words, names, lists of names. What must not: which statement it is.
"""

from __future__ import annotations

from capd.enforcer.sql.effect import Relation
from capd.enforcer.sql.lexeme import Kind, Lexeme
from capd.enforcer.sql.statement import Statement


class NotUnderstoodError(Exception):
    """A statement is not what a reader expects; the text says what it is about."""


class Cursor:
    """A place in a statement."""

    def __init__(self, statement: Statement, at: int = 0) -> None:
        self.statement = statement
        self.at = at
        self._lexemes = statement.lexemes

    @property
    def left(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self._lexemes)

    def peek(self, ahead: int = 0) -> str:
        """Give a word or sign in lower case; "" for a name in quotes, a literal, and the end."""
        place = self.at + ahead
        if place >= len(self._lexemes):
            return ""
        one = self._lexemes[place]
        return one.text.lower() if one.kind in {Kind.WORD, Kind.SIGN, Kind.OPERATOR} else ""

    def lexeme(self) -> Lexeme | None:
        """Give the next piece."""
        return self._lexemes[self.at] if self.left else None

    def take(self, *words: str) -> bool:
        """Pass over words if they are next."""
        if any(self.peek(ahead) != word for ahead, word in enumerate(words)):
            return False
        self.at += len(words)
        return True

    def take_any(self, *words: str) -> str:
        """Pass over one of some words; give it, or ""."""
        word = self.peek()
        if word not in words or not word:
            return ""
        self.at += 1
        return word

    def expect(self, *words: str) -> None:
        """Pass over words that must be next.

        Raises:
            NotUnderstoodError: they are not.
        """
        if not self.take(*words):
            raise NotUnderstoodError(f"{' '.join(words).upper()} is expected, and is not there")

    def end(self) -> None:
        """Be at the end.

        Raises:
            NotUnderstoodError: something is left.
        """
        if self.left:
            raise NotUnderstoodError("there is more than capd expects")

    def name(self) -> str:
        """Read one name.

        Raises:
            NotUnderstoodError: there is none.
        """
        one = self.lexeme()
        if one is None or one.kind > Kind.NAME:
            raise NotUnderstoodError("a name is expected, and is not there")
        self.at += 1
        return one.text

    def names(self) -> tuple[str, ...]:
        """Read a name with what stands before it, with dots."""
        found = [self.name()]
        while self.peek() == ".":
            self.at += 1
            found.append(self.name())
        return tuple(found)

    def relation(self, access: str) -> Relation:
        """Read the name of a relation.

        Raises:
            NotUnderstoodError: there is none, or one with a database.
        """
        names = self.names()
        if len(names) > 2:  # noqa: PLR2004 - schema and name
            raise NotUnderstoodError("a relation is named with its database")
        if self.peek() == "*":
            self.at += 1
        return Relation(schema=names[0] if len(names) > 1 else None, name=names[-1], access=access)

    def relations(self, access: str, *before: str) -> list[Relation]:
        """Read names of relations with commas between them, each perhaps after some word."""
        found: list[Relation] = []
        while True:
            self.take_any(*before)
            found.append(self.relation(access))
            if not self.take(","):
                return found

    def skip(self) -> None:
        """Pass over one piece, or all within brackets."""
        self.at = self.statement.closing.get(self.at, self.at) + 1

    def rest(self) -> Statement:
        """Give what is left as a statement."""
        return self.statement.part(self.at)
