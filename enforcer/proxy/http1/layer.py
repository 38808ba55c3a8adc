"""HTTP/1.1 between an agent and a target: one exchange at a time, each request judged before a byte of it leaves.

What lives here: the life of an exchange. What must not: what a request means (request.py), how answers look (response.py).

The decoder that reads is the recorder's. Requests that came early wait, bounded, for the answer to the one before: answers stay
in order, and no request leaves before its own decision. Bodies go across as they come; only a verdict that asks for a body has
it held, up to a limit.

An answer of capd itself goes through the decoder as if the target had given it, so that the answer of the next request is not
taken for this one's.
"""

from __future__ import annotations

from typing import cast

from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import NEED_DATA, Direction, Message, ProtocolError
from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.proxy.authority import BAD_GATEWAY, BAD_REQUEST, FORBIDDEN, RequestRefused
from capd.enforcer.proxy.commands import Arm, Ask, Close, Command, Dial, Finish, Refused, Report
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Dialled, Ended, Event, Expired, Held, Side, Started, Timer
from capd.enforcer.proxy.http1 import fields as header
from capd.enforcer.proxy.http1.answering import Answering
from capd.enforcer.proxy.http1.limits import DRAIN_BYTES_MAX, HEAD_SECONDS, LINGER_BYTES_MAX, LINGER_SECONDS
from capd.enforcer.proxy.http1.outbox import Outbox
from capd.enforcer.proxy.http1.patience import Patience
from capd.enforcer.proxy.http1.request import Incoming, Requests, request_head, summary
from capd.enforcer.proxy.http1.response import CONTINUE, NO_RULE, SWITCHING, Responses, refusal, verdict_facts
from capd.enforcer.proxy.http1.stage import Stage
from capd.enforcer.proxy.http1.waiting import WAITING_BYTES_MAX, Waiting
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.question import Body, Kind, Question, Verdict
from capd.enforcer.proxy.websocket import WebsocketLayer
from capd.enforcer.proxy.websocket.handshake import KEY, HandshakeError, check_answer


class Http1Layer(Layer):
    """One connection."""

    def __init__(self, around: Surroundings, *, dialled: bool) -> None:
        self._around, self._dialled = around, dialled
        self._decoder = Http1Decoder()
        self._requests, self._responses, self._lines = Requests(around), Responses(), header.Lines()
        self._waiting = Waiting()
        self._stage = Stage.IDLE
        self._incoming: Incoming | None = None
        self._number = 0
        self._verdict: Verdict | None = None
        self._collected = bytearray()
        self._collected_all = False
        self._answer_of: Answering | None = None
        self._request_done = self._response_done = self._answering = False
        self._expects = self._keeps = False
        self._client_ended = self._armed = self._partial = False
        self._lingered_bytes = 0
        self._tunnel: Layer | None = None
        self._outbox = Outbox()
        self._patience = Patience(around.interim)

    def wants(self, side: Side) -> bool:
        """Leave a client to wait that said much more than was judged."""
        return side is Side.UPSTREAM or self._waiting.bytes < WAITING_BYTES_MAX

    def replies(self) -> bool:
        """A client may ask on and on for what is refused; it may send all of a body that goes on before it reads."""
        return self._stage in (Stage.IDLE, Stage.DRAINING)

    def plain_bytes(self, side: Side) -> int:
        """A body on its way that nobody looks into is one piece, as far as its length or its chunk's was said."""
        if self._tunnel is not None or self._stage is not Stage.OPEN or self._waiting.messages:
            return 0
        looks = side is Side.UPSTREAM and (self._answer_of is None or self._answer_of.looks)
        return 0 if looks else self._decoder.content_bytes(Direction(side))

    def waiting_bytes(self) -> int:
        """Count what waits to be judged, to be whole, or for the target."""
        if self._tunnel is not None:
            return self._tunnel.waiting_bytes()
        return self._waiting.bytes + len(self._collected) + self._decoder.held

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._tunnel is not None:
            return self._tunnel.handle(event)
        match event:
            case Data():
                self._data(event)
            case Decided():
                self._decided(event.verdict)
            case Ended():
                (self._client_over if event.side is Side.CLIENT else self._upstream_over)(clean=event.clean)
            case Dialled() if self._stage is Stage.DIALLING:
                self._dialled = True
                self._forward()
            case DialFailed():
                self._dial_failed(event)
            case Started():
                self._arm(HEAD_SECONDS)
            case Held() | Expired(timer=Timer.STILL):
                self._held(event)
            case Expired(timer=Timer.DEADLINE):
                self._deadline()
        if self._waiting.messages or self._client_ended:
            self._advance()
        if self._partial and not self._armed:
            self._arm(HEAD_SECONDS)
        return self._outbox.take()

    def _arm(self, seconds: float | None) -> None:
        """Start or stop the deadline."""
        self._partial = False
        if seconds is not None or self._armed:
            self._armed = seconds is not None
            self._do(Arm(Timer.DEADLINE, seconds))

    def _do(self, *commands: Command) -> None:
        self._outbox.do(*commands)

    def _send(self, side: Side, data: bytes) -> None:
        self._outbox.send(side, data, self._number)

    # -- bytes -----------------------------------------------------------------------------------------------------------------

    def _data(self, event: Data) -> None:
        if self._stage is Stage.LINGERING:
            self._lingered_bytes += len(event.data)
            if self._lingered_bytes > LINGER_BYTES_MAX:
                self._do(Close())
            return
        if event.side is Side.CLIENT:
            self._decode(Direction.REQUEST, event.data)
            self._partial = self._stage is Stage.IDLE and not self._waiting.messages
        elif self._awaits_answer:
            self._decode(Direction.RESPONSE, event.data)
            self._partial = False
        else:
            self._cut("the target answers what it was not asked")

    def _decode(self, direction: Direction, data: bytes) -> None:
        """Take the messages that became whole; requests wait for their turn."""
        self._decoder.receive(direction, data)
        next_event = self._decoder.next_event
        while True:
            try:
                message = next_event()
            except ProtocolError as error:
                self._malformed(error)
                return
            if message is NEED_DATA:
                return
            if isinstance(message, Message):
                self._take(message)

    def _take(self, message: Message) -> None:
        if self._tunnel is not None:
            if message.content:
                self._do(*self._tunnel.handle(Data(Side(message.direction), message.content)))
        elif message.direction is Direction.REQUEST:
            self._waiting.add(message)
        elif self._awaits_answer:
            self._answer(message)
        elif self._stage is not Stage.LINGERING and not self._answering:
            self._cut("the target answers what it was not asked")

    def _advance(self) -> None:
        """Do what can be done with the requests that wait."""
        waiting = self._waiting.messages
        while waiting and self._takes():
            message = self._waiting.next()
            if message.type == "request":
                self._begin(message)
            elif message.type == "body":
                self._body(message)
            elif message.type == "end":
                self._end(message)
        if self._client_ended and self._stage is Stage.IDLE and not waiting:
            self._do(Close())

    def _takes(self) -> bool:
        """Say whether the next message has its turn."""
        if self._stage is Stage.OPEN:
            return not self._request_done
        return self._stage in (Stage.IDLE, Stage.COLLECTING, Stage.DRAINING)

    # -- the request -----------------------------------------------------------------------------------------------------------

    def _begin(self, message: Message) -> None:
        self._request_done = self._response_done = False
        self._collected, self._collected_all = bytearray(), False
        self._verdict = self._answer_of = None
        self._arm(None)
        if message.incomplete is not None:
            self._cut("the client left in the middle of a request")
            return
        try:
            self._incoming = self._requests.read(message)
        except RequestRefused as refused:
            self._incoming = None
            self._refuse_always(refused, summary(message.fields))
            return
        self._expects = self._incoming.expects
        self._ask(None)

    def _ask(self, body: Body | None) -> None:
        assert self._incoming is not None
        self._number = next(self._around.numbers)
        self._stage = Stage.JUDGED
        question = Question(
            number=self._number,
            kind=Kind.REQUEST,
            destination=self._around.destination,
            protocol="http1",
            server_name=self._around.server_name,
            inspected=self._around.inspected,
            request=self._incoming.request,
            body=body if body is not None or self._incoming.has_body else Body(content=b"", complete=True),
            carries_out=True,
        )
        self._do(Ask(question))

    def _decided(self, verdict: Verdict) -> None:
        if self._stage is not Stage.JUDGED or verdict.number != self._number:
            return
        self._verdict = verdict
        if verdict.body_bytes and not self._collected and not self._collected_all:
            self._collect()
        elif not verdict.allowed:
            facts = verdict_facts(verdict, self._around.session)
            self._refuse(FORBIDDEN, facts, verdict.rule or NO_RULE)
        elif self._incoming is not None and self._incoming.request.upgrade is not None and not verdict.upgrade:
            facts = verdict_facts(verdict, self._around.session)
            facts |= {"reason": "upgrade_not_allowed", "message": "no rule lets it change the protocol"}
            self._refuse(FORBIDDEN, facts, NO_RULE)
        else:
            self._allow(verdict)

    def _held(self, event: Held | Expired) -> None:
        if self._stage is Stage.JUDGED and self._incoming is not None:
            self._do(*self._patience.hear(event, self._number, self._incoming))

    def _allow(self, verdict: Verdict) -> None:
        """Forward the request, once the target is there."""
        assert self._incoming is not None
        try:
            self._answer_of = Answering(self._incoming, verdict, self._responses)
        except CannotCarryOutError as error:
            facts = verdict_facts(verdict, self._around.session)
            facts |= {"reason": "cannot_be_carried_out", "message": str(error)}
            self._refuse(FORBIDDEN, facts, verdict.rule or NO_RULE)
            return
        if self._dialled:
            self._forward()
        else:
            self._stage = Stage.DIALLING
            self._do(Dial(self._number))

    def _collect(self) -> None:
        """Hold the body until the verdict's limit."""
        self._stage = Stage.COLLECTING
        if self._expects:
            self._expects = False
            self._send(Side.CLIENT, CONTINUE)

    def _body(self, message: Message) -> None:
        if self._stage is Stage.COLLECTING:
            self._collected += message.content
            assert self._verdict is not None
            if len(self._collected) > self._verdict.body_bytes:
                self._ask(Body(content=bytes(self._collected), complete=False))
        elif self._stage is Stage.OPEN:
            self._send_body(message.content)

    def _send_body(self, content: bytes) -> None:
        assert self._incoming is not None
        self._send(Side.UPSTREAM, header.chunk(content) if self._incoming.chunked else content)

    def _end(self, message: Message) -> None:
        self._request_done = True
        if message.incomplete is not None:
            self._cut("the client left in the middle of a body")
        elif self._stage is Stage.COLLECTING:
            self._collected_all = True
            self._ask(Body(content=bytes(self._collected), complete=True))
        elif self._stage is Stage.DRAINING:
            self._finish_exchange()
        elif self._stage is Stage.OPEN:
            self._end_sent()
            if self._response_done:
                self._finish_exchange()

    def _end_sent(self) -> None:
        """Say that this was the body. Trailers stay behind (RFC 9112 7.1.2): they came after the request was judged."""
        assert self._incoming is not None
        if self._incoming.chunked:
            self._send(Side.UPSTREAM, header.last_chunk(()))

    def _forward(self) -> None:
        """Send the head, and what was held of the body."""
        answer, verdict = self._answer_of, self._verdict
        assert answer is not None
        assert verdict is not None
        assert verdict.allowed
        self._stage = Stage.OPEN
        head = request_head(answer.sent, self._around, upgrade=verdict.upgrade, expects=self._expects, lines=self._lines)
        self._send(Side.UPSTREAM, head)
        if self._collected:
            self._send_body(bytes(self._collected))
        if self._collected_all:
            self._end_sent()

    @property
    def _awaits_answer(self) -> bool:
        return self._stage is Stage.OPEN and not self._response_done

    # -- the answer ------------------------------------------------------------------------------------------------------------

    def _answer(self, message: Message) -> None:
        answer, kind = self._answer_of, message.type
        assert answer is not None
        try:
            if kind == "body":
                self._send(Side.CLIENT, answer.body(message.content))
            elif kind == "response":
                self._answer_head(message, answer)
            elif kind == "end":
                self._answer_end(message, answer)
        except CannotCarryOutError as error:
            self._not_carried_out(str(error))

    def _answer_head(self, message: Message, answer: Answering) -> None:
        incoming, verdict = self._incoming, self._verdict
        assert incoming is not None
        assert verdict is not None
        if message.incomplete is not None:
            self._gateway_failed("the target left in the middle of its answer")
            return
        try:
            outgoing = answer.head(message, keeps=incoming.keeps and not self._client_ended)
        except header.NominationError as error:
            self._gateway_failed(str(error))
            return
        if outgoing.status == SWITCHING:
            self._switch(outgoing.head, message, allowed=verdict.upgrade and incoming.request.upgrade is not None)
            return
        if outgoing.interim and incoming.old:
            return
        self._keeps = answer.keeps
        self._send(Side.CLIENT, outgoing.head)

    def _answer_end(self, message: Message, answer: Answering) -> None:
        if message.incomplete is not None:
            self._cut("the target left in the middle of its answer")
            return
        self._send(Side.CLIENT, answer.end(message))
        self._report()
        self._response_done = True
        if self._request_done:
            self._finish_exchange()
        elif not self._keeps:
            self._linger()

    def _not_carried_out(self, reason: str) -> None:
        """What the target answers cannot be masked: nothing more of it goes on, and that is written down."""
        if self._answer_of is not None and self._answer_of.begun:
            self._cut(reason)
        else:
            self._do(Refused(next(self._around.numbers), reason, ""))
            self._gateway_failed(reason, "answer_not_masked")

    def _report(self) -> None:
        """Say once what obligations made of the answer."""
        carried_out = None if self._answer_of is None else self._answer_of.carried_out
        if carried_out is not None:
            self._do(Report(self._number, carried_out))

    def _finish_exchange(self) -> None:
        self._incoming = None
        if not self._keeps:
            self._linger()
        else:
            self._stage = Stage.IDLE

    def _switch(self, head: bytes, message: Message, *, allowed: bool) -> None:
        """The target changes the protocol to WebSocket, which the verdict allowed."""
        if not allowed or self._waiting.messages:
            self._gateway_failed("the target changed the protocol, which nobody asked for")
            return
        assert self._incoming is not None
        asked = header.by_name(self._incoming.request.fields)
        answered = header.by_name(cast("header.Fields", message.fields["headers"]))
        try:
            check_answer(asked[KEY][0].strip(" \t"), answered)
        except HandshakeError as error:
            self._gateway_failed(str(error))
            return
        self._send(Side.CLIENT, head)
        self._tunnel = WebsocketLayer(self._around, self._number)

    # -- ends ------------------------------------------------------------------------------------------------------------------

    def _client_over(self, *, clean: bool) -> None:
        if not clean or self._stage is Stage.LINGERING:
            self._do(Close(abort=not clean))
            return
        self._client_ended = True
        self._decode(Direction.REQUEST, b"")

    def _upstream_over(self, *, clean: bool) -> None:
        self._dialled = False
        if self._awaits_answer:
            if clean:
                self._decode(Direction.RESPONSE, b"")
            if self._awaits_answer:
                self._gateway_failed("the target left without an answer")
        elif self._stage is Stage.OPEN:
            self._linger()
        elif self._stage is Stage.IDLE:
            self._do(Close())

    def _dial_failed(self, event: DialFailed) -> None:
        if self._stage is Stage.DIALLING:
            error = "target_not_verified" if event.refused else "target_not_reached"
            self._refuse(BAD_GATEWAY, {"error": error, "message": event.reason}, "")

    def _deadline(self) -> None:
        self._armed = False
        if self._stage is Stage.LINGERING:
            self._do(Close())
        elif self._stage is Stage.IDLE:
            self._do(Refused(next(self._around.numbers), "no request within the time for one", ""), Close(abort=True))

    def _malformed(self, error: ProtocolError) -> None:
        if error.direction is Direction.RESPONSE:
            self._gateway_failed(f"the target's answer is not HTTP: {error.reason}")
        elif self._stage is Stage.IDLE and not self._waiting.messages:
            self._refuse_always(RequestRefused(BAD_REQUEST, error.reason), "")
        else:
            self._cut(f"the request breaks the protocol: {error.reason}")

    def _gateway_failed(self, reason: str, error: str = "target_failed") -> None:
        """Say so if nothing of an answer was sent; else all that is left is to cut the connection."""
        if self._answer_of is not None and self._answer_of.begun:
            self._cut(reason)
            return
        self._keeps = False
        facts, incoming = {"error": error, "message": reason}, self._incoming
        head_only = incoming is not None and incoming.request.method == "HEAD"
        self._send(Side.CLIENT, refusal(BAD_GATEWAY, facts, rule="", keeps=False, head_only=head_only))
        self._linger()

    def _refuse_always(self, refused: RequestRefused, said: str) -> None:
        self._do(Refused(next(self._around.numbers), refused.reason, said))
        facts = {"error": "refused", "reason": "malformed_request", "message": refused.reason}
        self._send(Side.CLIENT, refusal(refused.status, facts, rule="", keeps=False, head_only=said.startswith("HEAD ")))
        self._linger()

    def _refuse(self, status: int, facts: dict[str, str], rule: str) -> None:
        """Answer in the target's place; the connection goes on if the rest of the request is short."""
        incoming = self._incoming
        assert incoming is not None
        rest = incoming.has_body and not self._request_done
        short = not incoming.chunked and (incoming.length or 0) <= DRAIN_BYTES_MAX
        self._keeps = incoming.keeps and not self._client_ended and (not rest or (short and not self._expects))
        head_only, asked = incoming.request.method == "HEAD", incoming.request.fields
        answer = refusal(status, facts, rule=rule, keeps=self._keeps, head_only=head_only, asked=asked)
        self._send(Side.CLIENT, answer)
        self._stage = Stage.DRAINING
        if not self._keeps:
            self._linger()
            return
        self._pass_through_decoder(answer)
        if self._request_done:
            self._finish_exchange()

    def _pass_through_decoder(self, answer: bytes) -> None:
        """Let the decoder know of an answer that the target did not give."""
        self._answering = True
        self._decode(Direction.RESPONSE, answer)
        self._answering = False

    def _linger(self) -> None:
        """Say that this was all, and let the client read it."""
        self._stage = Stage.LINGERING
        self._waiting.clear()
        if self._client_ended:
            self._do(Close())
        else:
            self._do(Finish(Side.CLIENT))
            self._arm(LINGER_SECONDS)

    def _cut(self, reason: str) -> None:
        """End in the middle: nobody may take what was said so far for all."""
        self._stage = Stage.LINGERING
        self._waiting.clear()
        if not self._response_done:
            self._report()
        self._do(Refused(next(self._around.numbers), reason, ""), Close(abort=True))
