"""What statements of PostgreSQL do that define, or change, what is no relation: publications, text search, collations, types.

What lives here: their readers, and what all definitions share. What must not: relations, rights (postgresql_definition.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from capd.enforcer.sql.calls import called
from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.effect import ANYTHING, MEANS, SCHEMA, WRITE, Change, Effects, Relation, ordered
from capd.enforcer.sql.functions import OWN_SCHEMA
from capd.enforcer.sql.lexeme import Kind, words

CASCADES: Final = "with CASCADE it is about more than it names"
OF_WHICH: Final = "it does not name the table that it is about"
NOT_NAMED: Final = "it is about relations that it does not name"
NOT_SEEN: Final = "what it defines is code, or reaches outside, and capd does not see what that does"
_RANGE_OPTIONS: Final = words("subtype subtype_opclass collation multirange_type_name")
"""Others are functions that a range type calls."""
_ALTERED: Final = frozenset(
    {"type", "domain", "schema", "collation", "database", "statistics", "function", "procedure", "routine"}
)
_ALTER_WORDS: Final = {"drop": "drop", "owner": "grant", "security": "grant"}
_OF_TYPE: Final = frozenset({"value", "rename", "attribute"})
"""What of a type is altered without any relation: one that has rows of it makes ALTER ... ATTRIBUTE fail, but for CASCADE."""
_ONLY_NAMED: Final = (("rename", "to"), ("owner", "to"), ("set", "schema"))
"""At the end of an ALTER, before a name: nothing but a name, an owner or a schema is another."""
_WITH_TABLES: Final = frozenset({"trigger", "rule"})


def defined(command: str, *relations: Relation, also: tuple[str, ...] = (), problems: tuple[str, ...] = ()) -> Effects:
    """Give the effects of a definition."""
    return Effects(command=command, effects=frozenset({"define", *also}), relations=ordered(relations), problems=problems)


def unseen(_cursor: Cursor, command: str) -> Effects:
    """Give the effects of a definition of code."""
    return Effects(command=command, effects=frozenset({"define"}), problems=(NOT_SEEN,), changes=(ANYTHING,))


def _ends_with_name(cursor: Cursor) -> str:
    """Say which words of _ONLY_NAMED stand before the name that ends a statement; "": none."""
    last = cursor.statement.lexemes[-3:]
    said = tuple(one.text if one.kind is Kind.WORD else "" for one in last[:2])
    return said[0] if len(last) > 2 and said in _ONLY_NAMED and last[2].kind <= Kind.NAME else ""  # noqa: PLR2004 - two and a name


def alter(cursor: Cursor, command: str) -> Effects:
    """Read ALTER of what is no relation."""
    only = _ends_with_name(cursor)
    if _is_into_own(cursor, only):
        return unseen(cursor, command)
    also = ("grant",) if only == "owner" else ()
    if only and cursor.take_any(*_WITH_TABLES):
        cursor.name()
        cursor.expect("on")
        return defined(command, cursor.relation(WRITE), also=also)
    if cursor.take("publication"):
        return defined(command, also=also) if only else _altered_publication(cursor, command)
    if cursor.peek() == "text" and cursor.peek(2) in {"configuration", "dictionary"}:
        return defined(command, also=also)
    word = cursor.take_any(*_ALTERED)
    if not word:
        # Whom a foreign server is reached as is not its name.
        named = only and cursor.peek() not in {"user", "system", "extension", "subscription"}
        return _renamed(defined(command, also=also), only) if named else unseen(cursor, command)
    return _altered(cursor, command, word, only)


def _altered(cursor: Cursor, command: str, word: str, only: str) -> Effects:
    said = {one.text for one in cursor.rest().lexemes}
    also = tuple(effect for name, effect in _ALTER_WORDS.items() if name in said)
    problems = [CASCADES] if "cascade" in said else []
    if not only and (_looks_at_rows(cursor) if word == "domain" else word == "type" and not _of_type(cursor, said)):
        problems.append("it is about relations that it does not name: those that have columns of it")
    if word == "schema":
        problems += [NOT_NAMED] if only == "rename" else []
        changes = Effects(command=command, changes=(Change(setting=SCHEMA),))
        return defined(command, also=also, problems=tuple(problems)).joined(changes)
    found = _renamed(defined(command, also=also, problems=tuple(problems)), only)
    return found.joined(called(cursor.rest())) if word == "domain" else found


def _of_type(cursor: Cursor, said: set[str]) -> bool:
    """Say whether an ALTER TYPE is about the type alone; SET (...) leaves columns that are there as they are (AlterType)."""
    cursor = Cursor(cursor.statement, cursor.at)
    cursor.names()
    return not said.isdisjoint(_OF_TYPE) or (cursor.take("set") and cursor.peek() == "(")


def _renamed(found: Effects, only: str) -> Effects:
    """Note that a name means something else from now on, if more than an owner is another."""
    return found if only == "owner" else replace(found, changes=(Change(setting=MEANS),))


def _is_into_own(cursor: Cursor, only: str) -> bool:
    """Say whether something becomes one of the server's own."""
    return only == "set" and cursor.statement.lexemes[-1].text == OWN_SCHEMA


def _looks_at_rows(cursor: Cursor) -> bool:
    """Say whether an ALTER DOMAIN looks at the rows of all that have columns of it (AlterDomainNotNull and the like)."""
    cursor = Cursor(cursor.statement, cursor.at)
    cursor.names()
    if cursor.take("set"):
        return cursor.peek() != "default"
    if cursor.take("rename") or cursor.take("drop"):
        return False
    return not (cursor.take("add") and [one.text for one in cursor.statement.lexemes[-2:]] == ["not", "valid"])


def type_(cursor: Cursor, command: str) -> Effects:
    """Read CREATE TYPE."""
    cursor.names()
    if not cursor.left:
        return defined(command)  # a name for one that comes later
    if cursor.peek() == "(":
        return unseen(cursor, command)
    cursor.expect("as")
    if cursor.take("range") and cursor.peek() == "(":
        return defined(command) if _options(cursor) <= _RANGE_OPTIONS else unseen(cursor, command)
    cursor.take("enum")
    if cursor.peek() != "(":
        return unseen(cursor, command)
    cursor.skip()
    cursor.end()
    return defined(command)


def _options(cursor: Cursor) -> frozenset[str]:
    """Read names of options in brackets."""
    end = cursor.statement.closing[cursor.at]
    found = set()
    cursor.at += 1
    while cursor.at < end:
        found.add(cursor.name())
        while cursor.at < end and not cursor.take(","):
            cursor.skip()
    cursor.at = end + 1
    cursor.end()
    return frozenset(found)


def text_search(cursor: Cursor, command: str) -> Effects:
    """Read CREATE TEXT SEARCH: what is no program is a list of words, and which of these lists are used."""
    cursor.expect("search")
    return defined(command) if cursor.take_any("configuration", "dictionary") else unseen(cursor, command)


def collation(_cursor: Cursor, command: str) -> Effects:
    """Read CREATE COLLATION."""
    return defined(command)


def tablespace(_cursor: Cursor, command: str) -> Effects:
    """Read CREATE TABLESPACE, which is a directory."""
    return defined(command, also=("file",))


def publication(cursor: Cursor, command: str) -> Effects:
    """Read CREATE PUBLICATION: whoever may replicate reads these tables."""
    cursor.name()
    found = _published(cursor, command) if cursor.take("for") else defined(command)
    if cursor.take("with"):
        cursor.skip()
    cursor.end()
    return found


def _altered_publication(cursor: Cursor, command: str) -> Effects:
    cursor.name()
    if cursor.take("set") and cursor.peek() == "(":
        return defined(command)
    if not cursor.take_any("add", "drop"):
        raise NotUnderstoodError(NOT_NAMED)
    found = _published(cursor, command)
    cursor.end()
    return found


def _published(cursor: Cursor, command: str) -> Effects:
    """Read TABLE a (b) WHERE (c), d ..."""
    if not cursor.take("table"):
        raise NotUnderstoodError(NOT_NAMED)
    found = defined(command, also=("grant",))
    named: list[Relation] = []
    while True:
        cursor.take("only")
        named.append(cursor.relation(WRITE))
        if cursor.peek() == "(":
            cursor.skip()
        if cursor.take("where"):
            start = cursor.at
            cursor.skip()
            found = found.joined(called(cursor.statement.part(start, cursor.at)))
        if not cursor.take(","):
            return found.joined(Effects(command=command, relations=tuple(named)))
        cursor.take("table")
