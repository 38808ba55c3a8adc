"""The statements of a message.

What lives here: where one ends and the next begins, which bracket closes which. What must not: what a statement does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.lexeme import NESTING_MAX, Dialect, Kind, Lexeme, Scanned

STATEMENTS_MAX: Final = 256
"""In one message: each is judged for itself."""
_CLOSING: Final = {"(": ")", "[": "]"}
_BODIES: Final = frozenset({"procedure", "function", "trigger", "event", "package"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement.

    Attributes:
        dialect: whose.
        lexemes: its pieces, without the semicolon.
        closing: for each bracket that opens, by its place among the pieces, where its other one is.
        problems: why it is perhaps not what the server takes for one.
    """

    dialect: Dialect
    lexemes: tuple[Lexeme, ...]
    closing: Mapping[int, int]
    problems: tuple[str, ...] = ()

    def part(self, first: int, end: int | None = None) -> Statement:
        """Give a part of it as a statement."""
        until = len(self.lexemes) if end is None else end
        closing = {opened - first: closed - first for opened, closed in self.closing.items() if first <= opened < until}
        return Statement(dialect=self.dialect, lexemes=self.lexemes[first:until], closing=closing, problems=self.problems)


def split(scanned: Scanned, dialect: Dialect) -> tuple[Statement, ...]:
    """Give the statements of a message; empty ones, which servers pass over, are left out."""
    found: list[Statement] = []
    start = 0
    lexemes = scanned.lexemes
    while start < len(lexemes):
        end, closing, problems = _one(lexemes, start, dialect)
        if len(found) >= STATEMENTS_MAX:
            problems = (*problems, f"there are more than {STATEMENTS_MAX} statements")
            end = len(lexemes)
        if end > start:
            found.append(
                Statement(dialect=dialect, lexemes=lexemes[start:end], closing=closing, problems=(*scanned.problems, *problems))
            )
        start = end + 1
    return tuple(found)


def _one(lexemes: tuple[Lexeme, ...], start: int, dialect: Dialect) -> tuple[int, dict[int, int], tuple[str, ...]]:
    """Give where a statement ends, its brackets, and what is wrong with it."""
    if dialect is Dialect.MYSQL and _has_body(lexemes, start):
        return len(lexemes), {}, ("there is a program in it, which capd does not read",)
    open_: list[int] = []
    closing: dict[int, int] = {}
    problems: set[str] = set()
    for at in range(start, len(lexemes)):
        kind, text = lexemes[at][:2]
        if kind is Kind.SIGN:
            if text in _CLOSING:
                open_.append(at)
                if len(open_) > NESTING_MAX:
                    return len(lexemes), {}, (f"there are more than {NESTING_MAX} brackets within each other",)
            elif text in {")", "]"}:
                if not open_ or _CLOSING[lexemes[open_[-1]].text] != text:
                    return len(lexemes), {}, ("a bracket is closed that was not opened",)
                closing[open_.pop() - start] = at - start
            elif text == ";" and not open_:
                return at, closing, tuple(problems)
        elif kind is Kind.WORD and text == "atomic" and dialect is Dialect.POSTGRESQL:
            # BEGIN ATOMIC: statements with semicolons, within a statement.
            return len(lexemes), {}, ("there is a program in it, which capd does not read",)
    if open_:
        problems.add("a bracket is not closed")
    return len(lexemes), closing, tuple(problems)


def _has_body(lexemes: tuple[Lexeme, ...], start: int) -> bool:
    """Say whether a statement of MySQL can have semicolons within it."""
    words = [one.text.lower() for one in lexemes[start : start + 12] if one.kind is Kind.WORD]
    if not words:
        return False
    if words[0] in {"create", "alter"}:
        return not _BODIES.isdisjoint(words)
    return words[0] == "begin" and words[1:2] == ["not"]
