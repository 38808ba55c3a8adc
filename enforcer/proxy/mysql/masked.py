"""Answers to one statement, with what is hidden replaced: each packet is built anew.

What lives here: which packet goes through what of enforcer/masking/rows. What must not: what is hidden, following answers.
"""

from __future__ import annotations

from capd.enforcer.masking.rows.field import BrokenMessageError
from capd.enforcer.masking.rows.judgement import RACED, Refused
from capd.enforcer.masking.rows.mysql_column import MysqlColumn, read_column
from capd.enforcer.masking.rows.mysql_judgement import MysqlJudged
from capd.enforcer.masking.rows.mysql_report import hidden_error
from capd.enforcer.masking.rows.mysql_row import MysqlResultMask
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.obligation import CarriedOut


class MaskedAnswers:
    """One statement's.

    Attributes:
        raced: what was known of the relations did not hold any more.
    """

    def __init__(self, judged: MysqlJudged, key: bytes, seeker: Seeker | None, *, binary: bool) -> None:
        """Begin.

        Args:
            judged: the statement.
            key: for hashes.
            seeker: what is looked for in what is shown; None: nothing.
            binary: whether rows are those of a prepared statement.
        """
        self._judged, self._key, self._seeker, self._binary = judged, key, seeker, binary
        self._columns: list[MysqlColumn] = []
        self._result: MysqlResultMask | None = None
        self._done: list[MysqlResultMask] = []
        self.raced = False

    @property
    def passes(self) -> bool:
        """Whether rows go on as they are."""
        return self._result is not None and not self._result.changes

    @property
    def carried_out(self) -> CarriedOut | None:
        """What was hidden; None: nothing."""
        found: dict[str, int] = {}
        for one in self._done:
            for rule, count in one.masked.items():
                found[rule] = found.get(rule, 0) + count
        return CarriedOut(masked=found) if found else None

    def begin(self) -> None:
        """A result begins."""
        self._columns, self._result = [], None

    def column(self, body: bytes) -> None:
        """Take the definition of a column.

        Raises:
            BrokenMessageError: it is none.
        """
        self._columns.append(read_column(body))

    def settle(self) -> str | None:
        """Take that all columns are defined; give why nothing of the result may go on, or None."""
        settled = self._judged.settle(self._columns)
        if isinstance(settled, tuple):
            self._result = MysqlResultMask(self._columns, settled, self._key, self._seeker, binary=self._binary)
            self._done.append(self._result)
            return None
        self.raced = not isinstance(settled, Refused)
        return settled.reason if isinstance(settled, Refused) else RACED

    def row(self, body: bytes) -> bytes:
        """Give a row as the client gets it.

        Raises:
            BrokenMessageError: it is none of this result.
        """
        if self._result is None:
            raise BrokenMessageError
        return self._result.row(body)

    def error(self, body: bytes) -> bytes:
        """Give an ERR as the client gets it.

        Raises:
            BrokenMessageError: it is none.
        """
        return hidden_error(body) if self._judged.touches or self._judged.changes else body
