"""Connections as both witnesses would tell of them.

What lives here: records of the probes' side, entries of the enforcer's, of one made-up host. What must not: expectations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import msgpack

from capd.daemon.masking.levels import Level
from capd.daemon.witness.state import Books
from capd.daemon.witness.witness import Witness
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.action import Run as PolicyRun
from capd.enforcer.proxy import entry
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Destination, Kind, Question, Request, Verdict
from capd.enforcer.proxy.transcript import Transcript
from capd.recording.record import Direction, Record, Value
from capd.recording.record import Kind as RecordKind

HOST = UUID(int=1)
RUN = UUID(int=2)
SECOND = 1_000_000_000
START = 1_000 * SECOND
SAID_KEY = b"k" * 32
AGENT = Agent(run=PolicyRun(name="r", id=str(RUN), labels={}), principal=Principal(name="p", kind="user", verified=False))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One connection of an agent.

    Attributes:
        number: tells it from the others: its port, cookie and ids follow from it.
        begins_ns: wall time.
        requests: how many; every second one is denied.
        moved: bytes on its socket.
        port: of the agent.
        cookie: of its socket.
    """

    number: int
    begins_ns: int = START
    requests: int = 0
    moved: tuple[int, int] = (100, 200)
    port: int = 40_000
    cookie: int = 0

    @property
    def session(self) -> UUID:
        """Give the recorded session."""
        return UUID(int=1_000 + self.number)

    @property
    def flow(self) -> str:
        """Give the enforcer's id."""
        return str(UUID(int=2_000 + self.number))

    @property
    def client(self) -> tuple[str, int]:
        """Give the agent's end."""
        return "10.0.0.1", self.port

    # -- the probes ------------------------------------------------------------------------------------------------------------

    def opened(self, **more: Value) -> Record:
        """Give its OPEN record."""
        ends: dict[str, Value] = {
            "local": {"host": self.client[0], "port": self.client[1]},
            "target": {"host": "192.0.2.1", "port": 443, "name": None},
        }
        body: dict[str, Value] = {
            "run": RUN.bytes,
            "socket": self.cookie or 7_000 + self.number,
            "transport": "tcp",
            "role": "client",
            "mid_stream": False,
            **ends,
        }
        return Record(RecordKind.OPEN, self.session, self.begins_ns, None, {**body, **more})

    def request(self, exchange: int, *, protocol: str = "http1", **more: Value) -> Record:
        """Give the MESSAGE record of a request."""
        fields: dict[str, Value] = {"method": "GET", "target": f"/{exchange}", "host": "API.test:80", **more}
        body: dict[str, Value] = {"protocol": protocol, "type": "request", "exchange": exchange, "ordinal": exchange}
        return Record(
            RecordKind.MESSAGE, self.session, self.begins_ns + exchange, Direction.REQUEST, {**body, "fields": fields}
        )

    def answer(self, exchange: int | None, *, interim: bool = False) -> Record:
        """Give the MESSAGE record of an answer."""
        body: dict[str, Value] = {"protocol": "http1", "type": "response", "exchange": exchange, "fields": {"interim": interim}}
        return Record(RecordKind.MESSAGE, self.session, self.begins_ns + SECOND, Direction.RESPONSE, body)

    def data(self, payload: bytes = b"x", position: int = 0, direction: Direction = Direction.REQUEST, **more: Value) -> Record:
        """Give a DATA record."""
        return Record(
            RecordKind.DATA, self.session, self.begins_ns, direction, {"position": position, "payload": payload, **more}
        )

    def closed(self, after_ns: int = SECOND, *, counted: bool = True) -> Record:
        """Give its CLOSE record."""
        told: dict[str, Value] = {"socket_bytes": {"request": self.moved[0], "response": self.moved[1]}} if counted else {}
        body: dict[str, Value] = {"state": "closed", "completeness": {"verdict": "complete", "reasons": []}, **told}
        return Record(RecordKind.CLOSE, self.session, self.begins_ns + after_ns, None, body)

    def probes(self) -> list[Record]:
        """Give all that the probes tell."""
        return [self.opened(), self.data(), *(self.request(number) for number in range(self.requests)), self.closed()]

    # -- the enforcer ----------------------------------------------------------------------------------------------------------

    def let_in(self, after_ns: int = 1_000) -> bytes:
        """Give the entry of its begin."""
        owner = Owner(uid=1000, cookie=self.cookie or 7_000 + self.number, cgroup=5)
        at_ns = self.begins_ns + after_ns
        return packed(entry.opened_entry(self.flow, AGENT, owner, client=self.client, to=DESTINATION, at_ns=at_ns))

    def turned_away(self, after_ns: int = 1_000) -> bytes:
        """Give the entry that it was not let in."""
        at_ns = self.begins_ns + after_ns
        return packed(entry.turned_away_entry("too many connections", client=self.client, to=("192.0.2.1", 443), at_ns=at_ns))

    def decided(
        self, number: int, *, body_wanted: bool = False, stream: int | None = None, obligations: Obligations = NOTHING
    ) -> bytes:
        """Give the entry of a decision about a request, or about a stream."""
        request = Request(method="GET", host="api.test", path=f"/{number}")
        protocol = "http1" if stream is None else "http2"
        question = Question(
            number=number + 1,
            kind=Kind.REQUEST,
            destination=DESTINATION,
            protocol=protocol,
            request=request,
            exchange=stream,
        )
        allowed = not number % 2
        verdict = Verdict(
            number=number + 1,
            allowed=allowed and not body_wanted,
            reason="" if allowed else "denied_by_policy",
            rule="r",
            policy="v1",
            body_bytes=10 if body_wanted else 0,
            obligations=obligations,
        )
        return packed(entry.decision_entry(self.flow, question, verdict, self.begins_ns + number))

    def ended(
        self,
        received: int | None = None,
        sent: int | None = None,
        *,
        all_of_it: bool = True,
        said: tuple[bytes, bytes] | None = None,
        key: bytes = SAID_KEY,
    ) -> bytes:
        """Give the entry of its end; `said`: both directions, to be digested."""
        heard = entry.Heard(count=self.moved[0] if received is None else received, ended=all_of_it)
        passed = {Side.UPSTREAM: 50, Side.CLIENT: self.moved[1] if sent is None else sent}
        transcript = Transcript(b"" if said is None else key)
        if said is not None:
            transcript.read(said[0])
            transcript.written(said[1])
        return packed(entry.closed_entry(self.flow, passed, heard, self.begins_ns + SECOND, transcript.end()))

    def enforcer(self) -> list[bytes]:
        """Give all that the enforcer writes."""
        return [self.let_in(), *(self.decided(number) for number in range(self.requests)), self.ended()]


UNNUMBERED = b"\xa8sequence\x00"
DESTINATION = Destination(address="192.0.2.1", port=443)


def packed(facts: Mapping[str, object], sequence: int = 0) -> bytes:
    """Give an entry as the log has it; without a number `hear` gives it the next one."""
    return bytes(msgpack.packb({"sequence": sequence, **facts}))


def numbered(body: bytes, sequence: int) -> bytes:
    """Give an entry its number, if it lacks one."""
    return body.replace(UNNUMBERED, UNNUMBERED[:-1] + msgpack.packb(sequence), 1)


def seen(made: Witness, records: list[Record]) -> list[Record]:
    """Let it take records as the recorder does: before masking, then as they are stored; give what is stored."""
    made.observe(records)
    return made.watch(records)


def witness(
    *,
    enforced: bool = True,
    books: Books | None = None,
    recorded: set[str] | None = None,
    key: bytes = SAID_KEY,
    level: Level | None = None,
    helpers: tuple[str, ...] = (),
) -> Witness:
    """Give a witness."""
    begun = books or Books(since_ns=START - SECOND)
    return Witness(
        HOST,
        begun,
        enforced=enforced,
        recorded=recorded or (),
        level=lambda _: level,
        said_key=lambda: key,
        helpers=helpers,
    )


def hear(made: Witness, *entries: bytes, now_ns: int = START) -> list[Record]:
    """Let it take entries; give what follows."""
    for number, body in enumerate(entries):
        entry_body = numbered(body, made.books.sequences.get("w0", 0) + 1)
        made.take(f"w0-00000001.log:{made.books.counts.entries}.{number}", entry_body, now_ns)
    return made.ready()


def later(made: Witness, seconds: float = 60.0, seen_seconds: float | None = None) -> list[Record]:
    """Let time go by; give what follows."""
    seen = seconds if seen_seconds is None else seen_seconds
    made.due(heard_ns=START + int(seconds * SECOND), seen_ns=START + int(seen * SECOND))
    return made.ready()


def findings(records: list[Record], *, alarm: bool = True) -> list[str]:
    """Give the kinds of findings among records."""
    found = [record.body for record in records if record.kind is RecordKind.MARKER and record.body["name"] == "witness"]
    return [str(body["finding"]).partition(":")[0] for body in found if body["alarm"] is alarm]
