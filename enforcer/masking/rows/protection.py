"""What of a database is hidden: the columns that rules name, and all that they reach.

What lives here: following columns through views, inheritance, partitions, foreign keys and generated columns. What must not:
statements.

A column that could show a hidden one is hidden. What cannot be followed counts as reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capd.enforcer.masking.rows.catalogue import Catalogue, Origin, Relation
from capd.enforcer.masking.rows.column_pattern import ColumnPattern, read_pattern
from capd.enforcer.masking.rows.statistics import own_values
from capd.enforcer.policy.rule import Mask, Predicates, Replace

Patterns = Sequence[tuple["Hidden", tuple[ColumnPattern, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """How a column is hidden.

    Attributes:
        rule: that says so; of several the first.
        replace: what stands in a value's place.
    """

    rule: str
    replace: Replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What is hidden in one database, by the masks of one decision.

    Attributes:
        catalogue: of the database.
        hidden: columns, by OID of their relation and their number.
        touched: OIDs of relations that have hidden columns, or are made of some that have.
        names: the same, as schema and name.
        predicates: whether hidden columns may be compared.
        rule: that hides columns; of several the first.
        columns: whether any are hidden; else secrets and numbers are looked for, and nothing is refused for its columns.
        all_names: of all relations that are known, without schemas.
        remembered: for judgement.py: what it said of statements.
    """

    catalogue: Catalogue
    hidden: Mapping[int, Mapping[int, Hidden]]
    touched: frozenset[int]
    names: frozenset[tuple[str, str]]
    predicates: Predicates
    rule: str
    columns: bool
    by_name: Mapping[str, tuple[Relation, ...]] = field(repr=False)
    all_names: frozenset[str] = field(default=frozenset(), repr=False)
    remembered: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    def of(self, origin: Origin) -> Hidden | None:
        """Give how a column is hidden; None: it is not."""
        return self.hidden.get(origin.relation, {}).get(origin.column)

    def may_be(self, resource: str) -> list[Relation]:
        """Give the touched relations that a statement's resource, `schema.name` or `?.name`, may be."""
        found: list[Relation] = []
        for at, sign in enumerate(resource):
            # A dot may also stand in a name.
            if sign == ".":
                schema, name = resource[:at], resource[at + 1 :]
                found += [one for one in self.by_name.get(name, ()) if schema in {"?", one.schema}]
        return found


def patterns_of(masks: Iterable[tuple[str, Mask]]) -> Patterns:
    """Give what masks say of columns."""
    return [
        (Hidden(rule=rule, replace=mask.replace), tuple(read_pattern(text) for text in mask.columns))
        for rule, mask in masks
        if mask.columns
    ]


def views_in_question(catalogue: Catalogue, masks: Sequence[tuple[str, Mask]]) -> frozenset[int]:
    """Give the views that reach something hidden: those of which it counts where their columns come from."""
    patterns = patterns_of(masks)
    touched = _followed(catalogue, patterns)[0] if patterns else frozenset()
    return frozenset(oid for oid in touched if oid in catalogue.relations and catalogue.relations[oid].view)


def protection(catalogue: Catalogue, masks: Sequence[tuple[str, Mask]]) -> Protection:
    """Find out what masks hide in a database."""
    patterns = patterns_of(masks)
    first = patterns[0][0] if patterns else Hidden(rule=masks[0][0], replace=Replace.NULL)
    touched, hidden = _followed(catalogue, patterns) if patterns else (frozenset(), {})
    denied = any(mask.columns and mask.predicates is Predicates.DENY for _, mask in masks)
    by_name: defaultdict[str, list[Relation]] = defaultdict(list)
    for oid in touched:
        relation = catalogue.relations.get(oid)
        if relation is not None:
            by_name[relation.name].append(relation)
    return Protection(
        catalogue=catalogue,
        hidden=hidden,
        touched=touched,
        names=frozenset((one.schema, one.name) for some in by_name.values() for one in some),
        predicates=Predicates.DENY if denied else Predicates.ALLOW,
        rule=first.rule,
        columns=bool(patterns),
        by_name={name: tuple(some) for name, some in by_name.items()},
        all_names=frozenset(one.name for one in catalogue.relations.values()),
    )


def _named(catalogue: Catalogue, patterns: Patterns) -> dict[int, dict[int, Hidden]]:
    """Give the columns that rules name, and those of the server's own that hold values."""
    found: dict[int, dict[int, Hidden]] = {}
    for oid, relation in catalogue.relations.items():
        own = own_values(relation.schema, relation.name)
        columns: dict[int, Hidden] = {}
        for column in relation.columns:
            for hidden, some in patterns:
                if any(one.matches(relation.schema, relation.name, column.name) for one in some):
                    columns.setdefault(column.number, hidden)
            if column.name in own:
                columns.setdefault(column.number, Hidden(rule=patterns[0][0].rule, replace=Replace.NULL))
        if columns:
            found[oid] = columns
    return found


def _followed(catalogue: Catalogue, patterns: Patterns) -> tuple[frozenset[int], dict[int, dict[int, Hidden]]]:
    """Give all relations from which hidden columns can be reached, and all that are hidden."""
    named = _named(catalogue, patterns)
    while True:
        touched = _reached(catalogue, named)
        hidden = _Columns(catalogue, named, touched, patterns[0][0]).all()
        # What refers to a hidden column has its values.
        more = [
            (own, one)
            for own, other in catalogue.keys
            if (one := hidden.get(other.relation, {}).get(other.column)) is not None
            and own.column not in hidden.get(own.relation, {})
        ]
        if not more:
            return touched, hidden
        for own, one in more:
            named.setdefault(own.relation, {})[own.column] = one


def _reached(catalogue: Catalogue, named: Mapping[int, object]) -> frozenset[int]:
    """Give all relations from which hidden columns can be reached."""
    leads: defaultdict[int, set[int]] = defaultdict(set)
    for child, parent in catalogue.families:
        leads[child].add(parent)
        leads[parent].add(child)
    for made, of in catalogue.made_of:
        leads[of].add(made)
    found: set[int] = set()
    todo = [*named, *catalogue.opaque]
    while todo:
        oid = todo.pop()
        if oid not in found:
            found.add(oid)
            todo += leads[oid]
    return frozenset(found)


class _Columns:
    """Finds the hidden columns of all reached relations."""

    def __init__(
        self, catalogue: Catalogue, named: dict[int, dict[int, Hidden]], touched: frozenset[int], first: Hidden
    ) -> None:
        self._catalogue = catalogue
        self._named = named
        self._touched = touched
        self._computed = Hidden(rule=first.rule, replace=Replace.NULL)
        self._found: dict[int, dict[int, Hidden]] = {oid: dict(columns) for oid, columns in named.items()}

    def all(self) -> dict[int, dict[int, Hidden]]:
        """Go on until nothing is added: views of views, children of views' tables."""
        while True:
            before = sum(map(len, self._found.values()))
            for child, parent in self._catalogue.families:
                self._share(child, parent)
                self._share(parent, child)
            for oid in self._touched:
                relation = self._catalogue.relations.get(oid)
                if relation is not None:
                    self._relation(relation)
            if sum(map(len, self._found.values())) == before:
                return self._found

    def _share(self, one: int, other: int) -> None:
        """A parent shows its children's rows; columns of one name are one."""
        source, target = self._catalogue.relations.get(one), self._catalogue.relations.get(other)
        if source is None or target is None:
            return
        names = {column.name: self._found.get(one, {}).get(column.number) for column in source.columns}
        for column in target.columns:
            hidden = names.get(column.name)
            if hidden is not None:
                self._found.setdefault(other, {}).setdefault(column.number, hidden)

    def _relation(self, relation: Relation) -> None:
        columns = self._found.setdefault(relation.oid, {})
        if not relation.view:
            if columns:
                for column in relation.columns:
                    if column.generated:
                        columns.setdefault(column.number, self._computed)
            return
        traced = self._catalogue.origins.get(relation.oid, ())
        for column in relation.columns:
            origin = traced[column.number - 1] if column.number <= len(traced) else None
            if origin is None or origin.relation == relation.oid:
                columns.setdefault(column.number, self._computed)
                continue
            hidden = self._found.get(origin.relation, {}).get(origin.column)
            if hidden is not None:
                columns.setdefault(column.number, hidden)
