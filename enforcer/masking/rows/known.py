"""What one session knows of its database for masking, and since when.

What lives here: when the server has to be asked again, and what follows from masks, remembered. What must not: asking.

The way of a proxy, before a statement that masks with columns are for:

1. `question(at)` says what is asked on the target's connection first, as a simple Query: all of an `Inquiry`, or the stamp.
   Its rows go to `answered`; that is repeated until there is none. In a transaction that has failed nothing can be asked, and
   the statement needs no masking either: the server refuses it.
2. `judgement.judge(..., protection(masks), ...)`. `Refused`: the protocol's own error, nothing is sent. Else, where
   `Judged.describe` says so, the server describes the result before anything runs, and `Judged.settle` says how each column is
   hidden, or `Stale`: `forget()`, then again from 1; twice stale is refused.
3. The statement is sent. Its rows go through a `ResultMask`, whose RowDescription, as it comes with the result, has to settle
   to the same; COPY goes through a `CopyMask`; errors and notices through `report`.
4. When it may have defined something, or failed in an unknown way: `forget()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capd.enforcer.masking.rows.catalogue import Catalogue
from capd.enforcer.masking.rows.inquiry import STALE_SECONDS_MAX, STAMP, Inquiry, Row, read_stamp
from capd.enforcer.masking.rows.protection import Protection, protection, views_in_question
from capd.enforcer.policy.rule import Mask
from capd.enforcer.sql.message import Message

Masks = tuple[tuple[str, Mask], ...]
REMEMBERED_MAX: Final = 16
"""Combinations of masks that a session's decisions have; more are worked out anew."""
_DEFINES: Final = frozenset({"define", "drop", "code", "grant"})


def hides_columns(masks: Masks) -> bool:
    """Say whether masks hide columns: else the server need not be asked."""
    return any(mask.columns for _, mask in masks)


def may_define(sql: Message) -> bool:
    """Say whether a message may change what was asked of the server."""
    return not sql.complete or sql.effects is None or not _DEFINES.isdisjoint(sql.effects) or "into" in sql.shape


class Known:
    """Of one session."""

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._inquiry: Inquiry | None = None
        self._at = 0.0
        self._masks: Masks = ()
        self._protections: dict[Masks, Protection] = {}

    def question(self, masks: Masks, at: float) -> str | None:
        """Say what has to be asked next before a statement is judged; None: nothing.

        Args:
            masks: of the decision.
            at: now, in seconds of any clock that does not go back.
        """
        if self._inquiry is None and (self._catalogue is None or (masks != self._masks and masks not in self._protections)):
            self._masks = masks
            self._inquiry = Inquiry(lambda found: views_in_question(found, masks))
        if self._inquiry is not None:
            return self._inquiry.question
        return STAMP if at - self._at > STALE_SECONDS_MAX else None

    def answered(self, rows: Sequence[Row], at: float) -> None:
        """Take the rows that answer the question.

        Raises:
            UnreadableAnswerError: they do not: nothing can be masked.
        """
        if self._inquiry is not None:
            self._inquiry.answered(rows)
            if self._inquiry.question is None:
                self._learn(self._inquiry.catalogue, at)
            return
        known = self._catalogue
        self._at = at
        if known is None or read_stamp(rows) != known.stamp:
            self.forget()

    def forget(self) -> None:
        """What was known may not hold any more."""
        self._catalogue, self._inquiry = None, None
        self._protections.clear()

    def protection(self, masks: Masks) -> Protection:
        """Give what masks hide, once there is no question."""
        assert self._catalogue is not None
        found = self._protections.get(masks)
        if found is None:
            if len(self._protections) >= REMEMBERED_MAX:
                self._protections.clear()
            found = self._protections[masks] = protection(self._catalogue, masks)
        return found

    def _learn(self, catalogue: Catalogue, at: float) -> None:
        self._catalogue, self._inquiry, self._at = catalogue, None, at
        self._protections = {self._masks: protection(catalogue, self._masks)}
