"""The functions that a statement calls, found among its pieces and not in a parser's tree.

What lives here: telling calls from other names before a bracket, and what calls do. What must not: relations.

A name before a bracket is a call unless something says that it is none: a word that cannot be a function's name, or a place
where the grammar has no call: after an operand (`FROM a b(c)`, `x LIKE (y)`, `f(x) OVER (y)`), after AS and INTO, and before AS
in a WITH. What is taken for a call wrongly is at worst unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.effect import ANYTHING, OF_ROW, OF_VALUE, READ, ROLE, ROLES, WRITE, Change, Effects, Relation
from capd.enforcer.sql.functions import Catalogue, catalogue
from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind, Lexeme, words
from capd.enforcer.sql.places import PLACED, Places
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
        ("group", "by"),
        ("order", "by"),
        ("partition", "by"),
        ("update", "set"),
        ("bit", "varying"),
        ("character", "varying"),
        ("char", "varying"),
        ("add", "exclude"),
        ("fetch", "first"),
        ("fetch", "next"),
        *((kind, "options") for kind in ("bigint", "boolean", "int", "integer", "numeric", "real", "smallint")),
        *((kind, "join") for kind in ("left", "right", "full", "inner", "outer", "cross", "natural")),
    }
)
"""Words before a bracket that are no call after a certain other word: between the two no expression begins."""
_PAIRS_OF_MYSQL: Final = frozenset({("range", "columns"), ("list", "columns"), ("less", "than")})
"""PARTITION BY RANGE COLUMNS (a). In PostgreSQL, RANGE columns(5) PRECEDING calls."""
_LATERAL: Final = "lateral"
"""A word of MySQL's grammar, before a query. In MariaDB a function may have that name."""
_FIELDS_BEFORE_SECOND: Final = frozenset({"day", "hour", "minute"})
"""INTERVAL '1' DAY TO SECOND (3). In `a SIMILAR TO second(b)` it is a call."""
_TREAT: Final = "treat"
"""TREAT(a AS b) calls the server's own function of the name b (its grammar: func_expr_common_subexpr)."""
_UNQUALIFIED: Final = frozenset({"substring", "overlay"})
"""Written as any call, with commas, they may be anybody's of that name: the grammar leaves the schema out."""
_BEFORE_NAME: Final = frozenset({("partition", "by"), ("exclude", "using"), ("partition", "of")})
"""After them stands a method in the definition of a table, or another table: PARTITION BY range (a). In a window, PARTITION BY
f(a) is a call."""
NO_FUNCTIONS: Final = words(
    """
    in and or not on using from where select having by any some all exists over as union except intersect when
    then else case is like rlike regexp between limit offset join set into key index primary unique foreign
    references check default partition values value div xor with recursive table distinct straight_join fulltext
    spatial constraint separator window range rows returning force ignore use for binary varchar
    varbinary int integer tinyint smallint mediumint bigint decimal numeric float double real bit enum text blob
    datetime timestamp time year unsigned lock
    """
)
_BY_NAME: Final = {
    "nextval": WRITE,
    "setval": WRITE,
    "currval": READ,
    "currtid2": READ,
    "pg_sequence_last_value": READ,
    "table_to_xml": READ,
    "table_to_xmlschema": READ,
    "table_to_xml_and_xmlschema": READ,
}
"""Functions about a relation whose name is their first argument."""
_LARGE_OBJECT: Final = "pg_largeobject"
_LARGE_OBJECTS: Final = words(
    """
    lo_get loread lo_open lo_close lo_lseek lo_lseek64 lo_tell lo_tell64 lo_create lo_creat lo_from_bytea lo_put lowrite
    lo_truncate lo_truncate64 lo_unlink lo_import lo_export
    """
)
_READS: Final = frozenset({"select", "session", "file"})
_SEQUENCE: Final = re.compile(r"'(?:([A-Za-z_][A-Za-z0-9_]*)\.)?([A-Za-z_][A-Za-z0-9_]*)'")
_NAMES_OF_RELATIONS: Final = frozenset({"regclass", "text"})
"""Types from which the server looks for a relation, now or when it is run."""
_SETTING: Final = re.compile(r"'([A-Za-z_.]+)'")
_AS_PG_DUMP: Final = "select set_config ( name , , false ) from pg_settings where name ="
_PG_DUMP_PIECES: Final = 15
_OF_SERVER: Final = ("pg_", "lo_")
"""How names begin of which hardly anybody but the server has any."""


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
        does = does or frozenset()
        effects |= does
        if call.name in _BY_NAME and statement.dialect is Dialect.POSTGRESQL:
            literal = True
            found = _named(statement, call)
            relations += [found] if found else []
            problems += [] if found else ["which relation it is about is not known"]
        elif call.name in _LARGE_OBJECTS and statement.dialect is Dialect.POSTGRESQL:
            access = READ if does <= _READS else WRITE
            relations.append(Relation(schema=_OWN_SCHEMA, name=_LARGE_OBJECT, access=access))
        elif call.name == "set_config":
            literal = True
            change = _setting(statement, call)
            changes.append(change)
            effects |= {"grant"} if change.setting == ROLE else set()
            problems += ["which setting it changes is not known"] if change == ANYTHING else []
    all_ = Effects(
        command="",
        effects=frozenset(effects),
        relations=tuple(relations),
        functions=tuple(sorted(names)),
        changes=tuple(changes),
        problems=tuple(dict.fromkeys(problems)),
        literal=literal,
    )
    return all_.joined(of_fields(_fields(statement))) if statement.dialect is Dialect.POSTGRESQL else all_


def of_fields(fields: Iterable[str], *, values: bool = False) -> Effects:
    """Give what names behind dots do of PostgreSQL: `a.f` is `f(a)` where there is no such column (documentation 38.5.3).

    Args:
        fields: as in Effects.
        values: what is before any of these dots may be a value, and no row.
    """
    known = catalogue(Dialect.POSTGRESQL)
    found = {OF_VALUE + one.removeprefix(OF_VALUE).removeprefix(OF_ROW) if values else one for one in fields}
    called_ = sorted(one.removeprefix(OF_VALUE) for one in found if one.startswith(OF_VALUE))
    doing = [one for one in called_ if one not in known.pure and (one in known.named or one.startswith(_OF_SERVER))]
    effects = frozenset[str]().union(*(known.effects.get(one, frozenset()) for one in doing))
    problems = tuple(f"what {one!r} behind a dot does is not known: it may call {one}()" for one in doing)
    return Effects(command="", effects=effects, fields=frozenset(found), problems=problems)


def _fields(statement: Statement) -> Iterator[str]:
    """Give names behind dots; of `(a).b.c`, or `$1.b.c`, each is one behind a value.

    Of all literals alike, though only a parameter can stand there: a shape does not tell them apart.
    """
    value, lexemes = False, statement.lexemes
    own = _only_schema(statement)
    for at in range(1, len(lexemes) - 1):
        first, dot, one = lexemes[at - 1 : at + 2]
        if dot.text != "." or dot.kind is not Kind.SIGN or (own and first.text == _OWN_SCHEMA):
            continue
        begins = at < 2 or lexemes[at - 2].text != "." or lexemes[at - 2].kind is not Kind.SIGN  # noqa: PLR2004 - a dot before that
        ends = first.kind is Kind.SIGN and first.text in {")", "]"}
        value = ends or first.kind in LITERALS or (value and not begins)
        if one.kind in {Kind.WORD, Kind.NAME}:
            yield (OF_VALUE if value else OF_ROW) + one.text


def _only_schema(statement: Statement) -> bool:
    """Say whether pg_catalog names a schema wherever it stands: nothing in the statement has, or gets, that name itself."""
    lexemes = statement.lexemes
    return all(
        at + 1 < len(lexemes) and lexemes[at + 1].text == "." and lexemes[at - 1].text != "."
        for at, one in enumerate(lexemes)
        if one.text == _OWN_SCHEMA and one.kind in {Kind.WORD, Kind.NAME}
    )


def _unknown(name: str, known: Catalogue) -> str:
    if name in known.opaque:
        return f"what {name}() does stands in its arguments"
    return f"it is not known what the function {name}() does"


def calls(statement: Statement, *, definition: bool = False) -> Iterator[Call]:
    """Give the calls of a statement."""
    lexemes = statement.lexemes
    places: Places | None = None
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
        if statement.dialect is Dialect.POSTGRESQL and first == at and kind is Kind.WORD and name in PLACED:
            places = places or Places(statement)
            if places.no_call(at, definition=definition):
                continue
        if _is_of_grammar(statement, first, at):
            yield Call(schema=None, name=name, at=at)
            continue
        if _no_call(statement, first, at, opened, definition=definition):
            continue
        schema = lexemes[at - 2].text if first == at - 2 else (None if first == at else "?")
        if statement.dialect is Dialect.MYSQL:
            # A blank before the bracket makes another function of some: section 9.2.5 of MySQL's manual.
            schema = "?" if schema is not None or lexemes[at].end != lexemes[opened].start else None
            name = name.lower()
        yield Call(schema=schema, name=name, at=at)


def _is_of_grammar(statement: Statement, first: int, at: int) -> bool:
    """Say whether a word of PostgreSQL's grammar calls, that is no function's name elsewhere."""
    one = statement.lexemes[at]
    if statement.dialect is not Dialect.POSTGRESQL or first != at or one.kind is not Kind.WORD:
        return False
    return one.text == _TREAT or one.text in _UNQUALIFIED


def _no_call(statement: Statement, first: int, at: int, opened: int, *, definition: bool) -> bool:
    """Say whether the name before a bracket is certainly no function's."""
    known = catalogue(statement.dialect)
    lexemes = statement.lexemes
    one = lexemes[at]
    # In quotes, a word is a name.
    before = [part.text.lower() if part.kind is not Kind.NAME else "" for part in lexemes[max(0, first - 3) : first]]
    if one.kind is Kind.WORD and first == at:
        if statement.dialect is Dialect.MYSQL:
            word = one.text.lower()
            no_function = word in NO_FUNCTIONS or (word == _LATERAL and _is_lateral(statement, opened))
        else:
            no_function = known.keywords.get(one.text) in {"R", "C"}
        if no_function or _is_paired(statement, before, one.text.lower()):
            return True
    if not first:
        return False
    if definition and (tuple(before[-2:]) in _BEFORE_NAME or before[-1] == "of"):
        return True
    if before[-1] in _NO_CALL_AFTER:
        return True
    if before[-1] in {"with", "recursive", ","} and _is_query_of_with(statement, opened):
        return True
    return _ends_operand(statement, first - 1, known)


def _is_paired(statement: Statement, before: list[str], word: str) -> bool:
    """Say whether a word is a part of the grammar after the words before it."""
    if before[-2:] == ["as", "not"]:
        return word == "materialized"
    if word == "second" and before[-1:] == ["to"]:
        return before[-2] in _FIELDS_BEFORE_SECOND if before[1:] else False
    pair = (*before[-1:], word)
    return pair in _PAIRS or (statement.dialect is Dialect.MYSQL and pair in _PAIRS_OF_MYSQL)


def _is_lateral(statement: Statement, opened: int) -> bool:
    """Say whether LATERAL (SELECT ...) stands there."""
    after = statement.lexemes[opened + 1]
    return after.kind is Kind.WORD and after.text.lower() in _QUERY_AFTER


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


def _named(statement: Statement, call: Call) -> Relation | None:
    lexemes, at = statement.lexemes, call.at + 3
    found = _SEQUENCE.fullmatch(lexemes[at - 1].text)
    while lexemes[at].text == "::" and lexemes[at + 1].text in _NAMES_OF_RELATIONS:
        at += 2
    if found is None or (at < statement.closing[call.at + 1] and lexemes[at].text != ","):
        return None  # 'a'::text || 'b' is another one's name
    # As a name that is written without quotes.
    return Relation(schema=found[1] and found[1].lower(), name=found[2].lower(), access=_BY_NAME[call.name])


def _of_its_row(statement: Statement, name: Lexeme) -> Lexeme:
    """Give the name in `SELECT set_config(name, 'a', false) FROM pg_settings WHERE name = 'b'`, as pg_dump says it; or `name`.

    Whatever rows there are, only one of that name is given to the function.
    """
    said = statement.lexemes
    if len(said) != _PG_DUMP_PIECES:  # of thousands of such calls each would look at all
        return name
    words_ = [one.text for one in said if one.kind is not Kind.STRING]
    return said[-1] if " ".join(words_) == _AS_PG_DUMP and said[-1].kind is Kind.STRING else name


def _setting(statement: Statement, call: Call) -> Change:
    name, after = statement.lexemes[call.at + 2 : call.at + 4]
    if name.text == "name":
        name = _of_its_row(statement, name)
    found = _SETTING.fullmatch(name.text)
    if found is None or after.text != ",":
        return ANYTHING
    setting = found[1].lower()
    return Change(setting=ROLE if setting in ROLES else setting)
