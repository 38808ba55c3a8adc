"""What a message of SQL does: its statements one after the other, in the session in which they run.

What lives here: putting it together, and remembering it. What must not: how a single statement is understood.

Two things are remembered: what messages did, by their bytes, and what statements do, by their shape. Both are bounded; the
oldest is forgotten first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql import mysql_scanner, postgresql_scanner
from capd.enforcer.sql.effect import MEANS, OF_ROW, OF_VALUE, ROLLBACK, ROLLBACK_TO, WRITE, Effects
from capd.enforcer.sql.functions import foreign_functions
from capd.enforcer.sql.lexeme import Dialect, Scanned
from capd.enforcer.sql.postgresql_statement import UNKNOWN_COMMAND, postgresql_effects
from capd.enforcer.sql.session import Names, Session
from capd.enforcer.sql.shape import shape
from capd.enforcer.sql.statement import Statement, split

MESSAGES_MAX: Final = 2_048
MESSAGE_REMEMBERED_BYTES_MAX: Final = 4_096
"""Longer ones are mostly data, and do not come again. All that is remembered by bytes is at most 8 MiB of text."""
SHAPES_MAX: Final = 2_048
SHAPE_CHARACTERS_MAX: Final = 8_192
"""All that is remembered by shape is at most 16 MiB of text."""
SEPARATOR: Final = "; "
NOTHING: Final = "there is no statement in it"
_BLANKS: Final = b" \t\r\n;"
SEVERAL: Final = "statements after one that changes how text is read"
OTHERWISE: Final = "a statement before it in the message changes what functions, operators and types mean"
_UNDOES: Final = frozenset({ROLLBACK, ROLLBACK_TO})
_SESSION_ONLY: Final = frozenset({"session"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a message does.

    Attributes:
        command: first words of its statements, in upper case, each once, with SEPARATOR between.
        shape: of its statements, with `; ` between; "" if it could not be taken apart.
        effects: of all its statements; None: nothing is known.
        resources: names of relations with schemas (session.py), and whether they are read or written; None: not known.
        functions: that are called.
        has_where: as in Effects.
        problems: why that is not all.
        statements: what each does, in order, for Session.after.
    """

    command: str
    shape: str
    effects: frozenset[str] | None
    resources: tuple[tuple[str, str], ...] | None
    functions: tuple[str, ...] = ()
    has_where: bool | None = None
    problems: tuple[str, ...] = ()
    statements: tuple[Effects, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether that is all that it does itself."""
        return not self.problems


EMPTY: Final = Message(command="", shape="", effects=frozenset({"session"}), resources=(), has_where=True)
"""What says nothing at all, not even a comment: clients send it to see whether the server is there."""


def _mysql_effects(statement: Statement) -> Effects:
    from capd.enforcer.sql.mysql_statement import mysql_effects  # noqa: PLC0415 - of two dialects a host mostly has one

    return mysql_effects(statement)


_SCANS: Final = {Dialect.POSTGRESQL: postgresql_scanner.scan, Dialect.MYSQL: mysql_scanner.scan}
_EFFECTS: Final[dict[Dialect, Callable[[Statement], Effects]]] = {
    Dialect.POSTGRESQL: postgresql_effects,
    Dialect.MYSQL: _mysql_effects,
}


class Reader:
    """Reads messages, and remembers what it read."""

    def __init__(self) -> None:
        self._messages: dict[tuple[bytes, object, Names, frozenset[str], bool, bool, object], Message] = {}
        self._shapes: dict[tuple[Dialect, str], Effects] = {}

    def read(self, message: bytes, session: Session) -> Message:
        """Give what a message does.

        Args:
            message: SQL as it was sent: in PostgreSQL without the zero byte at its end.
            session: in which it is said.
        """
        # What a COMMIT or ROLLBACK goes back to counts for statements behind it.
        ends = (session.before, session.lasting, session.in_transaction, session.turned) if b";" in message else None
        key = (message, session.reading, session.names, session.functions, session.unsettled, session.sets_later, ends)
        found = self._messages.get(key)
        if found is not None:
            return found
        found = self._read(message, session)
        if len(message) <= MESSAGE_REMEMBERED_BYTES_MAX:
            if len(self._messages) >= MESSAGES_MAX:
                del self._messages[next(iter(self._messages))]
            self._messages[key] = found
        return found

    def forget(self, *, shapes: bool = True) -> None:
        """Forget what messages did; and what statements do, by their shape."""
        self._messages.clear()
        if shapes:
            self._shapes.clear()

    def _read(self, message: bytes, session: Session) -> Message:
        if not message.strip(_BLANKS):
            return EMPTY
        dialect = session.reading.dialect
        scanned: Scanned = _SCANS[dialect](message, session.reading)
        statements = split(scanned, dialect)
        if scanned.problems or not statements:
            return Message(
                command=UNKNOWN_COMMAND if not statements else _command(statements[0]),
                shape="",
                effects=None,
                resources=None,
                problems=scanned.problems or (NOTHING,),
            )
        shapes: list[str] = []
        done: list[Effects] = []
        for statement in statements:
            found, text = self._effects(statement)
            shapes.append(text)
            done.append(found)
        return _together(done, shapes, session)

    def _effects(self, statement: Statement) -> tuple[Effects, str]:
        text = shape(statement)
        if statement.problems:
            return _EFFECTS[statement.dialect](statement), text
        key = (statement.dialect, text)
        found = self._shapes.get(key)
        if found is None:
            found = _EFFECTS[statement.dialect](statement)
            if not found.literal and len(text) <= SHAPE_CHARACTERS_MAX:
                if len(self._shapes) >= SHAPES_MAX:
                    del self._shapes[next(iter(self._shapes))]
                self._shapes[key] = found
        return found, text


def _command(statement: Statement) -> str:
    word = statement.lexemes[0].text
    return word.upper() if word.isalpha() and word.isascii() else UNKNOWN_COMMAND


def _together(done: list[Effects], shapes: list[str], session: Session) -> Message:
    """Put statements together, each in the session that those before it made."""
    resources: set[tuple[str, str]] = set()
    problems: list[str] = [session.doubt] if session.doubt is not None else []
    reading, otherwise = session.reading, False
    foreign = foreign_functions(reading.server) if reading.dialect is Dialect.MYSQL else frozenset[str]()
    for one in done:
        if session.reading != reading and reading.dialect is Dialect.MYSQL:
            # PostgreSQL reads a message as a whole before it does anything, MySQL statement by statement.
            problems.append(SEVERAL)
        for relation in one.relations:
            resources |= {(name, relation.access) for name in session.resolved(relation)}
            problems += [f"the name {relation.name!r} has a dot in it"] if _dotted(relation.schema, relation.name) else []
        problems += one.problems
        hidden = (session.functions | foreign).intersection(one.functions)
        problems += [f"there is a function {min(hidden)}() that is not the server's own"] if hidden else []
        taking = {name.removeprefix(OF_VALUE).removeprefix(OF_ROW) for name in session.functions & one.fields}
        problems += [f"{min(taking)!r} may be a function that takes what is before the dot"] if taking else []
        problems += [OTHERWISE] if otherwise and not one.effects <= _SESSION_ONLY else []
        settings = {change.setting for change in one.changes}
        otherwise = otherwise or MEANS in settings or (session.unsettled and not settings.isdisjoint(_UNDOES))
        session = session.after(one, succeeded=True)
        if session.doubt is not None:
            problems.append(session.doubt)
    effects = frozenset[str]().union(*(one.effects for one in done))
    written = {name for name, access in resources if access == WRITE}
    kept = sorted((name, access) for name, access in resources if access == WRITE or name not in written)
    known = not problems or bool(effects)
    return Message(
        command=SEPARATOR.join(dict.fromkeys(one.command for one in done)),
        shape=SEPARATOR.join(shapes),
        effects=effects if known else None,
        resources=tuple(kept) if known else None,
        functions=tuple(sorted({name for one in done for name in one.functions})),
        has_where=all(one.has_where for one in done)
        if not problems
        else (None if all(one.has_where for one in done) else False),
        problems=tuple(dict.fromkeys(problems)),
        statements=tuple(done),
    )


def _dotted(*names: str | None) -> bool:
    """Say whether a name cannot be told from two once it is written with its schema; or from one that is not known."""
    return any(name is not None and ("." in name or name == "?") for name in names)
