"""The list of what a SELECT shows, item by item, and what stands in its FROM, as far as it is plain.

What lives here: taking a statement's pieces apart. What must not: what is hidden.

Nothing here has to understand all of SQL: what is not plain is said to be none, and then nothing is permitted by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.functions import catalogue
from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind, Lexeme, words
from capd.enforcer.sql.statement import Statement

_ENDS: Final = words("from where group having window union intersect except order limit offset fetch for into")
ENDS: Final = {Dialect.POSTGRESQL: _ENDS, Dialect.MYSQL: _ENDS | words("procedure lock")}
"""Words that end a list, outside of brackets. To PostgreSQL the last two are columns as any."""
_SETS: Final = words("union intersect except")
_NOT_PLAIN: Final = words("with union intersect except values table lateral rows tablesample only natural into merge")
_JOINS: Final = words("join inner left right full cross")
_AFTER_SOURCE: Final = _JOINS | {"on", "using"}
_STAR: Final = "*"
_DISTINCT: Final = words("distinct distinctrow")
BEFORE_LIST: Final = {
    Dialect.POSTGRESQL: words("all distinct"),
    Dialect.MYSQL: words(
        "all distinct distinctrow high_priority straight_join sql_small_result sql_big_result sql_buffer_result sql_cache"
        " sql_no_cache sql_calc_found_rows"
    ),
}
"""Words that may stand between SELECT and its list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that is shown.

    Attributes:
        lexemes: its pieces, without the name that it is given.
        first, end: where they stand among those of the statement.
        until: where it ends with that name.
        alias: that name; "": none.
        dialect: whose.
    """

    lexemes: tuple[Lexeme, ...]
    first: int
    end: int
    until: int
    alias: str
    dialect: Dialect

    @property
    def is_star(self) -> bool:
        """Whether it is `*` or `a.*`."""
        names = self.lexemes[:-2:2]
        dotted = len(self.lexemes) > 1
        return self.lexemes[-1].text == _STAR and (not dotted or (len(self.lexemes) % 2 == 1 and self._is_path(names)))

    @property
    def column(self) -> str | None:
        """The column that it names: `a`, `t.a`, `s.t.a`; None: it is more than that."""
        if len(self.lexemes) % 2 == 1 and self._is_path(self.lexemes[::2]):
            return self.lexemes[-1].text
        return None

    def _is_path(self, names: Sequence[Lexeme]) -> bool:
        dots = all(one.text == "." and one.kind is Kind.SIGN for one in self.lexemes[1::2])
        first = self.lexemes[0]
        # Which words of MySQL are reserved is not known; one that is a constant is no column of a result.
        reserved = first.kind is Kind.WORD and catalogue(self.dialect).keywords.get(first.text) in {"R", "C"}
        return bool(names) and dots and not reserved and all(one.kind in {Kind.WORD, Kind.NAME} for one in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A relation in a plain FROM.

    Attributes:
        schema: that the statement says; "": none.
        name: of it, without its schema.
        alias: by which the statement calls it; "": by its name.
    """

    name: str
    alias: str
    schema: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The outermost SELECT of a statement.

    Attributes:
        items: what it shows.
        until: where the list ends among the pieces.
        distinct: whether rows that are alike are shown once.
        sources: what stands in FROM, where nothing else stands there than relations by their names, and the statement has
            one SELECT only; None: it is not so plain.
    """

    items: tuple[Item, ...]
    until: int
    distinct: bool
    sources: tuple[Source, ...] | None


def word(one: Lexeme) -> str:
    """Give a word in lower case; "" for all else."""
    return one.text.lower() if one.kind is Kind.WORD else ""


def selection(statement: Statement) -> Selection | None:
    """Take a SELECT apart; None: it does not begin with one, or there are several with UNION and the like."""
    lexemes = statement.lexemes
    if not lexemes or word(lexemes[0]) != "select":
        return None
    at, distinct, options = 1, False, BEFORE_LIST[statement.dialect]
    while at < len(lexemes) and word(lexemes[at]) in options:
        distinct = distinct or word(lexemes[at]) in _DISTINCT
        at += 1
    if distinct and at + 1 < len(lexemes) and word(lexemes[at]) == "on":
        at = statement.closing.get(at + 1, at) + 1
    items, until = _items(statement, at)
    if any(word(lexemes[place]) in _SETS for place in places_outside(statement, until)):
        return None
    return Selection(items=items, until=until, distinct=distinct, sources=_sources(statement, until))


def returning_at(statement: Statement) -> int | None:
    """Give where RETURNING stands; None: nowhere. MySQL has no such word, and takes it for an alias."""
    said = [word(one) for one in statement.lexemes]
    return next((at for at, one in enumerate(said) if one == "returning" and said[at - 1] != "as"), None)


def returned(statement: Statement) -> tuple[Item, ...]:
    """Give the items behind RETURNING."""
    at = returning_at(statement)
    return () if at is None else _items(statement, at + 1)[0]


def places_outside(statement: Statement, start: int) -> list[int]:
    """Give the places outside of brackets, from one on, with those of the brackets that open."""
    places: list[int] = []
    at = start
    while at < len(statement.lexemes):
        places.append(at)
        at = statement.closing.get(at, at) + 1
    return places


def _items(statement: Statement, start: int) -> tuple[tuple[Item, ...], int]:
    lexemes = statement.lexemes
    found: list[Item] = []
    first = start
    until = len(lexemes)
    for at in places_outside(statement, start):
        one = lexemes[at]
        if word(one) in ENDS[statement.dialect] and not _is_name_here(statement, start, at):
            until = at
            break
        if one.kind is Kind.SIGN and one.text == ",":
            found.append(_item(statement, first, at))
            first = at + 1
    if until > first:
        found.append(_item(statement, first, until))
    return tuple(found), until


def _is_name_here(statement: Statement, start: int, at: int) -> bool:
    """Say whether a word that could end the list does not: `1 AS limit`, `a.limit`, `a IS DISTINCT FROM b`, WITHIN GROUP."""
    if at <= start:
        return False
    before = statement.lexemes[at - 1]
    if word(before) == "as" or before.text == "." or (word(before) == "within" and word(statement.lexemes[at]) == "group"):
        return True
    return word(before) == "distinct" and at - 1 > start and word(statement.lexemes[at]) == "from"


def _item(statement: Statement, first: int, end: int) -> Item:
    lexemes = statement.lexemes[first:end]
    given = 0
    if len(lexemes) > 2 and word(lexemes[-2]) == "as" and lexemes[-1].kind <= Kind.NAME:  # noqa: PLR2004 - x AS y
        given = 2
    elif len(lexemes) > 1 and _is_bare_alias(lexemes, statement.dialect):
        given = 1
    alias = lexemes[-1].text if given else ""
    return Item(
        lexemes=lexemes[: len(lexemes) - given], first=first, end=end - given, until=end, alias=alias, dialect=statement.dialect
    )


def _is_bare_alias(lexemes: Sequence[Lexeme], dialect: Dialect) -> bool:
    last, before = lexemes[-1], lexemes[-2]
    keywords = catalogue(dialect).keywords
    if not (last.kind is Kind.NAME or (last.kind is Kind.WORD and last.text.lower() not in keywords)):
        return False
    if before.kind is Kind.WORD:
        return before.text.lower() not in keywords
    return before.kind is Kind.NAME or before.kind in LITERALS or (before.kind is Kind.SIGN and before.text in {")", "]"})


def _sources(statement: Statement, until: int) -> tuple[Source, ...] | None:
    """Read FROM, if all in it are relations by their names, joined on conditions."""
    lexemes = statement.lexemes
    said = [word(one) for one in lexemes]
    if said.count("select") != 1 or not _NOT_PLAIN.isdisjoint(said):
        return None
    ends, outside = ENDS[statement.dialect], places_outside(statement, until)
    if until == len(lexemes) or said[until] != "from":
        # What ended the list may have been a column, and what is behind it a part of the list.
        return None if any(said[at] == "from" for at in outside) else ()
    end = next((at for at in outside[1:] if said[at] in ends and not _is_name_here(statement, until, at)), len(lexemes))
    return _From(statement, until + 1, end).read()


class _From:
    """Reads one FROM."""

    def __init__(self, statement: Statement, at: int, end: int) -> None:
        self._statement, self._at, self._end = statement, at, end

    def read(self) -> tuple[Source, ...] | None:
        """Give what stands in it; None: it is not plain."""
        found: list[Source] = []
        while True:
            source = self._source()
            if source is None:
                return None
            found.append(source)
            if not self._condition():
                return None
            if self._at >= self._end:
                return tuple(found)
            if self._text(self._at) == ",":
                self._at += 1
                continue
            if self._word(self._at) not in _JOINS:
                return None
            while self._word(self._at) in _JOINS | {"outer"}:
                self._at += 1

    def _text(self, at: int) -> str:
        return self._statement.lexemes[at].text if at < self._end else ""

    def _word(self, at: int) -> str:
        return word(self._statement.lexemes[at]) if at < self._end else ""

    def _name(self) -> str | None:
        if self._at >= self._end or self._statement.lexemes[self._at].kind not in {Kind.WORD, Kind.NAME}:
            return None
        one = self._statement.lexemes[self._at]
        if one.kind is Kind.WORD and catalogue(self._statement.dialect).keywords.get(one.text) in {"R", "T"}:
            return None
        self._at += 1
        return one.text

    def _source(self) -> Source | None:
        schema, name = "", self._name()
        while name is not None and self._text(self._at) == ".":
            self._at += 1
            schema, name = name, self._name()
        if name is None or self._text(self._at) in {"(", _STAR}:
            return None
        alias = ""
        given = self._word(self._at) == "as"
        self._at += given
        if given or (self._at < self._end and self._word(self._at) not in _AFTER_SOURCE and self._text(self._at) != ","):
            alias = self._name() or ""
            if not alias or self._text(self._at) == "(":
                return None
        return Source(name=name, alias=alias, schema=schema)

    def _condition(self) -> bool:
        """Pass over ON and USING with what belongs to them; say whether that is plain: `USING (a) AS b` makes a row."""
        if self._word(self._at) not in {"on", "using"}:
            return True
        self._at += 1
        while self._at < self._end:
            # Of the words that join, these two are functions as well; behind another one a bracket holds relations.
            is_call = self._text(self._at + 1) == "(" and self._word(self._at) in {"left", "right"}
            if self._text(self._at) == "," or (self._word(self._at) in _JOINS and not is_call):
                return True
            if self._word(self._at) == "as":
                return False
            self._at = self._statement.closing.get(self._at, self._at) + 1
        return True
