"""Messages of the extended protocol: Parse, Bind, Describe, Execute, Close.

What lives here: what is asked when, and what stands behind names. What must not: Query, Sync, denying (conversation.py).

A Parse waits for the client's next message: behind it mostly comes the Bind of the same statement, and then both are one
question, with the values. A Parse that stands alone is judged by its text. Each Bind is judged with its values before they are
sent; its Execute goes under the same decision if nothing else was decided since, else it is judged again. So a decision is
never older than the latest one, which is asked again when the policy changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from capd.enforcer.masking.rows.judgement import Judged, Refused
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.asking import Said
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.frames import UnreadableError
from capd.enforcer.proxy.postgresql.judging import is_plain
from capd.enforcer.proxy.postgresql.masked import MaskedAnswers
from capd.enforcer.proxy.postgresql.names import NAME_BYTES_MAX, UNNAMED, Names, NamesFullError, Portal, Prepared
from capd.enforcer.proxy.postgresql.read_statement import Read, as_read
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.sql.lexeme import Reading
from capd.enforcer.sql.message import SEPARATOR

if TYPE_CHECKING:  # it makes this
    from capd.enforcer.proxy.postgresql.conversation import Conversation

_PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE = b"PBDEC"
CODES: Final = frozenset(b"PBDEC")
_HEADER: Final = 5
_STATEMENT, _PORTAL = b"SP"
_DOUBT: Final = "a statement that is not understood may have prepared another one under its name"
OTHERWISE: Final = "other columns are hidden now than when it was bound: bind it again"
FULL: Final = "54000"
DUPLICATE: Final = "42P05"

Held = tuple[bytes, bytes, Prepared]
"""Name, message, statement of a Parse that waits."""


class Extended:
    """Of one session.

    Attributes:
        prepared, portals: what stands behind names.
        open: whether the server was sent messages since the last Sync.
        moving: how many are under way that change what later ones mean.
        group: counts messages up to a Sync.
    """

    def __init__(self, hub: Conversation) -> None:
        self._hub = hub
        self.prepared, self.portals = Names[Prepared](), Names[Portal]()
        self.open = False
        self.moving = self.group = 0
        self._held: Held | None = None
        hub.judging.prepared = self.prepared.get
        self._moved = False

    @property
    def busy(self) -> bool:
        """Whether anything is open, or stands behind the name of a portal."""
        return self.open or self._held is not None or bool(self.moving or self.portals)

    def take(self, code: int, frame: bytes) -> None:
        """Take a message."""
        body = frame[_HEADER:]
        if _too_long(code, body):
            told = f"a name of more than {NAME_BYTES_MAX} bytes, which the server would cut"
            self.flush_parse(lambda: self._refuse(messages.TOO_LONG, told))
            return
        if self._held is None and not self.moving:
            self._takes[code](self, frame, body)
        elif code == _BIND:
            self._when_still(lambda: self._bind(frame, body))
        elif code == _PARSE:
            self.flush_parse(lambda: self._when_still(lambda: self._parse(frame, body)))
        elif code == _DESCRIBE:
            self.flush_parse(lambda: self._describe(frame, body))
        elif code == _EXECUTE:
            self.flush_parse(lambda: self._execute(frame, body))
        else:
            self.flush_parse(lambda: self._close(frame, body))

    def _when_still(self, then: Callable[[], None]) -> None:
        """Go on when nothing is under way that changes what this means, unless that failed."""
        if not self.moving:
            then()
        else:
            self._hub.settle(lambda: None if self._hub.discarding else then())

    def send(self, frame: bytes, due: Due) -> None:
        """Send a message of a group."""
        self.open = True
        self._hub.answers.due.append(due)
        self._hub.outbox.up(frame)

    def sync(self, frame: bytes) -> None:
        """Send a Sync."""
        self._hub.answers.due.append(Due(Asked.SYNC, group=self.group))
        self._hub.outbox.up(frame)
        self.open = False
        self.group += 1

    def _refuse(self, code: str, message: str) -> None:
        self._hub.deny(messages.error(code, f"capd: {message}", encoding=self._hub.judging.encoding), simple=False)

    def _refuse_full(self) -> None:
        self._refuse(FULL, "there are more prepared statements and portals than a session may have")

    # -- Parse -----------------------------------------------------------------------------------------------------------------

    def _parse(self, frame: bytes, body: bytes) -> None:
        name, sql, types = (*body.split(b"\0", 2), b"", b"")[:3]
        if len(types) < 2 or len(types) != 2 + 4 * int.from_bytes(types[:2], "big"):  # noqa: PLR2004 - a count of two bytes
            raise UnreadableError("a Parse cannot be read")
        if name and name in self.prepared and self._hub.answers.due:  # what made it may fail yet
            self._hub.settle(lambda: None if self._hub.discarding else self._parse(frame, body))
            return
        if name and name in self.prepared:
            self._refuse(DUPLICATE, f'prepared statement "{_shown(name)}" already exists')
            return
        self._held = (name, frame, Prepared(sql=sql, types=types, reading=self._hub.judging.session.reading))

    def flush_parse(self, then: Callable[[], None], *, always: bool = False) -> None:
        """Have a Parse that waits judged by its text, then go on; if it was denied, only if so `always`."""
        held, self._held = self._held, None
        if held is None or self._hub.discarding:
            if always or not self._hub.discarding:
                then()
            return

        def allowed(read: Read, verdict: Verdict) -> None:
            masks = verdict.obligations.masks
            if masks:
                self._hub.hiding.judged(read, held[2].sql, masks, lambda found: judged(found, verdict))
            elif self._sent_parse(held):
                then()

        def judged(found: Judged | Refused, verdict: Verdict) -> None:
            if isinstance(found, Refused):
                self._hub.deny(self._hub.not_hidden(found.reason, verdict), simple=False, after=denied)
            elif not self._hub.discarding and self._sent_parse(held):
                then()

        content, denied = held[2].sql + b"\0" + held[2].types, then if always else None
        self._judged(held[2], content, allowed, denied=denied, prepares=True)

    def _sent_parse(self, held: Held, rewriting: MaskedAnswers | None = None) -> bool:
        """Send a Parse; say whether there was room for its name."""
        name, frame, prepared = held
        try:
            undo = self.prepared.put(name, prepared)
        except NamesFullError:
            self._refuse_full()
            return False
        lost = None if name else lambda: self.prepared.drop(UNNAMED)  # the server drops the former one first
        self.send(frame, Due(Asked.PARSE, undo=undo, lost=lost, rewriting=rewriting))
        return True

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _judged(
        self,
        prepared: Prepared,
        content: bytes,
        then: Callable[[Read, Verdict], None],
        *,
        denied: Callable[[], None] | None = None,
        prepares: bool = False,
        approved: str = "",
    ) -> None:
        """Have a statement judged; what is denied is answered, and then `denied` follows."""
        hub = self._hub

        def decided(read: Read, verdict: Verdict) -> None:
            refusal = hub.refusal(verdict)
            if refusal is not None or hub.discarding:
                hub.deny(refusal or b"", simple=False, after=denied)
            else:
                then(read, verdict)

        reads = partial(self._read, prepared)
        said = Said(reads=reads, sql=prepared.sql, content=content, prepares=prepares, approved=approved)
        hub.asking.ask(said, decided)

    def _read(self, prepared: Prepared) -> Read:
        """Read a statement as it is meant now: names are looked for anew, its text is as it was when it was prepared."""
        read = self._hub.judging.read(prepared.sql, prepared.reading)
        if prepared.doubt:
            problems = (*read.message.problems, prepared.doubt)
            read = as_read(replace(read.message, problems=problems))
        return read

    # -- Bind, Execute ---------------------------------------------------------------------------------------------------------

    def _bind(self, frame: bytes, body: bytes) -> None:
        name, statement, values = (*body.split(b"\0", 2), b"", b"")[:3]
        held = self._held
        if held is not None and held[0] != statement:
            self.flush_parse(lambda: self._bind(frame, body))
            return
        prepared = self.prepared.get(statement) if held is None else held[2]
        if prepared is None:
            self._refuse(messages.NO_STATEMENT, f'prepared statement "{_shown(statement)}" is not one that was judged')
            return
        self._held = None
        content = b"\0".join((prepared.sql, prepared.types, values))

        def allowed(read: Read, verdict: Verdict) -> None:
            masks = verdict.obligations.masks
            portal = Portal(
                prepared=prepared, read=read, content=content, decision=verdict.number, group=self.group, masks=masks
            )
            portal.metered = self._hub.metered(verdict, read)
            portal.approved = verdict.policy if verdict.approval else ""
            if portal.metered is None and is_plain(verdict):
                self._hub.lane.learn_bound(read, prepared)
            if masks:
                portal.formats = result_formats(values)
                hidden = partial(self._bind_hidden, held, name, frame, portal, verdict)
                self._hub.hiding.bind(read, prepared.sql, prepared.types, masks, hidden)
            elif held is None or self._sent_parse(held):
                self._sent_bind(name, frame, portal)

        self._judged(prepared, content, allowed)

    def _bind_hidden(  # noqa: PLR0917 - what a Bind is
        self, held: Held | None, name: bytes, frame: bytes, portal: Portal, verdict: Verdict, made: MaskedAnswers | str
    ) -> None:
        """Send a Bind of whose rows something is hidden, and have its portal described before it can be run."""
        hub = self._hub
        if hub.discarding:
            return
        if isinstance(made, str | bytes):
            hub.deny(hub.not_hidden(made, verdict), simple=False)
            return
        portal.rewriting = made
        if (held is None or self._sent_parse(held, made)) and self._sent_bind(name, frame, portal):
            hub.hiding.portal(name, portal, lambda found: self._portal_hidden(portal, verdict, found))

    def _portal_hidden(self, portal: Portal, verdict: Verdict, found: MaskedAnswers | str | bytes) -> None:
        if isinstance(found, str | bytes):
            self._hub.deny(self._hub.not_hidden(found, verdict), simple=False)
        else:
            portal.rewriting = found

    def _sent_bind(self, name: bytes, frame: bytes, portal: Portal) -> bool:
        try:
            undo = self.portals.put(name, portal)
        except NamesFullError:
            self._refuse_full()
            return False
        lost = None if name else lambda: self.portals.drop(UNNAMED)
        self.send(frame, Due(Asked.BIND, undo=undo, lost=lost, rewriting=portal.rewriting))
        return True

    def _execute(self, frame: bytes, body: bytes) -> None:
        name, _, _ = body.partition(b"\0")
        portal = self.portals.get(name)
        if portal is None:
            self._refuse(messages.NO_PORTAL, f'portal "{_shown(name)}" is not one that was judged')
        elif portal.decision == self._hub.judging.standing:
            self._run(frame, portal)
        else:

            def allowed(read: Read, verdict: Verdict) -> None:
                metered = self._hub.metered(verdict, read)
                portal.metered = metered if portal.metered is None else portal.metered.again(metered)
                if verdict.obligations.masks != portal.masks:
                    self._hub.deny(self._hub.not_hidden(OTHERWISE, verdict), simple=False)
                    return
                portal.decision, portal.read = verdict.number, read
                portal.approved = verdict.policy if verdict.approval else portal.approved
                self._run(frame, portal)

            self._when_still(lambda: self._judged(portal.prepared, portal.content, allowed, approved=portal.approved))

    def _run(self, frame: bytes, portal: Portal) -> None:
        read = portal.read
        if read.begins:
            self._hub.judging.done(read.message, failed_before=False)
        moves = read.moves and not read.begins
        self.moving += moves
        due = Due(Asked.EXECUTE, read=read, undo=self._stopped if moves else None, number=portal.decision)
        due.rewriting, due.masks = portal.rewriting, portal.masks
        if portal.metered is not None:
            portal.metered.inner = portal.rewriting
            due.rewriting = portal.metered
        self.send(frame, due)
        if portal.metered is not None:
            self._hub.time()
        if read.copies:
            self._hub.settle(lambda: None, passes=True)

    def _stopped(self) -> None:
        self.moving -= 1

    # -- Describe, Close -------------------------------------------------------------------------------------------------------

    def _named(self, body: bytes) -> tuple[int, bytes]:
        if len(body) < 2 or body[-1] or body[0] not in (_STATEMENT, _PORTAL) or b"\0" in body[1:-1]:  # noqa: PLR2004 - kind, end
            raise UnreadableError("a Describe or a Close cannot be read")
        return body[0], body[1:-1]

    def _describe(self, frame: bytes, body: bytes) -> None:
        self._named(body)
        self.send(frame, Due(Asked.DESCRIBE))

    def _close(self, frame: bytes, body: bytes) -> None:
        kind, name = self._named(body)
        undo = self.prepared.drop(name) if kind == _STATEMENT else self.portals.drop(name)
        self.send(frame, Due(Asked.CLOSE, undo=undo))

    _takes: ClassVar[Mapping[int, Callable[[Extended, bytes, bytes], None]]] = {
        _PARSE: _parse,
        _BIND: _bind,
        _DESCRIBE: _describe,
        _EXECUTE: _execute,
        _CLOSE: _close,
    }

    # -- what was done ---------------------------------------------------------------------------------------------------------

    def executed(self, read: Read) -> None:
        """Take that an Execute is done."""
        if read.moves and not read.begins:
            self.moving -= 1
            self._moved = True
            self._apply(read)

    def failed(self, due: Due) -> None:
        """Take that a message failed: what a program did to names before it failed stays done."""
        if due.read is not None and due.read.message.problems:
            self._hub.judging.may_have_defined(due.read.message)
            self._renamed(due.read)

    def _apply(self, read: Read) -> None:
        self._hub.judging.done(read.message, failed_before=self._hub.status == messages.FAILED)
        self._renamed(read)

    def _renamed(self, read: Read) -> None:
        """Note what a statement did to what stands behind names."""
        commands = read.message.command.split(SEPARATOR)
        if read.message.problems:
            for prepared in self.prepared.all():
                prepared.doubt = _DOUBT
        if read.message.problems or "DECLARE" in commands or "CLOSE" in commands:
            self.portals.clear()
        if read.gives_up is not None:
            self.prepared.drop(read.gives_up)
        elif "DISCARD" in commands or "DEALLOCATE" in commands:
            unnamed = self.prepared.get(UNNAMED)  # which has none to be given up by
            self.prepared.keep(lambda one: one is unnamed)
        if read.prepares is not None:
            self._prepared(*read.prepares)

    def _prepared(self, name: bytes, sql: bytes, reading: Reading) -> None:
        """Note what a PREPARE of SQL made; without room it is not known, and so never run."""
        with suppress(NamesFullError):
            self.prepared.put(name, Prepared(sql=sql, types=b"", reading=reading))

    def ready(self, due: Due, status: bytes) -> None:
        """Take that a Query, or a group, is done."""
        read = due.read
        if read is not None and read.moves:
            if not due.failed:
                self._apply(read)
            elif len(read.message.statements) != 1:
                self._hub.judging.may_have_defined(read.message)
                self._hub.judging.unnamed()  # which of them were done, and undone, is not known
                self._renamed(read)
        if due.failed and self._moved and status == messages.IDLE:
            self._hub.judging.unnamed()  # what was done of the group was undone
        self._moved = False
        if status == messages.IDLE:
            self.portals.keep(lambda portal: portal.group > due.group)


def _too_long(code: int, body: bytes) -> bool:
    """Say whether a message has a name that the server takes for another one."""
    names = body[1:] if code in (_DESCRIBE, _CLOSE) else body
    return any(len(name) > NAME_BYTES_MAX for name in names.split(b"\0", 2)[: 2 if code == _BIND else 1])


def result_formats(values: bytes) -> bytes:
    """Give the format codes of a result, of what a Bind has behind its names; all of it if that cannot be read."""
    at = 2 + 2 * int.from_bytes(values[:2], "big")
    count, at = int.from_bytes(values[at : at + 2], "big"), at + 2
    for _ in range(count):
        if at + 4 > len(values):
            return values
        at += 4 + max(int.from_bytes(values[at : at + 4], "big", signed=True), 0)
    return values[at:]


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")
