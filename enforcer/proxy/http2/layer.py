"""HTTP/2 between an agent and a target: each stream a request of its own, judged before a byte of it leaves.

What lives here: the life of streams, and of the two connections. What must not: what a request means (request.py), how answers
look (answer.py), bytes on their way (pump.py), frames (peer.py).

Streams are judged side by side; one that is held stops no other. The target is dialled after the first that is allowed. If it
turns out to speak HTTP/1.1 only, streams are translated, one request after the other. When one would wait too long, the client
is told to come again (GOAWAY): it is then offered what the target speaks. Not before: there are clients that give up what they
wait for when they are told to leave (Java's, before 24). A stream that the target never looked at is given back as such
(REFUSED_STREAM), which clients repeat by themselves; one that it left in the middle is never taken for whole.
"""

from __future__ import annotations

from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived

from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.proxy.authority import BAD_GATEWAY, FORBIDDEN, MISDIRECTED, RequestRefused
from capd.enforcer.proxy.commands import Arm, Ask, Close, Command, Dial, Finish, Over, Refused, Report, Withdraw
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Dialled, Ended, Event, Expired, Held, Revoked, Side, Timer
from capd.enforcer.proxy.http1.limits import LINGER_BYTES_MAX, LINGER_SECONDS
from capd.enforcer.proxy.http1.response import NO_RULE, verdict_facts
from capd.enforcer.proxy.http2.collecting import Collecting
from capd.enforcer.proxy.http2.cutting import BEGINNING
from capd.enforcer.proxy.http2.errors import Code
from capd.enforcer.proxy.http2.fields import Counted, FieldsError
from capd.enforcer.proxy.http2.limits import CLIENT_CONNECTION_BYTES, CLIENT_STREAM_BYTES
from capd.enforcer.proxy.http2.peer import Broken, Farewell, Heard, Peer
from capd.enforcer.proxy.http2.pump import Pump
from capd.enforcer.proxy.http2.request import is_grpc, read_request, summary, takes_trailers
from capd.enforcer.proxy.http2.stream import Stage, Stream
from capd.enforcer.proxy.http2.target import Answered, Complete, Content, GivenUp, Leaving, Lost, Target, Told
from capd.enforcer.proxy.http2.target_http1 import Http1Target
from capd.enforcer.proxy.http2.target_http2 import Http2Target
from capd.enforcer.proxy.http2.timers import Timers
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.question import Body, Kind, Question, Verdict


class Http2Layer(Layer):
    """One connection."""

    def __init__(self, around: Surroundings, *, dialled: bool) -> None:
        """Begin; `dialled`: to a target in clear, which is taken to speak HTTP/2 since the client knows that it does."""
        self._around = around
        self._client = Peer(serves=True, stream_bytes=CLIENT_STREAM_BYTES, connection_bytes=CLIENT_CONNECTION_BYTES)
        self._streams: dict[int, Stream] = {}
        self._by_number: dict[int, Stream] = {}
        self._waiting: list[Stream] = []
        self._pump = Pump(self._client)
        self._dialling = False
        self._early = b""
        """What a target says before we know that it was reached: its SETTINGS may be faster."""
        self._host = ""
        self._collecting = Collecting(self._client)
        self._newest = 0
        self._last: int | None = None
        """Above it no stream is taken any more, as the client was told; None: all are."""
        self._client_leaves = self._lingering = False
        self._serial = False
        """Whether the target answers one stream after the other."""
        self._timers = Timers()
        self._lingered_bytes = 0
        self._out: list[Command] = []
        if dialled:
            self._pump.target = Http2Target(around)

    def wants(self, side: Side) -> bool:
        """Leave a target to wait that cannot be told to."""
        return side is Side.CLIENT or self._pump.takes

    def replies(self) -> bool:
        """A client that takes nothing is not read from: each request may be answered, each PING is."""
        return True

    def waiting_bytes(self) -> int:
        """Count heads, bodies on their way, both ways, and what is not whole."""
        streams = sum(stream.head_bytes + stream.body.count + stream.answer.count for stream in self._streams.values())
        return streams + len(self._early) + self._client.held + self._pump.held

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        match event:
            case Data():
                self._data(event)
            case Ended(side=Side.CLIENT):
                self._do(Close(abort=not event.clean))
            case Ended(side=Side.UPSTREAM):
                self._hear_target([] if self._pump.target is None else self._pump.target.end(clean=event.clean))
            case Decided():
                self._decided(event.verdict)
            case Dialled() if self._dialling:
                self._dialled(event)
            case DialFailed() if self._dialling:
                self._dial_failed(event)
            case Expired():
                self._expired(event.timer)
            case Revoked():
                self._revoked(event.number)
            case Held():
                self._timers.held.add(event.number)
        if not self._lingering:
            self._advance()
        self._out += self._pump.flush()
        self._arm()
        out, self._out = self._out, []
        return out

    def _do(self, *commands: Command) -> None:
        self._out += self._pump.flush()
        self._out += commands

    def _arm(self) -> None:
        """Start and stop timers; once everything is said there is one for that."""
        target = self._pump.target
        if not self._lingering:
            self._out += self._timers.set(
                unfinished=self._client.unfinished if self._newest else BEGINNING,
                counting=self._client.counting or (target is not None and target.counting),
                waits=self._serial and bool(self._waiting) and self._last is None,
            )

    def _expired(self, timer: Timer) -> None:
        self._timers.expired(timer)
        if timer is Timer.CALM:
            self._client.calm()
            if self._pump.target is not None:
                self._pump.target.calm()
        elif self._lingering:
            self._do(Close())
        elif timer is Timer.TURN:
            self._narrow()
        elif timer is Timer.STILL:
            self._client.ping()
        elif timer is Timer.DEADLINE:
            self._do(Refused(next(self._around.numbers), "no request within the time for one", ""), Close(abort=True))

    # -- the client ------------------------------------------------------------------------------------------------------------

    def _data(self, event: Data) -> None:
        if self._lingering:
            self._lingered_bytes += len(event.data)
            if self._lingered_bytes > LINGER_BYTES_MAX:
                self._do(Close())
        elif event.side is Side.CLIENT:
            for heard in self._client.receive(event.data):
                self._hear(heard)
        elif self._pump.target is not None:
            self._hear_target(self._pump.target.receive(event.data))
        elif self._dialling:
            self._early += event.data

    def _hear(self, heard: Heard) -> None:
        match heard:
            case RequestReceived():
                self._begin(heard)
            case DataReceived():
                self._content(heard)
            case TrailersReceived():
                return  # they stay behind, as those of HTTP/1.1 do: they came after the request was judged
            case StreamEnded():
                self._said_all(heard.stream_id)
            case StreamReset():
                self._client_gave_up(heard.stream_id)
            case Farewell():
                self._client_leaves = True
            case Broken():
                self._broken(heard.reason)

    def _begin(self, heard: RequestReceived) -> None:
        number, ends = heard.stream_id, heard.stream_ended is not None
        self._newest = number
        if self._last is not None and number > self._last:
            self._client.reset(number, Code.REFUSED_STREAM)
            return
        try:
            incoming = read_request(heard.headers, self._around, ends=ends)
            self._check_host(incoming.request.host)
        except RequestRefused as refused:
            self._do(Refused(next(self._around.numbers), refused.reason, summary(heard.headers)))
            stream = self._streams[number] = Stream(id=number, incoming=None, said_all=ends)
            facts = {"error": "refused", "reason": "malformed_request", "message": refused.reason}
            self._answer(stream, refused.status, facts, "")
            return
        stream = self._streams[number] = Stream(
            id=number,
            incoming=incoming,
            trailers=takes_trailers(heard.headers),
            grpc=is_grpc(incoming.request),
            counted=Counted(incoming.length),
            said_all=ends,
            expects=incoming.expects,
        )
        self._ask(stream, Body(content=b"", complete=True) if ends else None)

    def _check_host(self, host: str) -> None:
        """Hold a connection in clear to the name that its first request had, as one in TLS is to its own."""
        self._host = self._host or host
        if host != self._host:
            raise RequestRefused(MISDIRECTED, f"the request is for {host}, its connection is for {self._host}")

    def _content(self, heard: DataReceived) -> None:
        size, stream = heard.flow_controlled_length, self._streams.get(heard.stream_id)
        self._client.took_in_all(size)
        if stream is None:
            return
        try:
            stream.counted.take(len(heard.data))
        except FieldsError as error:
            self._malformed(stream, str(error))
            return
        self._client.took(stream.id, size - len(heard.data))
        if stream.stage is Stage.ANSWERED or stream.sent_all:
            stream.unwanted += len(heard.data)
            self._client.took(stream.id, len(heard.data))
        elif stream.stage is Stage.COLLECTING:
            if self._collecting.add(stream, heard.data):
                self._ask_again(stream)
        else:
            stream.body.put(heard.data, len(heard.data))

    def _said_all(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.said_all = True
        try:
            stream.counted.end()
        except FieldsError as error:
            self._malformed(stream, str(error))
            return
        if stream.stage is Stage.COLLECTING:
            self._ask_again(stream)

    def _malformed(self, stream: Stream, reason: str) -> None:
        """A body is not what its head said (RFC 9113 8.1.1)."""
        self._do(Refused(next(self._around.numbers), reason, ""))
        self._client.reset(stream.id, Code.PROTOCOL_ERROR)
        self._forget(stream, Code.CANCEL)

    def _client_gave_up(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream, Code.CANCEL)

    def _broken(self, reason: str) -> None:
        """Nothing more can be said to the client than why, which it was."""
        self._do(Refused(next(self._around.numbers), f"the client breaks HTTP/2: {reason}", ""))
        for stream in list(self._streams.values()):
            self._forget(stream, Code.CANCEL)
        self._linger()

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _ask(self, stream: Stream, body: Body | None) -> None:
        assert stream.incoming is not None
        self._by_number.pop(stream.number, None)
        stream.number, stream.stage = next(self._around.numbers), Stage.JUDGED
        stream.looked = body is not None
        self._by_number[stream.number] = stream
        question = Question(
            number=stream.number,
            kind=Kind.REQUEST,
            destination=self._around.destination,
            protocol="http2",
            server_name=self._around.server_name,
            inspected=self._around.inspected,
            request=stream.incoming.request,
            body=body,
            exchange=stream.id,
            carries_out=True,
        )
        self._do(Ask(question))

    def _decided(self, verdict: Verdict) -> None:
        self._timers.held.discard(verdict.number)
        stream = self._by_number.get(verdict.number)
        if stream is None or stream.stage is not Stage.JUDGED:
            return
        stream.verdict = verdict = stream.oblige(verdict)
        if verdict.body_bytes and not stream.looked:
            if self._collecting.begin(stream):
                self._ask_again(stream)
        elif verdict.allowed:
            self._collecting.release(stream)
            stream.stage = Stage.WAITING
            self._waiting.append(stream)
        else:
            self._answer(stream, FORBIDDEN, verdict_facts(verdict, self._around.session), verdict.rule or NO_RULE)

    def _ask_again(self, stream: Stream) -> None:
        """Ask once more, with what came of the body."""
        self._ask(stream, Body(content=stream.body.content, complete=stream.said_all))

    def _revoked(self, number: int) -> None:
        """The policy has changed: what it does not allow any more ends here."""
        stream = self._by_number.get(number)
        if stream is None or stream.stage not in (Stage.WAITING, Stage.OPEN):
            return
        facts = {"error": "denied", "reason": "policy_changed", "message": "the policy has changed and does not allow it"}
        self._fail(stream, FORBIDDEN, facts, NO_RULE, code=Code.CANCEL)

    # -- the target ------------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Forward what can be, and see whether everything is over."""
        before = len(self._streams)
        if self._pump.target is not None and self._pump.target.spent:
            self._pump.part()
        while self._waiting and self._pump.target is not None and self._pump.target.accepts():
            self._forward(self._waiting.pop(0))
        if self._waiting and self._pump.target is None and not self._dialling:
            self._dialling, self._early = True, b""
            self._do(Dial(self._waiting[0].number))
        for stream in self._pump.move(self._streams.values()):
            self._done(stream)
        if len(self._streams) < before:  # one that is over may leave room for the next, or let a target go that leaves
            self._advance()
        elif not self._streams and (self._last is not None or self._client_leaves):
            self._leave(self._newest)
            self._linger()

    def _forward(self, stream: Stream) -> None:
        incoming = stream.incoming
        assert incoming is not None
        assert stream.verdict is not None
        assert stream.verdict.allowed
        if stream.grpc and isinstance(self._pump.target, Http1Target):
            facts = {"error": "target_failed", "message": "the target speaks HTTP/1.1 only, which cannot carry gRPC"}
            self._answer(stream, BAD_GATEWAY, facts, "")
            return
        stream.sends()
        try:
            self._pump.open(stream, incoming)
        except FieldsError as error:
            self._pump.part()
            self._answer(stream, BAD_GATEWAY, {"error": "target_failed", "message": str(error)}, "")

    def _dialled(self, event: Dialled) -> None:
        self._dialling = False
        self._serial = self._around.inspected and event.application_protocol != "h2"
        target: Target = Http1Target(self._around) if self._serial else Http2Target(self._around)
        self._pump.target = target
        early, self._early = self._early, b""
        if early:
            self._hear_target(target.receive(early))

    def _narrow(self) -> None:
        """What waits for its turn waits too long: it is to come again, unless a person was asked about it, for this once."""
        kept = [
            one.id for one in self._streams.values() if one.stage is not Stage.WAITING or (one.verdict and one.verdict.approval)
        ]
        last = max(kept, default=0)
        for stream in [stream for stream in self._waiting if stream.id > last]:
            self._forget(stream, Code.REFUSED_STREAM)
        self._leave(last)

    def _dial_failed(self, event: DialFailed) -> None:
        self._dialling = False
        error = "target_not_verified" if event.refused else "target_not_reached"
        for stream in list(self._waiting):
            self._answer(stream, BAD_GATEWAY, {"error": error, "message": event.reason}, "")

    def _hear_target(self, told: list[Told]) -> None:
        for one in told:
            if isinstance(one, Lost):
                self._target_lost(one.reason)
            elif isinstance(one, Leaving):
                self._target_leaves(one)
            else:
                self._hear_stream(one)

    def _hear_stream(self, told: Answered | Content | Complete | GivenUp) -> None:
        stream = self._streams.get(told.stream)
        if stream is None or stream.stage is not Stage.OPEN:
            self._pump.pass_over(told)
            return
        try:
            match told:
                case Answered():
                    self._pump.head(stream, told.head, ends=told.ends)
                case Content():
                    self._pump.content(stream, told)
                case Complete():
                    self._pump.complete(stream, told.trailers)
                case GivenUp():
                    self._target_gave_up(stream, told)
        except CannotCarryOutError as error:
            self._pump.pass_over(told)
            self._not_carried_out(stream, str(error))

    def _not_carried_out(self, stream: Stream, reason: str) -> None:
        self._do(Refused(next(self._around.numbers), reason, ""))
        self._fail(stream, BAD_GATEWAY, {"error": "answer_not_masked", "message": reason}, "")

    def _target_gave_up(self, stream: Stream, told: GivenUp) -> None:
        """The target ends a stream: what it said so far is all only if it said so."""
        if stream.complete:
            self._client.took(stream.id, stream.body.clear())
            stream.sent_all = True
        elif told.code == Code.REFUSED_STREAM and not told.reason and not stream.headed:
            self._not_looked_at(stream)
        elif told.reason and not stream.headed:
            message = f"the target's answer is not HTTP/2: {told.reason}"
            self._answer(stream, BAD_GATEWAY, {"error": "target_failed", "message": message}, "")
        else:
            self._client.reset(stream.id, told.code or Code.INTERNAL_ERROR)
            self._forget(stream, None)

    def _target_lost(self, reason: str) -> None:
        """The connection to the target is over; another one can be made for what was not sent yet."""
        self._pump.part()
        for stream in [stream for stream in self._streams.values() if stream.stage is Stage.OPEN]:
            if stream.complete:
                stream.sent_all = True
            else:
                self._fail(stream, BAD_GATEWAY, {"error": "target_failed", "message": reason}, "")

    def _target_leaves(self, told: Leaving) -> None:
        """The target takes no new streams; so its connection is not for the client's next ones either."""
        for number in told.unseen:
            stream = self._streams.get(number)
            if stream is not None and stream.stage is Stage.OPEN:
                self._not_looked_at(stream)
        if not any(stream.stage is Stage.OPEN for stream in self._streams.values()):
            self._pump.part()
            return
        for stream in [one for one in self._waiting if not (one.verdict and one.verdict.approval)]:
            self._client.reset(stream.id, Code.REFUSED_STREAM)
            self._forget(stream, None)
        self._leave(self._newest)

    def _not_looked_at(self, stream: Stream) -> None:
        """Give a stream back to the client, which repeats it by itself; an approval would be lost by that."""
        if stream.comes_again():
            self._waiting.append(stream)
        else:
            self._client.reset(stream.id, Code.REFUSED_STREAM)
            self._forget(stream, None)

    # -- ends ------------------------------------------------------------------------------------------------------------------

    def _answer(self, stream: Stream, status: int, facts: dict[str, str], rule: str) -> None:
        """Answer in the target's place; what the client still says of its request is of no interest."""
        self._retire(stream, Code.CANCEL)
        stream.stage = Stage.ANSWERED
        self._pump.answer(stream, status, facts, rule)

    def _fail(self, stream: Stream, status: int, facts: dict[str, str], rule: str, *, code: int = Code.INTERNAL_ERROR) -> None:
        """Answer in the target's place, or end an answer that has begun."""
        if stream.headed:
            self._client.reset(stream.id, code)
            self._forget(stream, Code.CANCEL)
        else:
            self._answer(stream, status, facts, rule)

    def _retire(self, stream: Stream, code: int | None) -> None:
        """Nothing of a stream goes to the target any more, or comes of it."""
        self._timers.held.discard(stream.number)
        if stream in self._waiting:
            self._waiting.remove(stream)
        if stream.stage is Stage.JUDGED and stream.number and (stream.verdict is None or stream.verdict.body_bytes):
            self._do(Withdraw(stream.number))
        self._collecting.release(stream)
        if stream.obliged is not None and stream.stage is Stage.OPEN:
            self._do(Report(stream.number, stream.obliged.carried_out))
        self._pump.drop(stream, code)
        if self._by_number.pop(stream.number, None) is not None:
            self._do(Over(stream.number))

    def _forget(self, stream: Stream, code: int | None) -> None:
        """A stream is over; `code`: the target is told."""
        self._retire(stream, code)
        self._streams.pop(stream.id, None)
        self._client.forget(stream.id)

    def _done(self, stream: Stream) -> None:
        """The answer was sent to its end, and of the request nobody wants more.

        A client that still uploads may do so for a while: some take a reset for an error, and do not read the answer before it.
        """
        if not stream.said_all:
            if stream.unwanted <= LINGER_BYTES_MAX and self._last is None:
                return
            self._client.reset(stream.id, Code.NO_ERROR)
        self._forget(stream, None)

    def _leave(self, last: int) -> None:
        """Tell the client to take its next requests elsewhere."""
        if self._last is None:
            self._last = last
            self._client.farewell(last)

    def _linger(self) -> None:
        """Everything is said; the client has a moment to read it."""
        self._lingering = True
        self._do(Finish(Side.CLIENT), Arm(Timer.DEADLINE, LINGER_SECONDS))
