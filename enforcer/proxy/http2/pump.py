"""Bytes of streams on their way, both ways, as far as the other side takes them.

What lives here: heads, bodies, ends; which decision bytes for the target belong to. What must not: when a stream may go on.

A sender may send more when what it sent was taken: nothing piles up but what the windows allow. Streams take turns, a frame
each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from capd.enforcer.proxy.commands import Command, Send
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http2.answer import Head, grpc_refusal, refusal
from capd.enforcer.proxy.http2.limits import TARGET_CONNECTION_BYTES
from capd.enforcer.proxy.http2.peer import Peer
from capd.enforcer.proxy.http2.request import Fields
from capd.enforcer.proxy.http2.stream import Stage, Stream
from capd.enforcer.proxy.http2.target import Content, Target, Told
from capd.enforcer.proxy.http2.target_http1 import Http1Target


class Pump:
    """Between a client and a target.

    Attributes:
        target: None: there is none.
    """

    def __init__(self, client: Peer) -> None:
        self.target: Target | None = None
        self._client = client
        self._decision = 0
        """Latest that anything was forwarded under: what belongs to no stream goes with it."""
        self._parts: list[tuple[int, bytes]] = []
        self._answers_bytes = 0
        """Of answers that wait for the client, also of targets that are gone: windows are of one target each."""

    @property
    def takes(self) -> bool:
        """Whether bytes of the target can be taken."""
        if self._answers_bytes >= TARGET_CONNECTION_BYTES:
            return False
        return not isinstance(self.target, Http1Target) or self.target.takes

    @property
    def held(self) -> int:
        """Bytes that wait at the target's side."""
        return 0 if self.target is None else self.target.held

    def flush(self) -> list[Command]:
        """Give what is to be sent."""
        self._mark(self._decision)
        commands: list[Command] = []
        for number, data in self._parts:
            before = commands[-1] if commands else None
            if isinstance(before, Send) and before.decision == number:
                commands[-1] = Send(Side.UPSTREAM, before.data + data, number)
            else:
                commands.append(Send(Side.UPSTREAM, data, number))
        self._parts.clear()
        said = self._client.take()
        return [*commands, Send(Side.CLIENT, said)] if said else commands

    def _mark(self, number: int) -> None:
        """Say which decision the bytes belong to that the target is to be sent now."""
        said = b"" if self.target is None or not self._decision else self.target.take()
        if said:
            self._parts.append((number, said))

    def part(self) -> None:
        """The target is of no use any more; it is sent what was meant for it."""
        self._mark(self._decision)
        self.target = None

    def pass_over(self, told: Told) -> None:
        """What the target told goes nowhere; it may send as much again."""
        if isinstance(told, Content) and self.target is not None:
            self.target.took(told.stream, told.credit)

    # -- to the target ---------------------------------------------------------------------------------------------------------

    def open(self, stream: Stream, incoming: Incoming) -> None:
        """Forward a head."""
        assert self.target is not None
        self._mark(self._decision)
        self._decision = stream.number
        stream.sent_all = stream.said_all and not stream.body
        incoming = replace(incoming, request=stream.rewriting.request(incoming.request))
        self.target.open(stream.id, incoming, trailers=stream.trailers, expects=stream.expects, ends=stream.sent_all)
        self._mark(stream.number)

    def drop(self, stream: Stream, code: int | None) -> None:
        """Forget what is on its way; the target is told with a code, unless it knows."""
        self._client.took(stream.id, stream.body.clear())
        self._answers_bytes -= stream.answer.count
        credit = stream.answer.clear()
        if self.target is None or stream.stage is not Stage.OPEN:
            return
        self.target.took(stream.id, credit)
        self._mark(self._decision)
        if code is None:
            self.target.forget(stream.id)
        else:
            self.target.give_up(stream.id, code)
        self._mark(stream.number)

    def move(self, streams: Collection[Stream]) -> list[Stream]:
        """Send what can be sent; give the streams that are done with."""
        moving = list(streams)
        while moving:
            moving = [stream for stream in moving if self._forward(stream) | self._deliver(stream)]
        return [stream for stream in streams if stream.finished and (stream.sent_all or stream.stage is Stage.ANSWERED)]

    def _forward(self, stream: Stream) -> bool:
        """Send one frame of a request's body; False: nothing can be sent now."""
        target = self.target
        if target is None or stream.stage is not Stage.OPEN or stream.sent_all:
            return False
        if not stream.body and not stream.said_all:
            return False
        room = target.room(stream.id)
        if stream.body and room <= 0:
            return False
        self._mark(self._decision)
        data, credit = stream.body.take(room) if stream.body else (b"", 0)
        stream.sent_all = stream.said_all and not stream.body
        if data or stream.sent_all:
            target.body(stream.id, data, ends=stream.sent_all)
        self._client.took(stream.id, credit)
        self._mark(stream.number)
        return True

    # -- to the client ---------------------------------------------------------------------------------------------------------

    def head(self, stream: Stream, head: Head, *, ends: bool) -> None:
        """Send a target's head; `ends`: there is no body."""
        if head.interim:
            self._client.head(stream.id, _written(head.status, stream.rewriting.interim(head.fields)), ends=False)
            return
        fields = stream.rewriting.head(head.status, head.fields, has_body=not ends and head.length != 0)
        stream.headed = True
        if ends:
            stream.complete = stream.finished = True
        self._client.head(stream.id, _written(head.status, fields), ends=ends)

    def content(self, stream: Stream, told: Content) -> None:
        """Take a part of an answer. Raises CannotCarryOutError."""
        self._put(stream, stream.rewriting.body(told.data), told.credit)

    def _put(self, stream: Stream, data: bytes, credit: int) -> None:
        stream.answer.put(data, credit)
        self._answers_bytes += len(data)

    def complete(self, stream: Stream, trailers: Fields) -> None:
        """The answer is known to its end."""
        if not stream.complete:
            self._put(stream, stream.rewriting.end(), 0)
            stream.complete, stream.answer_trailers = True, stream.rewriting.interim(trailers)

    def answer(self, stream: Stream, status: int, facts: Mapping[str, str], rule: str) -> None:
        """Answer in the target's place."""
        stream.headed = stream.complete = True
        if stream.grpc:
            stream.finished = True
            self._client.head(stream.id, grpc_refusal(status, facts, rule=rule), ends=True)
            return
        asked = () if stream.incoming is None else stream.incoming.request.fields
        fields, body = refusal(status, facts, rule=rule, asked=asked)
        stream.finished = stream.incoming is not None and stream.incoming.request.method == "HEAD"
        self._client.head(stream.id, fields, ends=stream.finished)
        if not stream.finished:
            self._put(stream, body, 0)

    def _deliver(self, stream: Stream) -> bool:
        """Send one frame of an answer's body, or its end; False: nothing can be sent now."""
        if stream.finished or not stream.headed:
            return False
        if stream.answer:
            room = self._client.room(stream.id)
            if room <= 0:
                return False
            data, credit = stream.answer.take(room)
            self._answers_bytes -= len(data)
            ends = stream.complete and not stream.answer and not stream.answer_trailers
            if data or ends:
                self._client.body(stream.id, data, ends=ends)
            stream.finished = ends
            self._credit(stream, credit)
            return True
        if not stream.complete:
            return False
        stream.finished = True
        if stream.answer_trailers:
            self._client.head(stream.id, stream.answer_trailers, ends=True)
        else:
            self._client.body(stream.id, b"", ends=True)
        return True

    def _credit(self, stream: Stream, credit: int) -> None:
        if self.target is not None and credit:
            self.target.took(stream.id, credit)


def _written(status: int, fields: Fields) -> Fields:
    return [(":status", str(status)), *fields]
