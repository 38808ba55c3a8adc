"""What is known about a session that decides what a statement means: how it reads text, and where it looks for names.

What lives here: the state, and what statements and the server's own words make of it. What must not: connections.

What was not understood makes unknown what it may have changed. The search path is a list of schemas that may have a relation:
where more than one does, a name without a schema may be in any of them, and all are named to the policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.sql import effect
from capd.enforcer.sql.effect import Change, Effects, Relation
from capd.enforcer.sql.encodings import safe_mysql, safe_postgresql
from capd.enforcer.sql.functions import OWN_SCHEMA, catalogue
from capd.enforcer.sql.lexeme import MYSQL_DEFAULT, POSTGRESQL_DEFAULT, Dialect, Reading

Tri = bool | None
UNKNOWN_SCHEMA: Final = "?"
"""Stands for a schema that is not known. The policy takes it for one that may be any."""
TEMPORARY_MAX: Final = 1_000
"""Names of temporary relations that are remembered; beyond, any name may be one."""
_OF_SERIAL: Final = re.compile("_seq[0-9]*$")
"""How the names of sequences end that the server makes for columns."""
_SWITCH: Final = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Where names without a schema are looked for.

    Attributes:
        schemas: in which, in the session's order; None: not known.
        temporary: names that may be temporary relations; None: any may.
    """

    schemas: tuple[str, ...] | None = None
    temporary: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is known about a session.

    Attributes:
        reading: how it reads text.
        names: where it looks for names, now.
        in_transaction: whether a transaction is open, as far as statements say.
        before: what `names` goes back to when the transaction is rolled back.
        lasting: what it is once the transaction ends well.
        functions: names of functions that are not the server's own, as far as it was asked: one may hide the server's;
            those that take a row, with effect.OF_ROW before them; and those that take one value, with effect.OF_VALUE.
        turned: whether the search path was changed since no transaction was open: what it goes back to when one ends, even one
            that no statement began, or at a savepoint, is the server's to say.
        sets_later: whether a cursor may change settings whenever it is fetched from.
        unsettled: whether something was perhaps done in the open transaction to what functions, operators and types mean.
    """

    reading: Reading
    names: Names = Names()
    in_transaction: Tri = False
    before: Names = Names(temporary=None)
    lasting: Names = Names(temporary=None)
    functions: frozenset[str] = frozenset()
    turned: bool = False
    unsettled: bool = False
    sets_later: bool = False

    def told_functions(self, names: Iterable[str]) -> Session:
        """Note the names of functions outside of pg_catalog: PostgreSQL prefers one whose arguments fit better."""
        return replace(self, functions=frozenset(names))

    def told_schemas(self, schemas: tuple[str, ...], temporary: Iterable[str] = ()) -> Session:
        """Note what the server itself said about names.

        Args:
            schemas: of PostgreSQL current_schemas(false), of MySQL database().
            temporary: names of the session's temporary relations: those of pg_my_temp_schema(); MySQL has no schema for them.
        """
        return replace(self, names=Names(schemas=schemas, temporary=frozenset(temporary)))

    def lost(self) -> Session:
        """Give the session after something that nobody saw."""
        nothing = Names(temporary=None)
        reading = _unknown_reading(self.reading)
        return Session(
            reading=reading,
            names=nothing,
            in_transaction=None,
            before=nothing,
            lasting=nothing,
            functions=self.functions,
            turned=True,
            unsettled=True,
            sets_later=self.sets_later,
        )

    def reported(self, name: str, value: str) -> Session:
        """Note what the server said of a parameter: PostgreSQL reports it (ParameterStatus), MySQL is asked.

        PostgreSQL reports each change of how it reads text, before it is ready for the next message: so what is known of that
        stays known, as long as messages are judged after what was reported before them.
        """
        return _SETTINGS.get(name.lower(), _nothing)(self, (value,), False)

    def after(self, done: Effects, *, succeeded: Tri) -> Session:
        """Give the session after a statement.

        Args:
            done: what the statement does.
            succeeded: whether it did; None: that is not known.
        """
        changes = (*done.changes, effect.ANYTHING) if done.problems else done.changes
        if succeeded is False or not changes:
            return self
        changed = self
        for change in changes:
            changed = changed._changed(change)
        return changed if succeeded else self._either(changed)

    def _either(self, other: Session) -> Session:
        """Give what is certain if one of two is so."""
        reading, names = self.reading, self.names
        return replace(
            self,
            reading=reading if reading == other.reading else _unknown_reading(reading),
            names=names if names == other.names else Names(temporary=None),
            in_transaction=self.in_transaction if self.in_transaction == other.in_transaction else None,
            before=self.before if self.before == other.before else Names(temporary=None),
            lasting=self.lasting if self.lasting == other.lasting else Names(temporary=None),
            turned=self.turned or other.turned,
            unsettled=self.unsettled or other.unsettled,
            sets_later=self.sets_later or other.sets_later,
        )

    def _changed(self, change: Change) -> Session:
        if change == effect.ANYTHING:
            lost = self.lost()
            return replace(lost, reading=self.reading) if self.reading.dialect is Dialect.POSTGRESQL else lost
        return _SETTINGS.get(change.setting, _nothing)(self, change.values, change.local)

    def resolved(self, relation: Relation) -> tuple[str, ...]:
        """Give the names that a relation may have, each with its schema."""
        mysql = self.reading.dialect is Dialect.MYSQL
        if relation.schema is not None:
            return _either_case([f"{relation.schema}.{relation.name}"]) if mysql else (f"{relation.schema}.{relation.name}",)
        schemas, temporary = self.names.schemas, self.names.temporary
        if mysql:
            # A temporary table hides another one of its name and its database.
            return _either_case([f"{schema}.{relation.name}" for schema in schemas or (UNKNOWN_SCHEMA,)])
        if schemas is None or temporary is None or self.sets_later:
            return (f"{UNKNOWN_SCHEMA}.{relation.name}",)
        # Of a temporary table, a sequence has a name that the server chose.
        perhaps = relation.name in temporary or (bool(temporary) and _OF_SERIAL.search(relation.name) is not None)
        found = [effect.TEMPORARY_SCHEMA] if perhaps else []
        if OWN_SCHEMA not in schemas:
            known = relation.name in catalogue(Dialect.POSTGRESQL).relations
            if known or relation.name.startswith("pg_"):
                found.append(OWN_SCHEMA)
            schemas = () if known else schemas
        found += schemas
        return tuple(f"{schema}.{relation.name}" for schema in found) or (f"{UNKNOWN_SCHEMA}.{relation.name}",)

    @property
    def doubt(self) -> str | None:
        """Why no statement of this session can be complete; None: one can."""
        schemas = self.names.schemas
        if self.reading.dialect is Dialect.POSTGRESQL and schemas and OWN_SCHEMA in schemas[1:]:
            return "the search path has other schemas before pg_catalog: functions may be others than they seem"
        return None


def new_session(dialect: Dialect) -> Session:
    """Give a session of which only the usual is assumed, as for a statement that somebody writes into a command."""
    return Session(reading=POSTGRESQL_DEFAULT if dialect is Dialect.POSTGRESQL else MYSQL_DEFAULT)


def _either_case(names: list[str]) -> tuple[str, ...]:
    """Give names of MySQL as they are written, and in lower case: whether case counts, its file system decides."""
    return tuple(dict.fromkeys([*names, *(name.lower() for name in names)]))


def _unknown_reading(reading: Reading) -> Reading:
    named = reading.dialect is Dialect.POSTGRESQL or None
    return replace(reading, encoding=None, plain_backslash=None, double_quotes_name=named)


Applied = Callable[[Session, tuple[str, ...] | None, bool], Session]


def _nothing(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    return session


def _encoding(session: Session, values: tuple[str, ...] | None, _local: bool) -> Session:
    safe = safe_postgresql if session.reading.dialect is Dialect.POSTGRESQL else safe_mysql
    encoding = safe(values[0]) if values and len(values) == 1 else None
    return replace(session, reading=replace(session.reading, encoding=encoding))


def _standard_strings(session: Session, values: tuple[str, ...] | None, _local: bool) -> Session:
    plain = _SWITCH.get(values[0].lower()) if values and len(values) == 1 else None
    return replace(session, reading=replace(session.reading, plain_backslash=plain))


def _search_path(session: Session, values: tuple[str, ...] | None, local: bool) -> Session:
    # "$user" and what stands in quotes with commas: which schemas these are is the server's to say.
    plain = values is not None and all(one and "$" not in one and "," not in one and '"' not in one for one in values)
    names = replace(session.names, schemas=values if plain else None)
    if plain and values is not None and any(one.startswith(effect.TEMPORARY_SCHEMA) for one in values):
        # What is made then is temporary, though nothing says so.
        session = _temporary(session, None, local)
        names = replace(names, temporary=None)
    lasting = session.lasting if local else replace(session.lasting, schemas=names.schemas)
    return replace(session, names=names, lasting=lasting, turned=True)


def _temporary(session: Session, values: tuple[str, ...] | None, _local: bool) -> Session:
    known = session.names.temporary
    more = None if known is None or values is None or len(known) >= TEMPORARY_MAX else known | frozenset(values)
    return replace(
        session,
        names=replace(session.names, temporary=more),
        lasting=replace(session.lasting, temporary=more),
        before=replace(session.before, temporary=more),
    )


def _perhaps_temporary(session: Session, values: tuple[str, ...] | None, local: bool) -> Session:
    return session if session.names.temporary == frozenset() else _temporary(session, values, local)


def _schemas(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    names, lasting = replace(session.names, schemas=None), replace(session.lasting, schemas=None)
    return replace(session, names=names, lasting=lasting, turned=True)


def _begin(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    if session.in_transaction:
        return session
    return replace(session, in_transaction=True, before=session.names, lasting=session.names)


def _end(kept: Callable[[Session], Names]) -> Applied:
    def apply(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
        session = replace(session, unsettled=False) if session.unsettled else session
        if session.turned:
            session = _schemas(session, None, False)
            return replace(session, in_transaction=False)
        if not session.in_transaction:
            return session if session.in_transaction is False else replace(session, in_transaction=False)
        temporary = session.names.temporary
        return replace(session, in_transaction=False, names=replace(kept(session), temporary=temporary))

    return apply


def _rollback_to(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    return _schemas(session, None, False) if session.turned else session


def _database(session: Session, values: tuple[str, ...] | None, _local: bool) -> Session:
    # No transaction takes it back.
    before, lasting = replace(session.before, schemas=values), replace(session.lasting, schemas=values)
    return replace(session, names=replace(session.names, schemas=values), before=before, lasting=lasting)


def _sets_later(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    return replace(session, sets_later=True)


def _unsettled(session: Session, _values: tuple[str, ...] | None, _local: bool) -> Session:
    return replace(session, unsettled=True)


_MODES_THAT_NAME: Final = frozenset({"ANSI_QUOTES", "ANSI", "DB2", "MAXDB", "POSTGRESQL"})
_MODE: Final = re.compile("(?:[A-Z_]+[0-9]*)?", re.ASCII)
"""Numbers are modes, too, and a string may be written as one."""
_OTHER_GRAMMARS: Final = frozenset({"ORACLE", "MSSQL"})
"""MariaDB then has another grammar altogether; or `[` is a quote."""


def _sql_mode(session: Session, values: tuple[str, ...] | None, _local: bool) -> Session:
    modes = {one.strip() for value in values or () for one in value.upper().split(",")}
    if values is None or not modes.isdisjoint(_OTHER_GRAMMARS) or not all(_MODE.fullmatch(one) for one in modes):
        return replace(session, reading=replace(session.reading, plain_backslash=None, double_quotes_name=None))
    named = not modes.isdisjoint(_MODES_THAT_NAME)
    return replace(
        session, reading=replace(session.reading, plain_backslash="NO_BACKSLASH_ESCAPES" in modes, double_quotes_name=named)
    )


_SETTINGS: Final[dict[str, Applied]] = {
    "client_encoding": _encoding,
    "standard_conforming_strings": _standard_strings,
    "search_path": _search_path,
    "sql_mode": _sql_mode,
    "character_set_client": _encoding,
    effect.TEMPORARY: _temporary,
    effect.PERHAPS_TEMPORARY: _perhaps_temporary,
    effect.SCHEMA: _schemas,
    effect.SETS_LATER: _sets_later,
    effect.MEANS: _unsettled,
    effect.UNMAKES: _unsettled,
    effect.ROLE: _schemas,
    effect.DATABASE: _database,
    effect.BEGIN: _begin,
    effect.COMMIT: _end(lambda session: session.lasting),
    effect.ROLLBACK: _end(lambda session: session.before),
    effect.ROLLBACK_TO: _rollback_to,
}
