"""The functions that a statement calls, found among its pieces and not in a parser's tree.

What lives here: telling calls from other names before a bracket, and what calls do. What must not: relations.

A name before a bracket is a call unless something says that it is none: a word that cannot be a function's name, or a place
where the grammar has no call: after an operand (`FROM a b(c)`, `x LIKE (y)`, `f(x) OVER (y)`), after AS and INTO, and before AS
in a WITH. What is taken for a call wrongly is at worst unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.effect import ANYTHING, READ, WRITE, Change, Effects, Relation
from capd.enforcer.sql.functions import Catalogue, catalogue
from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind, words
from capd.enforcer.sql.statement import Statement

_OWN_SCHEMA: Final = "pg_catalog"
_NO_CALL_AFTER: Final = frozenset({"as", "into", "references", "table", "exists"})
"""After `exists` stands a query, or in DDL the name of what is made."""
_PAIRS: Final = frozenset(
    {
        ("on", "conflict"),
        ("as", "materialized"),
        ("grouping", "sets"),
        ("primary", "key"),
        ("foreign", "key"),
        ("tablesample", "system"),
        ("tablesample", "bernoulli"),
    }
)
"""Words before a bracket that are no call after a certain other word."""
_BEFORE_METHOD: Final = frozenset({("partition", "by"), ("exclude", "using")})
"""After them stands a method in the definition of a table: PARTITION BY range (a). In a window, PARTITION BY f(a) is a call."""
_MYSQL_NO_FUNCTION: Final = words(
    """
    in and or not on using from where select having by any some all exists over as union except intersect when
    then else case is like rlike regexp between limit offset join set into key index primary unique foreign
    references check default partition values value div xor with recursive table distinct straight_join fulltext
    spatial constraint separator window range rows lateral returning force ignore use for against binary varchar
    varbinary int integer tinyint smallint mediumint bigint decimal numeric float double real bit enum text blob
    datetime timestamp time year columns fields generated always less than unsigned lock rollup
    """
)
_SEQUENCES: Final = {"nextval": WRITE, "setval": WRITE, "currval": READ}
_SEQUENCE: Final = re.compile(r"'(?:([A-Za-z_][A-Za-z0-9_]*)\.)?([A-Za-z_][A-Za-z0-9_]*)'")
_SETTING: Final = re.compile(r"'([A-Za-z_.]+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call.

    Attributes:
        schema: of the function, if the statement says one.
        name: of the function.
        at: where the name stands among the pieces.
    """

    schema: str | None
    name: str
    at: int


def called(statement: Statement, *, definition: bool = False) -> Effects:
    """Give what the calls of a statement do, and which of them are not known.

    Args:
        statement: the statement, or a part of it.
        definition: it is the definition of a table.
    """
    known = catalogue(statement.dialect)
    effects: set[str] = set()
    relations: list[Relation] = []
    changes: list[Change] = []
    problems: list[str] = []
    names: set[str] = set()
    literal = False
    for call in calls(statement, definition=definition):
        written = f"{call.schema}.{call.name}" if call.schema else call.name
        names.add(written)
        does = known.effects.get(call.name)
        if call.schema not in {None, _OWN_SCHEMA} or (call.name not in known.pure and does is None):
            problems.append(_unknown(written, known))
            effects.add("code")
            continue
        effects |= does or frozenset()
        if call.name in _SEQUENCES and statement.dialect is Dialect.POSTGRESQL:
            literal = True
            found = _sequence(statement, call)
            relations += [found] if found else []
            problems += [] if found else ["which sequence it is about is not known"]
        elif call.name == "set_config":
            literal = True
            changes.append(_setting(statement, call))
    return Effects(
        command="",
        effects=frozenset(effects),
        relations=tuple(relations),
        functions=tuple(sorted(names)),
        changes=tuple(changes),
        problems=tuple(dict.fromkeys(problems)),
        literal=literal,
    )


def _unknown(name: str, known: Catalogue) -> str:
    if name in known.opaque:
        return f"what {name}() does stands in its arguments"
    return f"it is not known what the function {name}() does"


def calls(statement: Statement, *, definition: bool = False) -> Iterator[Call]:
    """Give the calls of a statement."""
    lexemes = statement.lexemes
    for opened in statement.closing:
        at = opened - 1
        if at < 0 or lexemes[opened].text != "(":
            continue
        kind, name = lexemes[at][:2]
        if kind not in {Kind.WORD, Kind.NAME}:
            continue
        first = at
        while first > 1 and lexemes[first - 1].text == "." and lexemes[first - 2].kind <= Kind.NAME:
            first -= 2
        if _no_call(statement, first, at, opened, definition=definition):
            continue
        schema = lexemes[at - 2].text if first == at - 2 else (None if first == at else "?")
        if statement.dialect is Dialect.MYSQL:
            # A blank before the bracket makes another function of some: section 9.2.5 of MySQL's manual.
            schema = "?" if schema is not None or lexemes[at].end != lexemes[opened].start else None
            name = name.lower()
        yield Call(schema=schema, name=name, at=at)


def _no_call(statement: Statement, first: int, at: int, opened: int, *, definition: bool) -> bool:
    """Say whether the name before a bracket is certainly no function's."""
    known = catalogue(statement.dialect)
    lexemes = statement.lexemes
    one = lexemes[at]
    # In quotes, a word is a name.
    before = [part.text.lower() if part.kind is not Kind.NAME else "" for part in lexemes[max(0, first - 3) : first]]
    if one.kind is Kind.WORD and first == at:
        if statement.dialect is Dialect.MYSQL:
            if one.text.lower() in _MYSQL_NO_FUNCTION:
                return True
        elif known.keywords.get(one.text) in {"R", "C"}:
            return True
        if (*before[-1:], one.text) in _PAIRS or [*before[-2:], one.text] == ["as", "not", "materialized"]:
            return True
        if definition and tuple(before[-2:]) in _BEFORE_METHOD:
            return True
    if not first:
        return False
    if before[-1] in _NO_CALL_AFTER:
        return True
    if before[-1] in {"with", "recursive", ","} and _is_query_of_with(statement, opened):
        return True
    return _ends_operand(statement, first - 1, known)


_QUERY_AFTER: Final = frozenset({"select", "with", "table", "("})
"""Reserved words, with which no column of `f(x) AS (column type)` begins."""
_WRITE_AFTER: Final = frozenset({("values", "("), ("insert", "into"), ("delete", "from"), ("merge", "into")})


def _is_query_of_with(statement: Statement, opened: int) -> bool:
    """Say whether after the bracket `AS [[NOT] MATERIALIZED] (` and a query follow: so stands in a WITH what is no call."""
    after = statement.closing[opened] + 1
    said = [one.text.lower() if one.kind is not Kind.NAME else "" for one in statement.lexemes[after : after + 6]]
    for ahead in (["as", "("], ["as", "materialized", "("], ["as", "not", "materialized", "("]):
        if said[: len(ahead)] == ahead:
            inside = said[len(ahead) : len(ahead) + 2]
            return inside[:1] != [] and (inside[0] in _QUERY_AFTER or tuple(inside) in _WRITE_AFTER)
    return False


_PREFIXES: Final = (["operator"], ["distinct", "on"])
"""Before brackets after which an operand begins: `1 OPERATOR(pg_catalog.+) f(2)`, `SELECT DISTINCT ON (a) f(b)`."""


def _ends_operand(statement: Statement, at: int, known: Catalogue) -> bool:
    """Say whether a piece ends an operand, after which no other one begins."""
    one = statement.lexemes[at]
    if one.kind is Kind.WORD:
        # `a.select` is a name, too.
        after_dot = at > 0 and statement.lexemes[at - 1].text == "."
        return after_dot or one.text.lower() not in known.keywords
    if one.kind is Kind.SIGN and one.text == ")":
        opened = next((begin for begin, end in statement.closing.items() if end == at), 0)
        said = [part.text.lower() for part in statement.lexemes[max(0, opened - 2) : opened]]
        return not any(said[-len(prefix) :] == prefix for prefix in _PREFIXES)
    return one.kind is Kind.NAME or one.kind in LITERALS or (one.kind is Kind.SIGN and one.text == "]")


def _sequence(statement: Statement, call: Call) -> Relation | None:
    argument = statement.lexemes[call.at + 2 : statement.closing[call.at + 1]]
    text = "".join(one.text for one in argument[:3])
    if len(argument) > 1 and argument[1].text not in {",", "::"}:
        return None
    if len(argument) > 1 and argument[1].text == "::" and [one.text for one in argument[2:3]] != ["regclass"]:
        return None
    found = _SEQUENCE.match(text)
    if found is None or argument[0].text != found[0]:
        return None
    # As a name that is written without quotes.
    return Relation(schema=found[1] and found[1].lower(), name=found[2].lower(), access=_SEQUENCES[call.name])


def _setting(statement: Statement, call: Call) -> Change:
    found = _SETTING.fullmatch(statement.lexemes[call.at + 2].text)
    return Change(setting=found[1].lower()) if found else ANYTHING
