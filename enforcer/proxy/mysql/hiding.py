"""What rules hide of answers, in one session: what has to be known before a statement is sent, and what its answers go through.

What lives here: the order of asking the server and judging (enforcer/masking/rows). What must not: rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from capd.enforcer.masking.rows.inquiry import UnreadableAnswerError
from capd.enforcer.masking.rows.judgement import Refused
from capd.enforcer.masking.rows.known import Masks, hides_columns, may_define
from capd.enforcer.masking.rows.mysql_catalogue import MysqlCatalogue, Name, names_of
from capd.enforcer.masking.rows.mysql_judgement import judge_mysql
from capd.enforcer.masking.rows.mysql_protection import mysql_protection
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.proxy.mysql.masked import MaskedAnswers
from capd.enforcer.sql.message import Message
from capd.enforcer.sql.session import Session

NOT_TOLD: Final = "columns are hidden here, and the server did not say what is needed to know which"

Then = Callable[[MaskedAnswers | str], None]
"""Is given what the answers go through, or why the statement is refused."""
Rows = Sequence[Sequence[bytes | None]]


class Asks(Protocol):
    """Who asks the server on the session's connection."""

    def ask(self, question: str, then: Callable[[Rows | None, int], None]) -> None:
        """Ask; `then` is given the rows, or None when it fails, and the number of the error."""


class Hiding:
    """Of one session."""

    def __init__(self, asks: Asks, key: bytes, now: Callable[[], float]) -> None:
        """Take who asks, the key of hashes, and the clock."""
        self._asks, self._key, self._now = asks, key, now
        self._catalogue = MysqlCatalogue()

    def ready(self, message: Message, sql: bytes, session: Session, masks: Masks, then: Then, *, binary: bool) -> None:
        """Have a statement judged, after the server said what has to be known.

        Args:
            message: what it does.
            sql: its text.
            session: in which it is said.
            masks: of the decision.
            then: is told.
            binary: whether its rows will be those of a prepared statement.
        """
        names = names_of(message.resources or ()) or frozenset[Name]()

        def known(told: bool) -> None:
            if not told:
                then(NOT_TOLD)
                return
            protection = mysql_protection(self._catalogue.relations, sorted(names), masks)
            judged = judge_mysql(message, sql, session, protection)
            if isinstance(judged, Refused):
                then(judged.reason)
                return
            seeker = Seeker([(rule, rules_of(mask)) for rule, mask in masks])
            then(MaskedAnswers(judged, self._key, seeker or None, binary=binary))

        if hides_columns(masks):
            self._know(names, known)
        else:
            known(True)

    def _know(self, names: frozenset[Name], then: Callable[[bool], None]) -> None:
        """Ask the server until everything is known of some relations; tell whether it is."""
        try:
            question = self._catalogue.question(names, self._now())
        except UnreadableAnswerError:
            self._catalogue.forget()
            then(False)
            return
        if question is None:
            then(True)
            return

        def answered(rows: Rows | None, error: int) -> None:
            try:
                self._catalogue.answered(rows, error)
            except UnreadableAnswerError:
                self._catalogue.forget()
                then(False)
                return
            self._know(names, then)

        self._asks.ask(question, answered)

    def done(self, message: Message, masked: MaskedAnswers | None) -> None:
        """Take that a statement was run: what was known may not hold any more."""
        if may_define(message) or (masked is not None and masked.raced):
            self._catalogue.forget()
