"""PostgreSQL: one connection, from its first packet on.

What lives here: which part has the word. What must not: the parts (entrance.py, conversation.py).
"""

from __future__ import annotations

from capd.enforcer.proxy.commands import Close, Command
from capd.enforcer.proxy.events import (
    Data,
    Decided,
    DialFailed,
    Dialled,
    Ended,
    Event,
    Expired,
    Held,
    Interrupted,
    Secured,
    Side,
    Started,
)
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.conversation import Conversation
from capd.enforcer.proxy.postgresql.entrance import Entrance
from capd.enforcer.proxy.postgresql.frames import ClientFrames
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.postgresql.shared import Shared


class PostgresqlLayer(Layer):
    """One connection."""

    def __init__(self, around: Surroundings, shared: Shared, *, dialled: bool) -> None:
        self._outbox, self._frames = Outbox(), ClientFrames()
        self._cancels = shared.cancels
        self._entrance = Entrance(around, self._outbox, shared, self._frames, dialled=dialled)
        self._talk: Conversation | None = None
        self._is_held = self._cancelling = False

    def wants(self, side: Side) -> bool:
        """Leave a client to wait that says more than was judged."""
        if side is Side.UPSTREAM:
            return True
        return self._entrance.room if self._talk is None else self._talk.wants()

    def waiting_bytes(self) -> int:
        """Say how many bytes wait for a decision, or for the rest of a message, or stand behind names."""
        kept = self._entrance.waiting_bytes if self._talk is None else self._talk.waiting_bytes
        return len(self._frames) + kept

    @property
    def settled(self) -> bool:
        """A session that is signed in asks for TLS no more."""
        return self._talk is not None

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        talk = self._talk
        if self._cancelling:
            self._cancels_on(event)
        elif talk is None:
            self._enter(event)
        else:
            commands = talk.lane.handle(event)
            self.reads_on = commands is not None
            if commands is not None:
                return commands
            self._go_on(talk, event)
            if talk.stopped:
                talk.judging.ended()
                self._talk, self._cancelling = None, True
                self._entrance.cancel()
        # A pipeline is sent in one piece, not statement by statement, unless a person is asked about one of them.
        later = self._talk is not None and self._talk.judging.waits and not self._is_held
        commands = self._outbox.take(later=later)
        if talk is not None and any(isinstance(one, Close) for one in commands):
            talk.judging.ended()
        return commands

    def _cancels_on(self, event: Event) -> None:
        """Take an event while the server is told to cancel what was beyond a limit; the client was told, and is not heard."""
        match event:
            case Data(side=Side.CLIENT) | Ended(side=Side.CLIENT):
                pass
            case Expired():
                self._outbox.do(Close(abort=True))
            case _:
                self._enter(event)

    def _enter(self, event: Event) -> None:
        entrance = self._entrance
        match event:
            case Data(side=Side.CLIENT):
                entrance.client_said(event.data)
            case Data():
                rest = entrance.server_said(event.data)
                if rest and self._talk is not None:
                    self._talk.server_said(rest)
            case Decided():
                entrance.decided(event.verdict)
            case Dialled():
                entrance.was_dialled(event)
            case DialFailed():
                entrance.failed(event)
            case Secured():
                entrance.secured(event)
            case Expired():
                entrance.too_long()
            case Ended():
                self._outbox.do(Close(abort=not event.clean))
            case Started():
                entrance.begin(self._ready)

    def _ready(self) -> None:
        """The server has let the client in."""
        judging = self._entrance.judging
        assert judging is not None
        self._talk = Conversation(self._entrance.around, judging, self._outbox, self._frames)
        self._talk.begin(lambda: self._outbox.down(messages.ready(messages.IDLE)))

    def _go_on(self, talk: Conversation, event: Event) -> None:
        match event:
            case Data(side=Side.CLIENT):
                talk.client_said(event.data)
            case Data():
                talk.server_said(event.data)
            case Decided():
                self._forget()
                talk.decided(event.verdict)
            case Held():
                self._held(talk, event)
            case Expired():
                talk.too_long()
            case Interrupted():
                self._forget()
                talk.interrupted()
            case Ended(side=Side.CLIENT):
                self._forget()
                talk.left()
            case Ended():
                self._forget()
                self._outbox.do(Close(abort=not event.clean))
            case DialFailed():
                self._outbox.do(Close(abort=True))

    def _held(self, talk: Conversation, event: Held) -> None:
        """A person is asked: the client is told, and can give up by its key."""
        key = self._entrance.key
        if not talk.held(event):
            return
        self._is_held = True
        if key is not None:
            self._cancels.hold(*key, lambda: self._entrance.around.wake(Interrupted()))

    def _forget(self) -> None:
        if self._is_held and self._entrance.key is not None:
            self._cancels.forget(*self._entrance.key)
        self._is_held = False
