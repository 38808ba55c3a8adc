"""MySQL and MariaDB: one connection, from the server's greeting on.

What lives here: which part has the word. What must not: the parts (entrance.py, conversation.py).
"""

from __future__ import annotations

from capd.enforcer.proxy.commands import Close, Command
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Ended, Event, Expired, Secured, Side, Started, Timer
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.mysql.conversation import Conversation
from capd.enforcer.proxy.mysql.entrance import Entrance
from capd.enforcer.proxy.mysql.frames import Frames
from capd.enforcer.proxy.postgresql.outbox import Outbox


class MysqlLayer(Layer):
    """One connection, which is dialled."""

    def __init__(self, around: Surroundings) -> None:
        self._outbox, self._frames = Outbox(), Frames()
        self._entrance = Entrance(around, self._outbox, self._frames)
        self._talk: Conversation | None = None

    def wants(self, side: Side) -> bool:
        """Leave a client to wait that says more than was judged."""
        if side is Side.UPSTREAM:
            return True
        return self._entrance.room if self._talk is None else self._talk.wants()

    def waiting_bytes(self) -> int:
        """Count what waits of the client."""
        return len(self._frames)

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._talk is None:
            self._enter(event)
        else:
            self._go_on(self._talk, event)
        return self._outbox.take()

    def _enter(self, event: Event) -> None:
        entrance = self._entrance
        match event:
            case Data(side=Side.CLIENT):
                entrance.client_said(event.data)
            case Data():
                entrance.server_said(event.data)
            case Decided():
                entrance.decided(event.verdict)
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
        entrance = self._entrance
        assert entrance.judging is not None
        self._talk = Conversation(
            entrance.around,
            entrance.judging,
            self._outbox,
            self._frames,
            capabilities=entrance.capabilities,
            sign_in=entrance.sign_in,
        )
        self._talk.begin(entrance.tell_let_in)

    def _go_on(self, talk: Conversation, event: Event) -> None:
        if talk.over:
            return
        match event:
            case Data(side=Side.CLIENT):
                talk.client_said(event.data)
            case Data():
                talk.server_said(event.data)
            case Decided():
                talk.decided(event.verdict)
            case Expired(timer=Timer.STATEMENT):
                talk.too_long()
            case Ended(side=Side.CLIENT):
                talk.left()
            case Ended():
                self._outbox.do(Close(abort=not event.clean))
            case DialFailed():
                self._outbox.do(Close(abort=True))
