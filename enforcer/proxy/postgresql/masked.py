"""Answers to one statement, with what is hidden replaced: each message is built anew.

What lives here: which message goes through what of enforcer/masking/rows. What must not: what is hidden, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.postgresql.wire import HEADER_BYTES
from capd.enforcer.masking.rows.copy_stream import CopyMask, copy_mask
from capd.enforcer.masking.rows.field import BrokenMessageError, Field, read_fields
from capd.enforcer.masking.rows.judgement import RACED, Judged, Refused
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.masking.rows.report import hidden_notification, hidden_report
from capd.enforcer.masking.rows.result import ResultMask
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.obligation import CannotCarryOutError, CarriedOut
from capd.enforcer.proxy.postgresql import messages

BROKEN: Final = "a message of the server is not what its type says"
NOT_DESCRIBED: Final = "rows came that nobody described"
_REPORTS: Final = frozenset(b"EN")
_NOTIFICATION: Final = ord("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a session masks with.

    Attributes:
        style: how replacements are written.
        seeker: what is looked for in what is shown.
        cursors: whether one may be open whose query is about hidden columns: its errors come with other statements.
    """

    style: Style
    seeker: Seeker
    cursors: bool = False


class MaskedAnswers:
    """One statement's, or portal's.

    Attributes:
        hides: errors and notices, too, have been looked at.
    """

    hides = True

    def __init__(
        self,
        judged: Judged,
        means: Means,
        fields: Sequence[Field] = (),
        hidden: Sequence[Hidden | None] | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        """Begin.

        Args:
            judged: the statement.
            means: of the session.
            fields: that the server described before it runs.
            hidden: how each is hidden; None: nothing was described.
            ahead: rows come without a RowDescription of their own: `fields` is that of the portal.
        """
        self._judged, self._means = judged, means
        self._fields, self._hidden = tuple(fields), hidden
        self._result: ResultMask | None = None
        self._copy: CopyMask | None = None
        self._done: list[ResultMask | CopyMask] = []
        if ahead and hidden is not None:
            self._result = self._masks(self._fields, hidden)

    @property
    def judged(self) -> Judged:
        """Give the statement."""
        return self._judged

    @property
    def carried_out(self) -> CarriedOut | None:
        """What was hidden; None: nothing."""
        found: dict[str, int] = {}
        for one in self._done:
            for rule, count in one.masked.items():
                found[rule] = found.get(rule, 0) + count
        return CarriedOut(masked=found) if found else None

    def message(self, code: int, frame: bytes) -> bytes:
        """Give what goes on in a message's place; empty: nothing.

        Raises:
            CannotCarryOutError: no more of it goes on.
        """
        try:
            return self._message(chr(code), frame, frame[HEADER_BYTES:])
        except BrokenMessageError as error:
            raise CannotCarryOutError(BROKEN) from error

    def _message(self, code: str, frame: bytes, body: bytes) -> bytes:
        match code:
            case "D":
                return self._row(frame, body)
            case "T":
                self._described(body)
            case "E" | "N" if self._judged.touches or self._judged.changes:
                shown = hidden_report(body, details_only=not (self._judged.touches or self._means.cursors))
                return messages.frame(code.encode(), shown)
            case "H":
                self._copies_out()
            case "d" if self._copy is not None:
                data = self._copy.feed(body)
                return messages.frame(b"d", data) if data else b""
            case "c" if self._copy is not None:
                self._copy.end()
        return frame

    def _row(self, frame: bytes, body: bytes) -> bytes:
        if self._result is None:
            raise CannotCarryOutError(NOT_DESCRIBED)
        shown = self._result.row(body)
        return frame if shown is body else messages.frame(b"D", shown)

    def _described(self, body: bytes) -> None:
        fields = read_fields(body)
        settled = self._judged.settle(fields)
        if not isinstance(settled, tuple):
            raise CannotCarryOutError(settled.reason if isinstance(settled, Refused) else RACED)
        self._result = self._masks(fields, settled)

    def _masks(self, fields: Sequence[Field], hidden: Sequence[Hidden | None]) -> ResultMask:
        made = ResultMask(fields, hidden, self._means.style, self._means.seeker or None)
        self._done.append(made)
        return made

    def _copies_out(self) -> None:
        form = self._judged.copies
        if form is None:
            if self._judged.touches or self._means.seeker:
                raise CannotCarryOutError(NOT_DESCRIBED)
            return
        fields = self._fields if self._hidden is not None else None
        self._copy = copy_mask(form, fields, self._hidden, self._means.style, self._means.seeker or None)
        self._done.append(self._copy)


def between(code: int, frame: bytes, *, details_only: bool) -> bytes | None:
    """Give what goes on in the place of a message that belongs to no statement, in a session in which columns are hidden.

    An error at the end of a transaction may repeat a row of a broken constraint, or what a cursor that outlives it is about;
    and what a trigger notifies of, nobody knows.

    Args:
        code: of the message.
        frame: all of it.
        details_only: no cursor is about hidden columns.

    Raises:
        CannotCarryOutError: it cannot be read.
    """
    try:
        if code in _REPORTS:
            return messages.frame(bytes((code,)), hidden_report(frame[HEADER_BYTES:], details_only=details_only))
        if code == _NOTIFICATION:
            return messages.frame(b"A", hidden_notification(frame[HEADER_BYTES:]))
    except BrokenMessageError as error:
        raise CannotCarryOutError(BROKEN) from error
    return None
