"""What a statement does, as far as its text says it.

What lives here: the values. What must not: finding them out, and the names that the policy gives them to rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

READ: Final = "read"
WRITE: Final = "write"
OF_ROW: Final = "."
"""Before a name: `a.f`, where `a` is a row. It may call `f(a)`."""
OF_VALUE: Final = ")."
"""Before a name: `(a).f`, where `a` may be of any type."""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Relation:
    """A table, view, sequence or index, as the statement names it.

    Attributes:
        schema: None if the statement leaves it out: which one it is the session's search path says.
        name: as the server compares it.
        access: READ or WRITE.
    """

    schema: str | None
    name: str
    access: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a statement makes of the session.

    Attributes:
        setting: in lower case: a parameter; or one of the names below. "" is any: what changed is not known.
        values: as written, without quotes; None: not known, or back to what it was.
        local: only until the transaction ends.
    """

    setting: str
    values: tuple[str, ...] | None = None
    local: bool = False


BEGIN: Final = "=begin"
COMMIT: Final = "=commit"
ROLLBACK: Final = "=rollback"
ROLLBACK_TO: Final = "=rollback to"
TEMPORARY: Final = "=temporary"
"""A temporary relation was made; the value is its name."""
PERHAPS_TEMPORARY: Final = "=perhaps temporary"
"""A relation has a new name, which is temporary if it is of a temporary relation: a view, ALTER TABLE ... RENAME."""
TEMPORARY_SCHEMA: Final = "pg_temp"
SETS_LATER: Final = "=sets later"
"""A cursor was opened whose query changes settings: when it does, whoever fetches from it says."""
SCHEMA: Final = "=schema"
"""Schemas were made, renamed or dropped."""
DATABASE: Final = "=database"
"""MySQL: USE."""
ROLE: Final = "=role"
ROLES: Final = frozenset({"role", "session_authorization"})
"""Settings that change as whom it is said."""
MEANS: Final = "=means"
"""Functions, operators and types may have other names from now on."""
UNMAKES: Final = "=unmakes"
"""Functions, operators or types are gone; they are back if the transaction is rolled back."""
ANYTHING: Final = Change(setting="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What one statement does.

    Attributes:
        command: its first word, in upper case.
        effects: words as in the policy's table of effects.
        relations: which it reads or writes itself.
        functions: which it calls.
        fields: names behind a dot, with OF_ROW or OF_VALUE before them: of columns, or of functions that take what is there.
        has_where: every UPDATE and DELETE in it has a WHERE that asks for a column; true if there is none.
        changes: what it makes of the session.
        problems: why that is not all, or not certain.
        literal: whether it would be another with other literals.
    """

    command: str
    effects: frozenset[str] = frozenset()
    relations: tuple[Relation, ...] = ()
    functions: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()
    has_where: bool = True
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    literal: bool = False

    @property
    def complete(self) -> bool:
        """Whether that is all that it does itself."""
        return not self.problems

    def joined(self, other: Effects) -> Effects:
        """Give this with what another part of the same statement does."""
        return replace(
            self,
            effects=self.effects | other.effects,
            relations=ordered((*self.relations, *other.relations)),
            functions=tuple(sorted({*self.functions, *other.functions})),
            fields=self.fields | other.fields,
            has_where=self.has_where and other.has_where,
            changes=(*self.changes, *other.changes),
            problems=tuple(dict.fromkeys((*self.problems, *other.problems))),
            literal=self.literal or other.literal,
        )


def ordered(relations: Iterable[Relation]) -> tuple[Relation, ...]:
    """Give relations in an order, each once; one that is read and written counts as written."""
    found = set(relations)
    written = {(one.schema, one.name) for one in found if one.access == WRITE}
    kept = (one for one in found if one.access == WRITE or (one.schema, one.name) not in written)
    return tuple(sorted(kept, key=lambda one: (one.schema or "", one.name)))


def explained(inner: Effects, command: str, *, runs: bool) -> Effects:
    """Give the effects of explaining a statement.

    Args:
        inner: what the statement does.
        command: the word that explains.
        runs: whether it is run for that (ANALYZE); else its relations are only looked at.
    """
    if runs:
        return replace(inner, command=command, effects=inner.effects | {"select"}, literal=True)
    return Effects(
        command=command,
        effects=frozenset({"select"}),
        relations=tuple(replace(one, access=READ) for one in inner.relations),
        functions=inner.functions,
        fields=inner.fields,
        problems=inner.problems,
        literal=True,
    )
