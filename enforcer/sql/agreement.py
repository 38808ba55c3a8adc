"""Whether the parser's tree has what our own scanner found: so that what the parser passed over is not taken for absent.

What lives here: the comparison. What must not: the tree.

Two readings of one text that agree can still both be wrong, but not about a verb: each INSERT, UPDATE, DELETE, MERGE, INTO and
SELECT among the pieces must be one of the tree. A column that is called like a verb makes a statement incomplete, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Final

from capd.enforcer.sql.lexeme import Dialect, Kind, words
from capd.enforcer.sql.statement import Statement

VERBS: Final = ("insert", "update", "delete", "merge", "into")
STRANGE: Final = words(
    """
    create drop alter grant revoke truncate copy call do execute prepare listen notify vacuum load handler outfile
    dumpfile procedure
    """
)
"""Words of statements that are no queries. They can be names of columns; then it is not known what the statement is."""
_NAMED_AFTER: Final = frozenset({"from", "join", "into", "update", "only", "table", "using"})
_INTO: Final = frozenset({"into", "temp", "temporary", "unlogged", "local", "global", "table"})
_CYCLE: Final = frozenset({"set", "default"})
"""CYCLE a SET b [TO 'Y' DEFAULT 'N'] USING c."""
_LOCKS: Final = frozenset({("update", "of"), ("update", "nowait"), ("update", "skip")})
_FROM_WITHIN: Final = frozenset({"extract", "substring", "trim", "overlay", "substr", "mid", "position"})
_NO_NAME: Final = frozenset(
    {"select", "lateral", "rows", "only", "values", "unnest", "outfile", "dual", "table", "set", "ignore"}
)


def disagreement(statement: Statement, counts: Mapping[str, int], named: AbstractSet[str]) -> str | None:
    """Say in what the pieces and the tree disagree; None: in nothing.

    Args:
        statement: the pieces.
        counts: how many of each verb the tree has.
        named: names of relations and of queries of WITH in the tree.
    """
    said = [one.text.lower() if one.kind is Kind.WORD else "" for one in statement.lexemes]
    for verb in VERBS:
        found = said.count(verb) + (said.count("replace") if _is_replace(statement, said, verb) else 0)
        if found != counts.get(verb, 0):
            return f"the parser found not as many {verb.upper()} as there are"
    selects = said.count("select") + _tables(said)
    # VALUES in a UNION is a SELECT to the parser.
    if not selects <= counts.get("select", 0) <= selects + said.count("values"):
        return "the parser found not as many SELECT as there are"
    pairs = list(pairwise(said))
    if pairs.count(("on", "conflict")) != counts.get("conflict", 0):
        return "the parser found not as many ON CONFLICT as there are"
    if statement.dialect is Dialect.POSTGRESQL and _is_named_values(statement, said):
        return "VALUES without rows may be a relation's name"
    if ("value", "for") in pairs:
        return "it takes the next value of a sequence"
    strange = STRANGE.intersection(said) - ({"do"} if "conflict" in said or "merge" in said else set())
    if strange:
        return f"there is the word {min(strange).upper()}, which capd does not expect there"
    return _unnamed(statement, said, named)


def _is_named_values(statement: Statement, words: list[str]) -> bool:
    """Say whether VALUES stands somewhere without rows, and not in INSERT ... DEFAULT VALUES: a relation may have that name."""
    lexemes = statement.lexemes
    return any(
        word == "values" and words[at - 1] != "default" and [one.text for one in lexemes[at + 1 : at + 2]] != ["("]
        for at, word in enumerate(words)
    )


def _is_replace(statement: Statement, words: list[str], verb: str) -> bool:
    return statement.dialect is Dialect.MYSQL and verb == "insert" and words[0] == "replace"


def _tables(words: list[str]) -> int:
    """Count TABLE a, which the parser shows as SELECT."""
    return sum(word == "table" and (not at or words[at - 1] not in _INTO) for at, word in enumerate(words))


def _unnamed(statement: Statement, words: list[str], named: AbstractSet[str]) -> str | None:
    """Say which name after FROM and the like is none of a relation in the tree."""
    lexemes = statement.lexemes
    opened: list[int] = []
    for at, word in enumerate(words):
        text = lexemes[at].text
        if lexemes[at].kind is Kind.SIGN and text in {"(", "["}:
            opened.append(at)
        elif lexemes[at].kind is Kind.SIGN and text in {")", "]"} and opened:
            opened.pop()
        if word not in _NAMED_AFTER or at + 1 >= len(lexemes) or lexemes[at + 1].kind > Kind.NAME:
            continue
        if word == "update" and words[at - 1] == "key":
            continue  # ON DUPLICATE KEY UPDATE a = 1
        typed = lexemes[at - 1].kind is Kind.STRING
        if word == "using" and words[at - 3 if typed and words[at - 2] not in _CYCLE else at - 2] in _CYCLE:
            continue
        if word == "from" and (words[at - 1] == "distinct" and "is" in words[max(0, at - 3) : at]):
            continue
        if word == "from" and opened and words[opened[-1] - 1] in _FROM_WITHIN and not _query(words, opened[-1]):
            continue
        after = at + 1
        while word == "into" and words[after] in _INTO and after + 1 < len(words):
            after += 1
        name = None if words[after] in _NO_NAME or (word, words[after]) in _LOCKS else _last(statement, after)
        if name is None:
            continue
        if name not in named:
            return f"the parser did not find that {name!r} is a relation"
    return None


def _query(words: list[str], opened: int) -> bool:
    return words[opened + 1] in {"select", "with", "values", "table"}


def _last(statement: Statement, at: int) -> str | None:
    """Give the last part of the name that begins at a place; None for a call, and for a word of another use."""
    lexemes = statement.lexemes
    while at + 2 < len(lexemes) and lexemes[at + 1].text == "." and lexemes[at + 2].kind <= Kind.NAME:
        at += 2
    if at + 1 in statement.closing and lexemes[at + 1].text == "(":
        # INSERT INTO a (b) names a relation, FROM a(b) calls.
        first = at
        while first > 1 and lexemes[first - 1].text == ".":
            first -= 2
        if lexemes[first - 1].text.lower() != "into":
            return None
    return lexemes[at].text
