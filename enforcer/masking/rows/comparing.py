"""Whether a SELECT does anything with a hidden column but show it: compare, join, sort, group, count by it.

What lives here: finding that, by the pieces of a statement. What must not: what is shown, which the server describes.

Comparing tells of a value what it is asked for, a bit at a time. A statement that names no hidden column, has no star and takes
no row as a whole cannot do it; one that shows hidden columns may name them in its list, and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from capd.enforcer.masking.rows.catalogue import Relation
from capd.enforcer.masking.rows.harmless import Surroundings, is_count, takes_row
from capd.enforcer.masking.rows.select_list import BEFORE_LIST, ENDS, Selection, places_outside, word
from capd.enforcer.sql.lexeme import Dialect, Kind
from capd.enforcer.sql.parsing import parsed, sqlglot
from capd.enforcer.sql.shape import shown as shown_text
from capd.enforcer.sql.statement import Statement

COMPARED: Final = (
    "a hidden column may be shown, which hides it; it may not be compared, joined, sorted, grouped or computed with"
)
STARRED: Final = "`*` takes hidden columns along into a query within a query; name the columns"
WHOLE: Final = "a relation with hidden columns is used as a whole row"
ALIKE: Final = "DISTINCT tells which hidden values are alike"
RENAMED: Final = "columns of a relation with hidden ones are renamed in FROM"


def refusal_of_comparing(
    statement: Statement, shown: Selection | None, around: Surroundings, touched: Sequence[Relation]
) -> str | None:
    """Say why a statement is refused; None: hidden columns are only shown by it, or not used at all."""
    if any(takes_row(statement.lexemes, at, statement.dialect) for at in range(len(statement.lexemes))):
        return WHOLE
    if shown is not None and shown.sources is not None:
        return _plain(statement, shown, around)
    # MySQL has no rows as values.
    names = {one.name.lower() for one in touched}
    refusal = refusal_of_nesting(statement, around)
    return refusal or (_whole_in_tree(statement, names) if statement.dialect is Dialect.POSTGRESQL else None)


def _plain(statement: Statement, shown: Selection, around: Surroundings) -> str | None:
    lexemes = statement.lexemes
    places = {at for item in shown.items if _shows(item.column, around) for at in range(item.first, item.end)}
    stars = {item.end - 1 for item in shown.items if item.is_star}
    if shown.distinct and (places or stars):
        return ALIKE
    given = {item.until - 1 for item in shown.items if item.alias}
    for at, one in enumerate(lexemes):
        if one.kind in {Kind.WORD, Kind.NAME} and at not in places | given and not _is_path(statement, at):
            name = one.text.lower()
            if name in around.hidden:
                return COMPARED
            if name in around.relations and at < shown.until:
                return WHOLE
        if _is_star(statement, at) and at not in stars:
            return STARRED
    if statement.dialect is Dialect.POSTGRESQL and _whole_behind(statement, shown):
        return WHOLE
    return COMPARED if (places or stars) and _by_number(statement, shown.until) else None


def _shows(column: str | None, around: Surroundings) -> bool:
    return column is not None and column.lower() in around.hidden


def _is_path(statement: Statement, at: int) -> bool:
    """Say whether a name only says in which relation another one is."""
    return at + 1 < len(statement.lexemes) and statement.lexemes[at + 1].text == "."


def _is_operand(statement: Statement, at: int, kind: Kind) -> bool:
    after_dot = at > 0 and statement.lexemes[at - 1].text == "."
    return kind in {Kind.WORD, Kind.NAME} and not (after_dot or _is_path(statement, at) or _is_locked(statement, at))


def _is_locked(statement: Statement, at: int) -> bool:
    """Say whether a name is that of a relation whose rows are locked: `FOR UPDATE OF a`."""
    return at > 0 and word(statement.lexemes[at - 1]) == "of"


def _is_star(statement: Statement, at: int) -> bool:
    """Say whether a star means all columns, and not a product or `count(*)`."""
    lexemes = statement.lexemes
    if lexemes[at].text != "*" or at == 0:
        return False
    before = lexemes[at - 1]
    if before.text == "(":
        return not is_count(lexemes[at - 2 : at + 2])
    if before.text == ")":
        opens = next((place for place, closes in statement.closing.items() if closes == at - 1), 0)
        return [word(one) for one in lexemes[max(opens - 2, 0) : opens]] == ["distinct", "on"]
    return before.text in {".", ","} or word(before) in _BEFORE_STAR | BEFORE_LIST[statement.dialect]


_BEFORE_STAR: Final = frozenset({"select", "returning"})


def _whole_behind(statement: Statement, shown: Selection) -> bool:
    """Say whether a relation's name stands behind FROM as an operand: more often than it is named there."""
    lexemes = statement.lexemes
    expected: Counter[str] = Counter()
    for source in shown.sources or ():
        # One with its schema stands behind a dot.
        expected[source.name.lower()] += not source.schema
        if source.alias:
            expected[source.alias.lower()] += 1
    found = Counter(
        one.text.lower() for at, one in enumerate(lexemes) if at >= shown.until and _is_operand(statement, at, one.kind)
    )
    return any(found[name] > expected[name] for name in expected)


def _by_number(statement: Statement, start: int) -> bool:
    """Say whether rows may be sorted or grouped by the number of a column.

    It need not stand alone: servers take `(1)`, MySQL `+1`, MariaDB `- -1`, `NOT FALSE`, and `?` with a number as its value.
    """
    said = [word(one) for one in statement.lexemes]
    outside = places_outside(statement, start)
    first = -1
    for at in [*outside, len(said)]:
        last = at == len(said) or said[at] in ENDS[statement.dialect]
        if first >= 0 and (last or statement.lexemes[at].text == ",") and _is_number(statement, said, first, at):
            return True
        if last:
            first = -1
        elif said[at] == "by" or (first >= 0 and statement.lexemes[at].text == ","):
            first = at + 1
    return False


def _is_number(statement: Statement, said: list[str], first: int, end: int) -> bool:
    """Say whether what rows are sorted or grouped by may be a number: it has one, and nothing that is none."""
    end = next((at for at in range(first, end) if said[at] in _BEHIND), end)
    part = range(first, end)
    numbers = [at for at in part if statement.lexemes[at].kind in _NUMBERS or said[at] in _TRUTHS]
    if not _SETS.isdisjoint(said[first:end]):  # whose brackets hold such
        return bool(numbers)
    return bool(numbers) and not any(statement.lexemes[at].kind <= Kind.NAME and said[at] not in _TRUTHS for at in part)


_SETS: Final = frozenset({"rollup", "cube", "grouping"})
_NUMBERS: Final = frozenset({Kind.NUMBER, Kind.PARAMETER})
_TRUTHS: Final = frozenset({"true", "false", "not"})
_BEHIND: Final = frozenset({"asc", "desc", "nulls", "using", "with"})
"""Words behind it: how it is sorted."""


def refusal_of_nesting(statement: Statement, around: Surroundings) -> str | None:
    """Say why a statement with queries within it could reach a hidden column; None: it names none, and has no star."""
    lexemes = statement.lexemes
    if any(word(one) in {"table", "natural"} for one in lexemes):
        return STARRED
    for at, one in enumerate(lexemes):
        if one.kind in {Kind.WORD, Kind.NAME} and one.text.lower() in around.hidden and not _is_path(statement, at):
            return COMPARED
        if _is_star(statement, at):
            return STARRED
    return None


def _parsed(text: str) -> Any:  # noqa: ANN401 - the parser is imported when it is needed
    try:
        return parsed(text, Dialect.POSTGRESQL)
    except Exception:  # noqa: BLE001 - whatever it is that the parser does not understand
        return None


def _whole_in_tree(statement: Statement, names: set[str]) -> str | None:
    """Compare how often a relation, or what it is called, is named, with how often it is so as a relation."""
    text = shown_text(statement)
    tree = None if text is None else _parsed(text.text)
    if text is None or tree is None:
        return WHOLE
    expressions = sqlglot().exp

    def named(node: Any) -> str:  # noqa: ANN401 - whatever the parser put where a name belongs
        return text.name(node.this, quoted=bool(node.args.get("quoted"))).lower()

    wholes, expected = set(names), Counter[str]()
    for node in tree.find_all(expressions.Table, expressions.TableAlias, expressions.Alias, expressions.CTE):
        kind = type(node).__name__
        name = node.args.get("alias") if kind == "Alias" else node.this
        if type(name).__name__ != "Identifier":
            continue
        expected[named(name)] += 1
        if kind == "TableAlias":
            if node.columns:
                return RENAMED
            wholes.add(named(name))
    found = Counter(
        one.text.lower()
        for at, one in enumerate(statement.lexemes)
        if one.kind in {Kind.WORD, Kind.NAME} and not _is_path(statement, at)
    )
    return WHOLE if any(found[name] > expected[name] for name in wholes) else None
