"""What was recorded of a database's session, message by message, as actions.

What lives here: which messages of which protocol are judged, and what is known of the session when they are said.
What must not: records, what masking left of them (recorded_action.py).

Whether a statement succeeded, and when a prepared one was run, stands elsewhere in a recording: what it may have changed of the
session is not known from there on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from capd.enforcer.policy.action import Action
from capd.enforcer.policy.protocol import MYSQL, POSTGRESQL, REDIS
from capd.enforcer.policy.redis_command import recorded_arguments, redis_action
from capd.enforcer.policy.sql_statement import DIALECTS, read_sql, sql_action
from capd.enforcer.sql.effect import ANYTHING, Effects
from capd.enforcer.sql.session import new_session
from capd.recording.record import Value

LEFT_OUT: Final = "the recording has nothing of what it says"
UNKNOWN: Final = "unknown"
_TEXTS: Final = {
    POSTGRESQL: frozenset({"Query", "Parse", "FunctionCall"}),
    MYSQL: frozenset({"COM_QUERY", "COM_STMT_PREPARE"}),
}
"""Messages that are a text."""
_LOGINS: Final = frozenset({"StartupMessage", "HandshakeResponse", "COM_CHANGE_USER"})
_WRITTEN: Final = {"COM_INIT_DB": "USE {}", "COM_CREATE_DB": "CREATE DATABASE {}", "COM_DROP_DB": "DROP DATABASE {}"}
"""Commands of MySQL that are a statement in another form."""
_HARMLESS: Final = frozenset(
    {
        "SSLRequest",
        "AuthResponse",
        "AuthSwitchResponse",
        "LocalInfileData",
        "COM_PING",
        "COM_QUIT",
        "COM_STATISTICS",
        "COM_TIME",
    }
    | {"COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE", "COM_STMT_FETCH", "COM_STMT_SEND_LONG_DATA", "COM_STMT_CLOSE"}
    | {"COM_STMT_RESET", "COM_SET_OPTION"}
)
"""Messages of MySQL that say nothing that was not judged when it was prepared, or nothing at all; every other one is judged."""
_ELSEWHERE: Final = frozenset({"SELECT", "AUTH", "HELLO", "RESET", "EXEC", "EVAL", "EVALSHA", "FCALL"})
"""Commands of Redis behind which a session may be another user's, or in another database."""
_RESET: Final = "COM_RESET_CONNECTION"


class RecordedDatabase:
    """Of one session."""

    def __init__(self, protocol: str) -> None:
        """Begin with nothing known but the protocol, one of those that are opened."""
        self._protocol = protocol
        self._user: str | None = None
        self._database: str | None = None
        self._sql = new_session(DIALECTS.get(protocol, DIALECTS[POSTGRESQL]))
        self._opened = False

    def lose(self) -> None:
        """Note that something is missing: what it made of the session is not known."""
        self._sql = self._sql.lost()
        if self._protocol != POSTGRESQL:
            self._database = None
            self._user = None

    def answered(self, kind: object, fields: Mapping[str, Value]) -> None:
        """Take what the server says of the session."""
        if kind == "ParameterStatus":
            self._sql = self._sql.reported(_text(fields.get("name")), _text(fields.get("value")))
        elif self._protocol == MYSQL and kind == "OK" and isinstance(schema := fields.get("schema"), str):
            self._sql = self._sql.told_schemas((schema,))

    def said(self, kind: str, fields: Mapping[str, Value], problems: tuple[str, ...], opening: Action) -> list[Action]:
        """Give what a message is judged as; nothing, if it is not.

        Args:
            kind: its type, as its decoder calls it.
            fields: of it.
            problems: why they are not all that was sent.
            opening: of its session, without database and user.
        """
        if self._protocol == REDIS:
            return self._command(kind, fields, problems, opening)
        if kind in _LOGINS:
            return [self._login(kind, fields, opening)]
        if kind in _TEXTS[self._protocol]:
            text = fields.get("sql")
            return [self._statement(text if isinstance(text, str) else None, problems, opening)]
        if self._protocol != MYSQL or kind in _HARMLESS:
            return []
        if kind == _RESET:
            self._sql = self._sql.lost()
            return []
        if kind in _WRITTEN:
            name = fields.get("database")
            quoted = None if not isinstance(name, str) else _WRITTEN[kind].format("`" + name.replace("`", "``") + "`")
            return [self._statement(quoted, problems, opening)]
        return [self._unread(kind, problems, opening)]

    def _in_session(self, opening: Action) -> Action:
        return replace(opening, database=self._where, user=self._user)

    @property
    def _where(self) -> str | None:
        """Give the database; in MySQL it is where names are looked for."""
        if self._protocol != MYSQL:
            return self._database
        schemas = self._sql.names.schemas
        return schemas[0] if schemas else None

    def _login(self, kind: str, fields: Mapping[str, Value], opening: Action) -> Action:
        known = fields.get("parameters") if kind == "StartupMessage" else fields
        told: Mapping[str, Value] = known if isinstance(known, Mapping) else {}
        user, database = told.get("user"), told.get("database")
        self._user = user if isinstance(user, str) else None
        self._database = database if isinstance(database, str) else None
        if self._protocol == POSTGRESQL:
            self._database = self._database or self._user  # PostgreSQL: "defaults to the user name"
        else:
            fresh = new_session(DIALECTS[MYSQL])
            self._sql = fresh if self._database is None else fresh.told_schemas((self._database,))
        return self._in_session(opening)

    def _statement(self, text: str | None, problems: tuple[str, ...], opening: Action) -> Action:
        if text is None:
            problems = (*problems, LEFT_OUT)
        read = read_sql(text or "", self._sql)
        where = self._where
        unread = (Effects(command="", changes=(ANYTHING,)),) if read is None or problems else ()
        for done in unread or (() if read is None else read.statements):
            self._sql = self._sql.after(done, succeeded=None)
        return sql_action(
            text or "",
            principal=opening.principal,
            run=opening.run,
            target=opening.target,
            protocol=self._protocol,
            login=(where, self._user),
            problems=problems,
            read=read,
        )

    def _unread(self, operation: str, problems: tuple[str, ...], opening: Action) -> Action:
        """Give what nobody here can tell the effects of."""
        why = f"what {operation} does is not known"
        return replace(self._in_session(opening), operation=operation, problems=(*problems, why))

    def _command(self, kind: str, fields: Mapping[str, Value], problems: tuple[str, ...], opening: Action) -> list[Action]:
        """Give a command of Redis, and before the first the opening."""
        if kind != "command":
            return []
        found: list[Action] = []
        if not self._opened:
            self._opened = True
            found.append(opening)
        words = recorded_arguments(fields)
        if words is None:
            found.append(self._unread(_text(fields.get("command")) or UNKNOWN, (*problems, LEFT_OUT), opening))
        else:
            found.append(redis_action(words, problems, self._in_session(opening)))
        if fields.get("command") in _ELSEWHERE:
            self._database = self._user = None
        return found


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""
