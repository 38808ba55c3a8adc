"""What rules hide of answers, in one session: what has to be known before a statement is sent, and what its answers go through.

What lives here: the order of asking the server and judging (enforcer/masking/rows/known.py says it). What must not: rows.

A simple Query is described before it is sent, by a Parse and Describe of capd's own; of a Bind the server describes the portal,
which is run only then. In the middle of a pipeline nothing but a portal can be asked about: what needs more is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from capd.enforcer.masking.rows.catalogue import Catalogue
from capd.enforcer.masking.rows.field import BrokenMessageError, Field, read_fields
from capd.enforcer.masking.rows.inquiry import UnreadableAnswerError
from capd.enforcer.masking.rows.judgement import RACED, Judged, Refused, judge
from capd.enforcer.masking.rows.known import Known, Masks, hides_columns, may_define
from capd.enforcer.masking.rows.protection import Hidden, Protection, protection
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.masked import BROKEN, MaskedAnswers, Means
from capd.enforcer.proxy.postgresql.names import Portal
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.sql.message import Message

if TYPE_CHECKING:  # it makes this
    from capd.enforcer.proxy.postgresql.conversation import Conversation

DESCRIBED: Final = "capd_described"
PIPELINED: Final = "columns are hidden here, and that cannot be judged in the middle of a pipeline: send Sync first"
TIED: Final = "something is hidden here, and of EXECUTE capd does not know which columns it gives: send the statement itself"
NOT_TOLD: Final = "columns are hidden here, and the server did not say what is needed to know which"
ANEW_SECONDS_MIN: Final = 1.0
"""Between two times that the server is asked anew about everything because of a relation that is not known."""
_OWN_SCHEMAS: Final = ("pg_catalog.", "information_schema.")
SEEN_MAX: Final = 256
"""Statements of one session of which it is remembered how their results are hidden."""
_SESSION_ONLY: Final = frozenset({"session"})
_ISO: Final = "ISO"

Then = Callable[[MaskedAnswers | str | bytes], None]
"""Is given what the answers go through, or why the statement is refused: in words, or as the body of the server's own error."""
Settled = tuple[Hidden | None, ...]
Described = Callable[[Judged, Sequence[Field], Settled | str | bytes], None]
"""Is given what a statement would give; or, as `Then`, why it gives nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A statement that was judged and described, and what by: it is neither again while that is so.

    Attributes:
        read: what was judged; known again by being the same object.
        protection: by which.
    """

    read: Read
    protection: Protection
    judged: Judged
    fields: Sequence[Field]
    settled: tuple[Hidden | None, ...] | None


class Hiding:
    """Of one session.

    Attributes:
        active: whether columns are hidden of anything in it, so far.
    """

    def __init__(self, hub: Conversation, key: bytes, now: Callable[[], float]) -> None:
        """Take the key of hashes, and the clock."""
        self._hub, self._key, self._now = hub, key, now
        self._known = Known()
        self._means: tuple[Masks, Means] | None = None
        self._anew = -ANEW_SECONDS_MIN
        self._named: tuple[Protection, frozenset[str]] | None = None
        self._seen: dict[tuple[int, bytes], Seen] = {}
        self._cursors: set[str] = set()
        self._of_cursors: Masks = ()
        self._iso = True
        self.active = False

    def reported(self, name: str, value: str) -> None:
        """Take what the server says of a parameter."""
        if name.lower() == "datestyle" and value.startswith(_ISO) is not self._iso:
            self._iso = value.startswith(_ISO)
            self._means = None

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def judged(self, read: Read, sql: bytes, masks: Masks, then: Callable[[Judged | Refused], None]) -> None:
        """Judge a statement, after the server said what has to be known."""
        if read.tied is not None:
            then(Refused(rule=masks[0][0], reason=TIED))
            return
        hides = hides_columns(masks)
        self._hub.answers.reports |= hides  # also of a session that only listens
        if not hides or _is_quiet(read.message):
            found = protection(Catalogue(stamp=""), masks)
            then(judge(read.message, sql, self._hub.judging.session, found, seeks=bool(self._meant(masks).seeker)))
            return
        self.active = True

        def known(told: bool) -> None:
            if not told:
                then(Refused(rule=masks[0][0], reason=NOT_TOLD if self._may_ask else PIPELINED))
                return
            if self._is_new(read.message, masks) and self._may_ask:
                self._anew = self._now()
                self._known.forget()
                self._ask(masks, known)
                return
            cursors = frozenset(self._cursors) if self._of_cursors == masks else frozenset[str]()
            found, seeks = self._known.protection(masks), bool(self._meant(masks).seeker)
            judged = judge(read.message, sql, self._hub.judging.session, found, cursors=cursors, seeks=seeks)
            if isinstance(judged, Judged) and judged.touches and judged.declares:
                self._goes_on_later()
            then(judged)

        self._ask(masks, known)

    def _goes_on_later(self) -> None:
        """Take that a query about hidden columns goes on under other statements: MOVE, and the end of a transaction."""
        if not self._hub.answers.cursors:
            self._hub.answers.cursors, self._means = True, None

    def _is_new(self, message: Message, masks: Masks) -> bool:
        """Say whether a message names a relation that was not there when the server was asked: others may have made it since.

        Not said twice within a second: a name that is nowhere would be asked for with each statement.
        """
        if self._now() - self._anew < ANEW_SECONDS_MIN:
            return False
        found = self._known.protection(masks)
        if self._named is None or self._named[0] is not found:
            self._named = (found, frozenset(one.name for one in found.catalogue.relations.values()))
        names = self._named[1]
        return any(
            name.rpartition(".")[2] not in names for name, _ in message.resources or () if not name.startswith(_OWN_SCHEMAS)
        )

    @property
    def _may_ask(self) -> bool:
        hub = self._hub
        return not hub.extended.open and hub.status != messages.FAILED

    def _ask(self, masks: Masks, then: Callable[[bool], None]) -> None:
        """Ask the server until everything is known; tell whether it is."""
        question = self._known.question(masks, self._now())
        if question is None:
            then(True)
            return
        if not self._may_ask:
            then(False)
            return

        def answered(due: Due) -> None:
            try:
                if due.failed or not due.rows:
                    raise UnreadableAnswerError
                self._known.answered(due.rows[0], self._now())
            except UnreadableAnswerError:
                self._known.forget()
                then(False)
                return
            self._ask(masks, then)

        self._hub.settle(lambda: self._hub.asks([question.encode()], answered))

    def _meant(self, masks: Masks) -> Means:
        if self._means is None or self._means[0] != masks:
            seeker = Seeker([(rule, rules_of(mask)) for rule, mask in masks])
            style = Style(key=self._key, iso_dates=self._iso)
            self._means = (masks, Means(style=style, seeker=seeker, cursors=self._hub.answers.cursors))
        return self._means[1]

    # -- Query -----------------------------------------------------------------------------------------------------------------

    def query(self, read: Read, sql: bytes, masks: Masks, then: Then) -> None:
        """Have a Query made ready; the server is idle."""
        self._prepared(read, sql, b"\0\0", masks, then, again=True)

    def _prepared(self, read: Read, sql: bytes, types: bytes, masks: Masks, then: Then, *, again: bool) -> None:
        def judged(found: Judged | Refused) -> None:
            if isinstance(found, Refused):
                then(found.reason)
            elif found.describe is None:
                then(MaskedAnswers(found, self._meant(masks)))
            elif (seen := self._known_again(read, types, found)) is not None:
                then(MaskedAnswers(found, self._meant(masks), seen.fields, seen.settled))
            else:
                self._describe(found, types, described)

        def described(found: Judged, fields: Sequence[Field], settled: Settled | str | bytes) -> None:
            if isinstance(settled, tuple):
                self._remember(read, types, Seen(read, found.protection, found, fields, settled))
                then(MaskedAnswers(found, self._meant(masks), fields, settled))
            elif settled == RACED and again:
                self._known.forget()
                self._prepared(read, sql, types, masks, then, again=False)
            else:
                then(settled)

        self.judged(read, sql, masks, judged)

    def _known_again(self, read: Read, types: bytes, judged: Judged) -> Seen | None:
        """Give what the server said of the same statement, while what is known of its relations is the same.

        What others define counts some seconds later (inquiry.STALE_SECONDS_MAX), here as in judging. A Query's own description
        comes with its rows, and has to say the same.
        """
        seen = self._seen.get((id(read), types))
        return seen if seen is not None and seen.read is read and seen.protection is judged.protection else None

    def _remember(self, read: Read, key: bytes, seen: Seen) -> None:
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[id(read), key] = seen

    def _describe(self, judged: Judged, types: bytes, then: Described) -> None:
        """Have the server describe a statement, without running it."""
        if not self._may_ask:
            then(judged, (), PIPELINED)
            return
        name, asked = DESCRIBED.encode() + b"\0", self._asked(judged)
        if asked is None:
            then(judged, (), NOT_TOLD)
            return
        said = messages.frame(b"P", name + asked + b"\0" + types)
        said += messages.frame(b"D", b"S" + name) + messages.frame(b"C", b"S" + name) + messages.SYNC

        def answered(due: Due) -> None:
            if due.failed:
                # What is wrong with it is wrong with the client's: it is told so in the server's own words.
                then(judged, (), due.error or NOT_TOLD)
                return
            then(judged, *self._settled(judged, due.described, judged.copies is not None))

        self._hub.own(said, Due(Asked.OWN, describes=True), answered)

    @staticmethod
    def _settled(judged: Judged, body: bytes | None, copies: bool) -> tuple[tuple[Field, ...], Settled | str]:
        try:
            fields = () if body is None else read_fields(body)
        except BrokenMessageError:
            return (), BROKEN
        if copies and judged.copies is not None and judged.copies.format == "binary":
            fields = tuple(replace(one, format=1) for one in fields)
        settled = judged.settle(fields)
        if isinstance(settled, tuple):
            return fields, settled
        return fields, settled.reason if isinstance(settled, Refused) else RACED

    # -- Bind ------------------------------------------------------------------------------------------------------------------

    def bind(self, read: Read, sql: bytes, types: bytes, masks: Masks, then: Then) -> None:
        """Have a Bind made ready as far as that is possible before it is sent: then its portal is described."""

        def judged(found: Judged | Refused) -> None:
            if isinstance(found, Refused):
                then(found.reason)
            elif found.describe is None or self._asked(found) == sql:
                then(MaskedAnswers(found, self._meant(masks)))
            else:  # of DECLARE and COPY the portal gives no columns
                self._prepared(read, sql, types, masks, then, again=True)

        self.judged(read, sql, masks, judged)

    def _asked(self, judged: Judged) -> bytes | None:
        """Give what the server must describe, as the session writes it; None: its encoding lacks a letter of some name."""
        assert judged.describe is not None
        try:
            return judged.describe.encode(self._hub.judging.session.reading.encoding or "ascii")
        except UnicodeEncodeError:
            return None

    def portal(self, name: bytes, portal: Portal, then: Then) -> None:
        """Have the server describe a portal that was bound, and give what its rows go through."""
        before, masks, read, key = portal.rewriting, portal.masks, portal.read, b"portal" + portal.formats
        assert before is not None
        if name and before.judged.touches:
            self._goes_on_later()
        if before.judged.copies is not None or before.judged.declares:
            then(before)
            return
        seen = self._known_again(read, key, before.judged)
        if seen is not None:
            then(MaskedAnswers(before.judged, self._meant(masks), seen.fields, seen.settled, ahead=True))
            return

        def answered(due: Due) -> None:
            fields, settled = self._settled(before.judged, due.described, False)
            if isinstance(settled, tuple):
                self._remember(read, key, Seen(read, before.judged.protection, before.judged, fields, settled))
                then(MaskedAnswers(before.judged, self._meant(masks), fields, settled, ahead=True))
            else:
                then(settled)

        said = messages.frame(b"D", b"P" + name + b"\0") + messages.FLUSH
        self._hub.own(said, Due(Asked.OWN, portal=True), answered)

    # -- what was done ---------------------------------------------------------------------------------------------------------

    def done(self, message: Message, rewriting: object, masks: Masks, *, failed: bool) -> None:
        """Take that a statement was run."""
        if may_define(message):
            self._known.forget()
        if isinstance(rewriting, MaskedAnswers) and rewriting.judged.declares and not failed:
            if self._of_cursors != masks:
                self._of_cursors = masks
                self._cursors.clear()
            self._cursors.add(rewriting.judged.declares)

    def transaction_over(self) -> None:
        """Take that no transaction is open: cursors are gone, or are not fetched from with computed columns."""
        self._cursors.clear()


def _is_quiet(message: Message) -> bool:
    """Say whether a message is about no relation and gives no rows: ROLLBACK, where nothing can be asked."""
    quiet = message.effects is not None and message.effects <= _SESSION_ONLY and not message.functions
    return message.complete and quiet and not message.resources and "FETCH" not in message.command
