"""What a statement is, in the session in which it is said, and the question about it.

What lives here: what is known of the session, and asking. What must not: packets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from capd.decoders.mysql.collations import character_set
from capd.enforcer.proxy.commands import Ask, Withdraw
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Kind, Login, Question, Statement, Verdict
from capd.enforcer.proxy.sql_question import sql_statement
from capd.enforcer.sql import effect
from capd.enforcer.sql.lexeme import Dialect, Reading, Server
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import UNKNOWN_SCHEMA, Names, Session

PROTOCOL: Final = "mysql"
INQUIRY: Final = b"SELECT @@sql_mode, @@character_set_client, HEX(DATABASE()) /* capd */"
"""How the server reads text, and where it looks for names. Variables that a user cannot hide, and no table.

The name is in hexadecimal: the encoding in which a session is answered has not all letters.
"""
_INQUIRED: Final = 3
_UNREAD: Final = Reading(dialect=Dialect.MYSQL, encoding=None, plain_backslash=None, double_quotes_name=None)
_MARIADB: Final = re.compile(r"(?:5\.5\.5-)?([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{1,2})-.*MariaDB", re.IGNORECASE)
"""What MariaDB says in its greeting; before its version may stand one for replicas of old (5.5.5-)."""
_MYSQL: Final = re.compile(
    r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{1,2})(?:-(?:[0-9][0-9a-z.+~-]*|log|debug|commercial|enterprise))*"
)
"""What MySQL says. Whatever else speaks its protocol puts its name behind the version."""
READER: Final = Reader()
"""Remembers what statements do, which is the same for everybody."""


def server_of(text: str) -> Server | None:
    """Give the server that says a version; None: it is neither MariaDB nor MySQL itself."""
    mariadb = _MARIADB.match(text)
    found = mariadb or _MYSQL.fullmatch(text)
    if found is None:
        return None
    return Server(mariadb is not None, 10_000 * int(found[1]) + 100 * int(found[2]) + int(found[3]))


class Judging:
    """Of one session.

    Attributes:
        session: what is known of it.
        in_transaction: whether one is open, as the server says.
    """

    def __init__(self, around: Surroundings, login: Login, outbox: Outbox, version: str) -> None:
        """Begin, with the version that the server says."""
        self._around, self._login, self._outbox = around, login, outbox
        self._unread = replace(_UNREAD, server=server_of(version))
        self.session = Session(reading=self._unread, names=Names())
        self.in_transaction = False
        self._number = 0
        self._then: Callable[[Verdict], None] | None = None

    # -- what is known of the session ------------------------------------------------------------------------------------------

    @property
    def encoding(self) -> str:
        """Give Python's name of the client's encoding."""
        return self.session.reading.encoding or "utf-8"

    @property
    def unread(self) -> bool:
        """Whether it is not known how the server reads text."""
        reading = self.session.reading
        return reading.encoding is None or reading.plain_backslash is None or reading.double_quotes_name is None

    def began(self, collation: int) -> None:
        """Take the collation with which the client began; the server is asked as soon as it can be."""
        self.session = self.session.reported("character_set_client", character_set(collation) or "")

    def learn(self, values: list[bytes | None]) -> None:
        """Take what the server said when it was asked."""
        if len(values) != _INQUIRED or values[0] is None or values[1] is None:
            self.lost()
            return
        mode, charset = values[0].decode("latin-1"), values[1].decode("latin-1")
        session = (
            replace(self.session, reading=self._unread).reported("sql_mode", mode).reported("character_set_client", charset)
        )
        try:
            schema = None if values[2] is None else bytes.fromhex(values[2].decode("ascii")).decode("utf-8")
        except ValueError:
            self.lost()
            return
        self.session = session.told_schemas(() if schema is None else (schema,))

    def lost(self) -> None:
        """Take that nothing is known any more."""
        self.session = self.session.lost()

    def told(self, variables: tuple[tuple[str, str], ...], schema: str | None) -> None:
        """Take what the server says of the session by itself."""
        for name, value in variables:
            if name in {"character_set_client", "sql_mode"}:
                self.session = self.session.reported(name, value)
        if schema is not None:
            self.session = self.session.told_schemas((schema,))

    def done(self, message: Message, *, failed: bool) -> None:
        """Take that a message was run; of one that failed nobody knows how far."""
        for one in message.statements:
            self.session = self.session.after(one, succeeded=None if failed else True)
        if not message.statements and message.problems:
            self.lost()

    # -- statements ------------------------------------------------------------------------------------------------------------

    def read(self, sql: bytes) -> Message:
        """Read a statement in the session as it is now."""
        return READER.read(sql, self.session)

    def lacks_names(self, message: Message) -> bool:
        """Say whether asking the server would tell more of a message."""
        prefix = f"{UNKNOWN_SCHEMA}."
        return self.session.names.schemas is None and any(name.startswith(prefix) for name, _ in message.resources or ())

    @staticmethod
    def databases(message: Message) -> list[str | None]:
        """Give the databases that a message goes over to; None for one that is not known."""
        changes = [change for one in message.statements for change in one.changes if change.setting == effect.DATABASE]
        return [None if not change.values else change.values[0] for change in changes]

    # -- questions -------------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a question is open."""
        return self._then is not None

    def ask(
        self,
        message: Message,
        sql: bytes,
        content: bytes,
        then: Callable[[Verdict], None],
        shown: Mapping[str, object] | None = None,
        *,
        prepares: bool = False,
    ) -> None:
        """Ask whether a statement may go on.

        Args:
            message: what it does.
            sql: its text.
            content: every byte that decides what it does.
            then: is told the verdict.
            shown: further facts for a person.
            prepares: whether it is only prepared.
        """
        self._number, self._then = next(self._around.numbers), then
        shown = {"transaction": "open" if self.in_transaction else "none", **(shown or {})}
        statement = sql_statement(message, sql, self.encoding, content, shown=shown, prepares=prepares)
        login = replace(self._login, database=self._where(message))
        self._outbox.do(Ask(self._question(Kind.STATEMENT, self._number, statement, login)))

    def _where(self, message: Message) -> str | None:
        """Give the database that a message is said in; None: that is not known, or it says more after it went to another."""
        schemas = self.session.names.schemas
        if schemas is None or (len(message.statements) != 1 and self.databases(message)):
            return None
        return schemas[0] if schemas else ""

    def ask_session(self, then: Callable[[Verdict], None]) -> None:
        """Ask whether the session may be opened."""
        self._number, self._then = next(self._around.numbers), then
        self._outbox.do(Ask(self._question(Kind.SESSION, self._number, None, self._login)))

    def _question(self, kind: Kind, number: int, statement: Statement | None, login: Login) -> Question:
        around = self._around
        return Question(
            number=number,
            kind=kind,
            destination=around.destination,
            protocol=PROTOCOL,
            server_name=around.server_name,
            inspected=around.inspected,
            login=login,
            statement=statement,
            carries_out=True,
        )

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict, if it is the one that is waited for."""
        if self._then is None or verdict.number != self._number:
            return
        then, self._then = self._then, None
        if verdict.allowed:
            self._outbox.allow(verdict.number)
        then(verdict)

    def withdraw(self) -> None:
        """Wait for no verdict any more."""
        if self._then is not None:
            self._then = None
            self._outbox.do(Withdraw(self._number))
