"""Requests, statements and decisions of all connections that wait for each other.

What lives here: what is taken into the books, within which limits, and what came of it. What must not: the rules (requests.py,
statements.py), records, alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capd.daemon.witness import matching, requests, statements
from capd.daemon.witness.entries import ALLOW, BODY_WANTED, STATEMENT, Decided
from capd.daemon.witness.state import Asked, Books, Flow, Ruled, Seen, Spoken, Told
from capd.enforcer.masking.place import FILLER_TEXT
from capd.recording.record import Direction, Kind, Record, Value

WAITING_MAX: Final = 131_072
"""Of all connections together, half a kilobyte each: connections that would be beyond it are not compared."""
RELAYS: Final = frozenset({"tls", "tcp"})
"""What an allowed decision is about after which nothing is asked about each request."""
MISSING_MARKERS: Final = frozenset({"skipped", "resumed", "decoder"})
"""Markers after which a decoder may have passed over a request."""
WRONG: Final = "\0"
"""What `Seen.unpaired` begins with when a pair was wrong and that was not told yet."""


class Pairs:
    """What waits of requests and decisions. Not thread-safe."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._read_again = {seen.session for seen in books.seen.values()}
        """Connections of an earlier recorder of which no request was seen by this one."""
        self._waiting = sum(len(seen.asked) + len(seen.spoken) for seen in books.seen.values())
        self._waiting += sum(len(flow.ruled) + len(flow.told) for flow in books.flows.values())
        self._unplaced = sum(len(seen.unplaced) for seen in books.seen.values())

    def observe(self, seen: Seen, record: Record, flow: Flow | None) -> None:
        """Take a record of a connection as the probes told it, before anything of it is hidden."""
        body = record.body
        if record.kind is Kind.MESSAGE:
            if record.direction is Direction.REQUEST:
                asked = requests.read_request(body)
                spoken = None if asked is not None else statements.spoken(body)
                if seen.session in self._read_again and (asked is not None or spoken is not None):
                    self._read_again.discard(seen.session)
                    _uncertain(body, asked, spoken)
                if asked is not None and not seen.unpaired:
                    seen.asked.append(asked)
                    self._waiting += 1
                    self._bound(seen, flow)
                    self.pair(seen, flow)
                elif spoken is not None:
                    self._spoken(seen, spoken, flow)
            elif (exchange := statements.ran(body)) is not None:
                self._ran(seen, exchange, record.time_ns, flow)
            elif (number := requests.answers(body)) is not None:
                for asked in seen.asked:
                    if asked.exchange == number and asked.answered_ns is None:
                        asked.answered_ns = record.time_ns
        elif record.direction is not Direction.RESPONSE and _misses(record):
            self.give_up(seen, requests.INCOMPLETE)

    def decided(self, flow: Flow, entry: Decided) -> None:
        """Take a decision."""
        facts = entry.facts
        flow.refusals += entry.about == "refused"
        flow.relayed = flow.relayed or (entry.about in RELAYS and entry.outcome == ALLOW)
        if entry.statement:
            self._told(flow, entry)
        method, host, digest = facts.get("method"), facts.get("host"), facts.get("target_sha256")
        if entry.about != "http" or entry.outcome == BODY_WANTED:
            return
        if isinstance(method, str) and isinstance(host, str) and isinstance(digest, bytes):
            seen = None if flow.session is None else self._books.seen.get(flow.session)
            if seen is None or not seen.unpaired:
                flow.ruled.append(Ruled(exchange=entry.exchange, method=method, host=host, target_sha256=digest))
                self._waiting += 1
                self._bound(seen, flow)
                self.pair(seen, flow)

    def _spoken(self, seen: Seen, spoken: Spoken, flow: Flow | None) -> None:
        """Take a statement."""
        if not statements.begin(seen, spoken):
            return
        self._waiting += 1
        if seen.unpaired:
            self.give_up(seen, seen.unpaired)
        self._unplaced += not seen.unplaceable
        if flow is not None:
            self._place(seen, flow)
        if flow is not None and not flow.relayed:
            many = len(seen.unplaced) > statements.UNPLACED_MAX or self._unplaced > WAITING_MAX
        else:  # they must not take the room of those that are decided about
            many = len(seen.unplaced) > statements.UNLINKED_MAX or self._unplaced > WAITING_MAX // 2
        if many:
            self.lose_place(seen)
        self._bound(seen, flow)

    def _ran(self, seen: Seen, exchange: int, time_ns: int, flow: Flow | None) -> None:
        """Take that a statement was run."""
        before = len(seen.spoken)
        statements.answered(seen, exchange, time_ns)
        self._waiting -= before - len(seen.spoken)
        self.pair(seen, flow)

    def _told(self, flow: Flow, entry: Decided) -> None:
        """Take a decision about a statement."""
        seen = None if flow.session is None else self._books.seen.get(flow.session)
        self.pair(seen, flow)
        flow.statements += 1
        if entry.about == STATEMENT and entry.outcome == ALLOW and (seen is None or not seen.unpaired):
            flow.told.append(Told(said=entry.said, at_ns=entry.at_ns))
            self._waiting += 1
            self._bound(seen, flow)
            self.pair(seen, flow)

    def pair(self, seen: Seen | None, flow: Flow | None) -> None:
        """Take what belongs together out of both."""
        if seen is None or flow is None:
            return
        self._place(seen, flow)
        if seen.unpaired:
            return
        if seen.spoken and flow.told:
            before = len(seen.spoken) + len(flow.told)
            statements.pair(seen, flow)
            self._waiting -= before - len(seen.spoken) - len(flow.told)
        if not (seen.asked and flow.ruled):
            return
        before = len(seen.asked) + len(flow.ruled)
        wrong = requests.pair(seen, flow)
        self._waiting -= before - len(seen.asked) - len(flow.ruled)
        if wrong is not None:
            self.give_up(seen, WRONG + wrong)

    def _place(self, seen: Seen, flow: Flow) -> None:
        """Find what decisions stand beside."""
        before = len(seen.unplaced)
        statements.place(seen, flow.pending)
        self._unplaced -= before - len(seen.unplaced)

    def lose_place(self, seen: Seen) -> None:
        """A decision of a connection was written without what it is about: those behind it have no place either."""
        self._unplaced -= len(seen.unplaced)
        statements.lose_place(seen)

    def give_up(self, seen: Seen, why: str) -> None:
        """Compare requests and statements of a connection no more."""
        self._waiting -= len(seen.asked) + len(seen.spoken)
        seen.asked, seen.spoken, seen.unpaired = [], [], seen.unpaired or why

    def examine(self, seen: Seen, flow: Flow, *, heard_ns: int) -> str | None:
        """Say what is wrong with requests of a connection, once; `heard_ns`: up to when what the enforcer wrote was read."""
        if flow.lost:
            self.give_up(seen, flow.lost)
        if seen.unpaired.startswith(WRONG):
            seen.unpaired = seen.unpaired.removeprefix(WRONG)
            return seen.unpaired
        if seen.unpaired:
            return None
        words = requests.undecided(seen, flow, heard_ns=heard_ns) or statements.undecided(seen, flow, heard_ns=heard_ns)
        if words is not None:
            self.give_up(seen, words)
        return words

    def over(self, seen: Seen, flow: Flow) -> str | None:
        """Say the same of a connection that both say is over; count it where nobody can say."""
        completeness = (seen.close or {}).get("completeness")
        counted = matching.moved(seen) is not None
        whole = counted and isinstance(completeness, Mapping) and completeness.get("verdict") == "complete"
        if flow.ruled and whole and not seen.unpaired and not flow.lost:
            return requests.unseen(flow)
        gave_up = seen.unpaired in {requests.INCOMPLETE, requests.TOO_MANY}
        self._books.counts.unpaired += bool(flow.ruled) or (gave_up and flow.requests + flow.statements > 0)
        return None

    def forget(self, seen: Seen | None, flow: Flow | None) -> None:
        """Nothing more is heard of a connection."""
        self._waiting -= 0 if seen is None else len(seen.asked) + len(seen.spoken)
        self._unplaced -= 0 if seen is None else len(seen.unplaced)
        self._waiting -= 0 if flow is None else len(flow.ruled) + len(flow.told)

    def _bound(self, seen: Seen | None, flow: Flow | None) -> None:
        full = self._waiting > WAITING_MAX
        many = seen is not None and (len(seen.asked) > requests.WAITING_MAX or len(seen.spoken) > statements.WAITING_MAX)
        if seen is not None and (full or many):
            self.give_up(seen, requests.TOO_MANY)
        if seen is not None and flow is not None and len(flow.told) > statements.WAITING_MAX:
            before = len(flow.told)
            statements.drop_old(seen, flow)
            self._waiting -= before - len(flow.told)
        if flow is not None and (full or len(flow.ruled) > requests.WAITING_MAX or len(flow.told) > statements.WAITING_MAX):
            self._waiting -= len(flow.ruled) + len(flow.told)
            flow.ruled, flow.told = [], []
            if seen is not None:
                self.give_up(seen, requests.TOO_MANY)
            else:
                flow.lost = flow.lost or requests.TOO_MANY


def _uncertain(body: Mapping[str, Value], asked: Asked | None, spoken: Spoken | None) -> None:
    """Take what may be masked out of what an earlier recorder heard the beginning of: it was read again from the recording."""
    fields = body.get("fields")
    told = fields if isinstance(fields, Mapping) else {}
    if any(FILLER_TEXT in str(text) for text in (told.get("target"), told.get("sql"), body.get("summary"))):
        if asked is not None:
            asked.target_sha256 = None
        if spoken is not None:
            spoken.said = None


def _misses(record: Record) -> bool:
    """Say whether something that the agent said may be missing here."""
    if record.kind is Kind.GAP:
        return record.body.get("layer", "application") == "application"
    return record.kind is Kind.MARKER and record.body.get("name") in MISSING_MARKERS
