"""What of a MySQL or MariaDB database is hidden: columns that rules name, what views show of them, and the server's own logs.

What lives here: following columns. What must not: statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.masking.rows.mysql_catalogue import MysqlRelation, Name, Relations
from capd.enforcer.masking.rows.protection import Hidden, Patterns, patterns_of
from capd.enforcer.masking.rows.select_list import Selection, selection
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from capd.enforcer.sql import mysql_scanner
from capd.enforcer.sql.lexeme import MYSQL_DEFAULT, Dialect, words
from capd.enforcer.sql.statement import split

_OWN_SCHEMAS: Final = frozenset({"performance_schema", "sys"})
_OWN: Final[Mapping[str, frozenset[str]]] = {
    "mysql": words("general_log slow_log column_stats column_statistics proc event innodb_index_stats user global_priv db"),
    "information_schema": words(
        "processlist innodb_trx innodb_locks innodb_lock_waits profiling column_statistics optimizer_trace"
    ),
}
_OWN_BEGINS: Final = ("innodb_ft_", "innodb_buffer_page")
"""Words of full text indexes are words of values."""
ANY_COLUMN: Final = "*"


def own_values(name: Name) -> bool:
    """Say whether a relation of the server's own holds values of others, or what others said."""
    schema, relation = name
    if schema in _OWN_SCHEMAS or relation in _OWN.get(schema, ()):
        return True
    return schema == "information_schema" and relation.startswith(_OWN_BEGINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlProtection:
    """What is hidden of the relations that a statement leads to.

    Attributes:
        relations: that are known.
        hidden: columns by relation; ANY_COLUMN: all of it.
        predicates: whether hidden columns may be compared.
        rule: that hides columns; of several the first.
        hides: whether any columns are hidden; else secrets and numbers are looked for, and nothing is refused for its columns.
    """

    relations: Relations
    hidden: Mapping[Name, Mapping[str, Hidden]]
    predicates: Predicates
    rule: str
    hides: bool

    def touched(self, names: Sequence[Name]) -> list[Name]:
        """Give those of some relations that have hidden columns."""
        return [name for name in names if self.hidden.get(name)]

    def of(self, name: Name, column: str) -> Hidden | None:
        """Give how a column is hidden; None: it is not."""
        columns = self.hidden.get(name, {})
        return columns.get(column.lower()) or columns.get(ANY_COLUMN)

    def columns(self, name: Name) -> tuple[str, ...]:
        """Give the columns of a relation, as far as they are known."""
        known = self.relations.get(name)
        return known.columns if known is not None else ()


def mysql_protection(relations: Relations, names: Sequence[Name], masks: Sequence[tuple[str, Mask]]) -> MysqlProtection:
    """Find out what masks hide of some relations."""
    patterns = patterns_of(masks)
    rule = patterns[0][0].rule if patterns else masks[0][0]
    follows = _Follows(relations, patterns, Hidden(rule=rule, replace=Replace.NULL))
    for name in names if patterns else ():
        follows.hidden(name)
    denied = any(mask.columns and mask.predicates is Predicates.DENY for _, mask in masks)
    return MysqlProtection(
        relations=relations,
        hidden=follows.found,
        predicates=Predicates.DENY if denied else Predicates.ALLOW,
        rule=rule,
        hides=bool(patterns),
    )


class _Follows:
    """Follows columns through views."""

    def __init__(self, relations: Relations, patterns: Patterns, everything: Hidden) -> None:
        self._relations = relations
        self._patterns = patterns
        self._all = everything
        self.found: dict[Name, dict[str, Hidden]] = {}

    def hidden(self, name: Name) -> dict[str, Hidden]:
        """Give the hidden columns of a relation."""
        known = self.found.get(name)
        if known is not None:
            return known
        # Until it is known: a view that leads back to itself hides all.
        self.found[name] = {ANY_COLUMN: self._all}
        self.found[name] = self._worked_out(name)
        return self.found[name]

    def _worked_out(self, name: Name) -> dict[str, Hidden]:
        if own_values(name):
            return {ANY_COLUMN: self._all}
        relation = self._relations.get(name)
        if relation is None:
            return self._unknown(name)
        found = {column: one for column in relation.columns if (one := self._named(name, column)) is not None}
        if relation.definition is None:
            if found:
                found.update({column: found.get(column, self._all) for column in relation.generated})
            return found
        return {**self._shown(name, relation), **found}

    def _named(self, name: Name, column: str) -> Hidden | None:
        for hidden, patterns in self._patterns:
            if any(one.matches(*name, column) for one in patterns):
                return hidden
        return None

    def _unknown(self, name: Name) -> dict[str, Hidden]:
        """Of a relation without known columns all is hidden, if a pattern can be about it; the server has it hardly at all."""
        about = any(one.may_be_about(*name) for _, patterns in self._patterns for one in patterns)
        return {ANY_COLUMN: self._all} if about else {}

    def _shown(self, name: Name, relation: MysqlRelation) -> dict[str, Hidden]:
        """Give the hidden columns of a view: those that show hidden ones, and those that are computed where any could be."""
        if relation.made_of is None:
            return {ANY_COLUMN: self._all}
        behind = {one: self.hidden(one) for one in relation.made_of}
        if not any(behind.values()):
            return {}
        shown = _selection(relation.definition or "")
        if shown is None or shown.sources is None or len(shown.items) != len(relation.columns):
            return dict.fromkeys(relation.columns, self._all)
        found: dict[str, Hidden] = {}
        for column, item in zip(relation.columns, shown.items, strict=True):
            path = [one.text.lower() for one in item.lexemes[::2]]
            if item.column is None or len(path) < 2:  # noqa: PLR2004 - of which relation, and the column
                found[column] = self._all
                continue
            # The server writes `database`.`table`.`column`, or the alias in the place of the table.
            named = [
                (one.schema.lower() or name[0], one.name.lower())
                for one in shown.sources
                if path[-2] in {one.alias.lower(), one.name.lower()}
            ]
            hides = [one for at in named for one in [behind.get(at, {ANY_COLUMN: self._all})]]
            for columns in hides or [{ANY_COLUMN: self._all}]:
                one = columns.get(path[-1]) or columns.get(ANY_COLUMN)
                if one is not None:
                    found.setdefault(column, one)
        return found


def _selection(definition: str) -> Selection | None:
    statements = split(mysql_scanner.scan(definition.encode("utf-8"), MYSQL_DEFAULT), Dialect.MYSQL)
    return selection(statements[0]) if len(statements) == 1 else None
