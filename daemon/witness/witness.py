"""The witness: entries of the decision log on one side, records of sessions on the other; verdicts and alarms come out.

What lives here: who is who, what waits for what, what is written when. What must not: files, clocks, the rules of comparing
(matching.py), the form of records (verdicts.py).

A verdict is written behind the message that it is about: the enforcer writes its decision down before it forwards, so it is
mostly there when the message comes. One that is there later is written when it comes, and names its exchange all the same.
What is written gets a key, so that a recorder which was killed, and reads the log again from an earlier place, writes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from capd.daemon.masking.levels import Level
from capd.daemon.witness import continuity, matching, pending, statements, verdicts
from capd.daemon.witness.connections import Connections
from capd.daemon.witness.digests import Digests
from capd.daemon.witness.entries import (
    ALLOW,
    BODY_WANTED,
    DENY,
    HELD,
    Closed,
    Decided,
    MalformedEntryError,
    Opened,
    TurnedAway,
    parse,
    sequence_of,
)
from capd.daemon.witness.files import writer_of
from capd.daemon.witness.opened import cookie_of, ends_of, incomparable_of, is_outward, uuid_of
from capd.daemon.witness.outside import Outside
from capd.daemon.witness.pairs import Pairs
from capd.daemon.witness.state import Away, Books, Flow, Pending, Seen
from capd.recording.record import Direction, Kind, Record, Value

SEEN_MAX: Final = 65_536
"""Connections in the books: open ones, and those that ended in the last seconds. Half a kilobyte each."""
FLOWS_MAX: Final = 65_536
AWAY_MAX: Final = 4_096


class Witness:
    """What both say. Not thread-safe."""

    def __init__(
        self,
        host: UUID,
        books: Books,
        *,
        enforced: bool,
        recorded: Iterable[str] = (),
        level: Callable[[UUID], Level | None] = lambda _: None,
        said_key: Callable[[], bytes] = bytes,
        helpers: Sequence[str] = (),
    ) -> None:
        """Begin with what is remembered.

        Args:
            host: this installation.
            books: empty, or as `books` was before.
            enforced: whether runs are forced through the enforcer, so that a disagreement is an alarm.
            recorded: keys of what was written after those books were remembered.
            level: says how much of an open session is recorded.
            said_key: gives the key of digests of what is said; empty: there is none yet.
            helpers: patterns of names of unix sockets that runs may speak to.
        """
        self.books = books
        self._level = level
        self._host, self._enforced = host, enforced
        books.recorded.update(recorded)
        self._pairs = Pairs(books)
        self._keys: list[str] = []
        self._ready: list[Record] = []
        self._connections = Connections(books)
        self._away_ends = {(away.client, away.destination) for away in books.away}
        self._digests = Digests(said_key)
        self._outside = Outside(books, helpers if enforced else ("*",))
        self._flow_by_cookie = {flow.cookie: flow.id for flow in books.flows.values() if flow.session is None}
        self._pending = sum(len(flow.pending) for flow in books.flows.values())
        self.changed = False
        """Something has to be remembered that was not before."""

    # -- the enforcer's side ---------------------------------------------------------------------------------------------------

    def take(self, key: str, body: bytes, now_ns: int) -> None:
        """Take an entry of the log; what follows from it is in `ready`."""
        self.changed = True
        self.books.counts.entries += 1
        writer = writer_of(key.rpartition(":")[0]) or ""
        try:
            continuity.count(self.books, writer, sequence_of(body), now_ns)
            entry = parse(body)
        except MalformedEntryError:
            continuity.damaged(self.books, now_ns)
            return
        match entry:
            case Opened():
                self._opened(entry, writer)
            case Decided():
                self._decided(key, entry, now_ns)
            case Closed():
                self._closed(entry)
            case TurnedAway():
                self._turned_away(key, entry)

    def lose(self, writer: str, words: str, now_ns: int) -> None:
        """Entries of a writer cannot be read any more: of what it had open then, nobody knows all that was decided."""
        self.changed = True
        continuity.lose(self.books, writer, words, now_ns)

    def _opened(self, entry: Opened, writer: str) -> None:
        books = self.books
        flow = Flow(
            id=entry.flow,
            opened_ns=entry.at_ns,
            run=entry.run,
            cookie=entry.cookie,
            client=entry.client,
            destination=entry.destination,
            writer=writer,
        )
        books.flows[flow.id] = flow
        if len(books.flows) > FLOWS_MAX:
            books.counts.forgotten += 1
            self._give_up_flow(next(iter(books.flows.values())), entry.at_ns)
        found = [self._connections.of_cookie(flow.cookie), *self._connections.between(flow.client, flow.destination)]
        seen = matching.latest(one for one in found if one is not None and one.flow is None and matching.same(flow, one))
        if seen is None:
            self._flow_by_cookie[flow.cookie] = flow.id
        else:
            self._link(flow, seen, self._ready)

    def _decided(self, key: str, entry: Decided, now_ns: int) -> None:
        flow = self.books.flows.get(entry.flow)
        if flow is None:
            self.books.counts.orphans += 1
            return
        exchange = flow.requests if entry.about in {"http", "held"} and not entry.statement else None
        exchange = exchange if entry.exchange is None else entry.exchange
        flow.requests += entry.about == "http" and entry.outcome != BODY_WANTED
        flow.tally.allowed += entry.outcome == ALLOW
        flow.tally.denied += entry.outcome == DENY
        flow.tally.held += entry.outcome == HELD
        flow.policy = str(entry.facts.get("policy") or flow.policy)
        so_far: dict[str, Value] = {"allowed": flow.tally.allowed, "denied": flow.tally.denied, "held": flow.tally.held}
        facts = {**entry.facts, "so_far": so_far}
        waits = Pending(key=key, facts=facts, exchange=exchange, since_ns=now_ns, statement=entry.statement, said=entry.said)
        flow.pending.append(waits)
        self._pending += 1
        self._pairs.decided(flow, entry)
        self._place(flow, self._ready)

    def _closed(self, entry: Closed) -> None:
        flow = self.books.flows.get(entry.flow)
        if flow is None:
            return
        flow.closed_ns, flow.received, flow.sent, flow.ended = entry.at_ns, entry.received, entry.sent, entry.ended
        flow.said = entry.said
        if flow.alone:
            self._end_alone(flow)

    def _turned_away(self, key: str, entry: TurnedAway) -> None:
        away = Away(key=key, at_ns=entry.at_ns, client=entry.client, destination=entry.destination, reason=entry.reason)
        found = self._connections.between(away.client, away.destination)
        seen = matching.latest(
            one for one in found if one.flow is None and not one.turned_away and matching.turned_away(away, one)
        )
        if seen is not None and self._send_away(away, seen, self._ready):
            return
        self.books.away.append(away)
        self._away_ends.add((away.client, away.destination))
        del self.books.away[:-AWAY_MAX]

    # -- the probes' side ------------------------------------------------------------------------------------------------------

    def observe(self, records: Sequence[Record]) -> None:
        """Take the same records before anything in them is hidden: what the agent asked for, and what was answered."""
        for record in records:
            seen = self.books.seen.get(record.session)
            if record.kind is Kind.OPEN and not is_outward(record.body):
                self._outside.opened(record)
            elif seen is None and record.kind is Kind.OPEN and record.session not in self.books.given_up:
                self._begin(record)
            elif seen is None:
                self._outside.observe(record)
            else:
                self._digests.observe(seen, record)
                self._pairs.observe(seen, record, self._flow(seen.flow))

    def watch(self, records: Sequence[Record]) -> list[Record]:
        """Take records as they are to be stored; give them with what follows from them, in their places."""
        out: list[Record] = []
        for record in records:
            out.append(self._closing(record, out) if record.kind is Kind.CLOSE else record)
            self._behind(record, out)
        return out

    def watch_again(self, records: Sequence[Record]) -> None:
        """Take records that are stored already; what follows from them and is not stored yet is in `ready`."""
        for record in records:
            if record.kind is Kind.CLOSE:
                self._closing(record, self._ready)
            self._behind(record, self._ready)

    def _behind(self, record: Record, out: list[Record]) -> None:
        if record.kind is Kind.OPEN:
            self._open(record, out)
            return
        seen = self.books.seen.get(record.session)
        if seen is None:
            return
        seen.last_ns = max(seen.last_ns, record.time_ns)
        if record.kind is Kind.MESSAGE and record.direction is Direction.REQUEST:
            self._request(seen, record, out)
        elif record.kind in (Kind.DATA, Kind.GAP):
            seen.spoke = True
            seen.heard = seen.heard or record.direction is Direction.RESPONSE
        elif record.kind is Kind.MARKER and record.body.get("name") == "recording":
            seen.level = str(record.body.get("level"))

    def _open(self, record: Record, out: list[Record]) -> None:
        body, seen = record.body, self.books.seen.get(record.session)
        if not is_outward(body):
            if seen is not None:  # it was not known at first
                self._forget_seen(seen)
            return
        if record.session in self.books.given_up:
            return
        seen = seen or self._begin(record)
        seen.last_ns = max(seen.last_ns, record.time_ns)
        self._connections.between_others(seen, ends_of(body.get("local")), ends_of(body.get("target")))
        seen.run = uuid_of(body.get("run")) or seen.run
        seen.incomparable = incomparable_of(body, seen.incomparable)
        if seen.flow is None:
            self._find_flow(seen, out)

    def _begin(self, record: Record) -> Seen:
        self.changed = True
        now_ns = record.time_ns
        seen = Seen(session=record.session, cookie=cookie_of(record.body), started_ns=now_ns, last_ns=now_ns)
        if len(self._connections) >= SEEN_MAX:
            self.books.counts.forgotten += 1
            self._give_up(self._connections.first_to_go(), now_ns)
        self._connections.add(seen)
        self._digests.begin(seen.session)
        return seen

    def _find_flow(self, seen: Seen, out: list[Record]) -> None:
        flow = None if seen.cookie is None else self._flow(self._flow_by_cookie.get(seen.cookie))
        if seen.cookie is None:
            open_flows = (self._flow(identity) for identity in self._flow_by_cookie.values())
            flow = next((one for one in open_flows if one is not None and matching.same(one, seen)), None)
        if flow is not None and matching.same(flow, seen):
            self._link(flow, seen, out)
            return
        for away in self.books.away if (seen.local, seen.target) in self._away_ends and not seen.turned_away else ():
            if self._send_away(away, seen, out):
                self.books.away.remove(away)
                return

    def _request(self, seen: Seen, record: Record, out: list[Record]) -> None:
        exchange = record.body.get("exchange")
        if record.body.get("type") == "request":
            seen.requests = max(seen.requests, exchange + 1 if isinstance(exchange, int) else seen.requests + 1)
        number = statements.exchange_of(record.body)
        seen.stored = seen.stored if number is None else max(seen.stored, number)
        flow = self._flow(seen.flow)
        if flow is not None and flow.pending:
            self._place(flow, out)

    def _closing(self, record: Record, out: list[Record]) -> Record:
        """Write what waits for a session before its end; give its CLOSE record with what was found."""
        seen = self.books.seen.get(record.session)
        if seen is None:
            return verdicts.unjudged(record) if self._connections.was_given_up(record.session) else record
        flow = self._flow(seen.flow)
        if flow is not None:
            self._place(flow, out, patient=False)
        seen.close, seen.closed_ns = dict(record.body), record.time_ns
        self._connections.over(seen)
        counted = matching.moved(seen) or (0, 0)
        seen.spoke, seen.heard = seen.spoke or any(counted), seen.heard or counted[1] > 0
        self.changed = True
        if not seen.alarms:
            return record
        return Record(record.kind, record.session, record.time_ns, record.direction, verdicts.told(seen.close, seen.alarms))

    # -- both ------------------------------------------------------------------------------------------------------------------

    def ready(self) -> list[Record]:
        """Give what is to be stored besides what `watch` gave."""
        ready, self._ready = self._ready, []
        return ready

    def written(self) -> list[str]:
        """Give the keys of what was given out since the last call: they have to be stored with it."""
        keys, self._keys = self._keys, []
        return keys

    def remembered(self) -> None:
        """The books were stored, with the log's places."""
        self.changed = False

    def alone(self) -> set[UUID]:
        """Give the sessions that only the enforcer told of, and that are open."""
        return {flow.id for flow in self.books.flows.values() if flow.alone}

    def due(self, *, heard_ns: int, seen_ns: int) -> None:
        """Find what time has made plain; it is in `ready`.

        Args:
            heard_ns: wall time up to which all that the enforcer wrote was read.
            seen_ns: wall time up to which all that the probes told was read.
        """
        books = self.books
        for flow in list(books.flows.values()):
            if matching.unseen(flow, seen_ns=seen_ns) and not flow.alone:
                self._record_alone(flow, heard_ns)
            elif flow.pending and min(heard_ns, seen_ns) >= flow.pending[0].since_ns + self._patience_ns(flow):
                self._place(flow, self._ready, patient=False)
            if flow.alone and flow.closed_ns is not None:
                self._end_alone(flow)
        for seen in list(books.seen.values()):
            self._examine(seen, heard_ns)
        for key, found in self._outside.due(seen_ns, heard_ns):
            self._give(key, [found], self._ready)
        books.away = [away for away in books.away if seen_ns < away.at_ns + matching.AGE_NS]
        self._away_ends = {(away.client, away.destination) for away in books.away}

    def _examine(self, seen: Seen, heard_ns: int) -> None:
        flow = self._flow(seen.flow)
        if self._enforced and not seen.alarms:
            words = matching.undecided(seen, heard_ns=heard_ns, since_ns=self.books.since_ns)
            if words is not None:
                self.books.counts.undecided += 1
                self._alarm("undecided", seen, words, heard_ns)
        if flow is not None:
            self._examine_requests(seen, flow, heard_ns)
        if seen.closed_ns is None:
            return
        if flow is None:
            if seen.turned_away or heard_ns >= seen.closed_ns + matching.telling_ns(seen):
                self._forget_seen(seen)
        elif flow.closed_ns is not None or heard_ns >= seen.closed_ns + matching.FAREWELL_NS:
            self._compare(seen, flow, heard_ns)
            self._forget_seen(seen)
            self._forget_flow(flow)

    def _examine_requests(self, seen: Seen, flow: Flow, heard_ns: int) -> None:
        if flow.lost and not any(words.startswith(verdicts.UNKNOWN) for words in seen.alarms):
            self.books.counts.unknown += 1
            self._alarm("unknown", seen, f"{verdicts.UNKNOWN}: {flow.lost}", heard_ns)
        self._wrong_requests(seen, self._pairs.examine(seen, flow, heard_ns=heard_ns), heard_ns)

    def _wrong_requests(self, seen: Seen, words: str | None, now_ns: int) -> None:
        if words is not None and self._enforced:
            self.books.counts.requests += 1
            self._alarm("requests", seen, words, now_ns)

    def _compare(self, seen: Seen, flow: Flow, now_ns: int) -> None:
        self._wrong_requests(seen, self._pairs.over(seen, flow), now_ns)
        why = matching.incomparable(seen, flow)
        words = matching.differing(seen, flow)
        self.books.counts.digested += why is None and matching.digested(seen, flow)
        if why is not None:
            self.books.counts.incomparable += 1
            self._give(f"incomparable:{seen.session}", [verdicts.incomparable(seen, why)], self._ready)
        elif words is not None and self._enforced:
            self.books.counts.differing += 1
            self._alarm("differing", seen, words, now_ns)

    def _alarm(self, kind: str, seen: Seen, words: str, now_ns: int) -> None:
        seen.alarms.append(words)
        self.changed = True
        self.books.counts.alarmed_ns = now_ns
        marker = verdicts.finding(seen.session, words, seen.last_ns, alarm=True)
        self._give(f"{kind}:{seen.session}", [marker], self._ready)
        if seen.close is not None:
            self._give(f"{kind}:{seen.session}:close", [verdicts.closed_again(seen)], self._ready)

    def _record_alone(self, flow: Flow, now_ns: int) -> None:
        """No probe told of a connection: what was decided about it must be in the recording all the same."""
        self.changed = True
        self._flow_by_cookie.pop(flow.cookie, None)
        alarm = self._enforced and flow.opened_ns >= self.books.since_ns
        if not alarm and self.books.recorded.issuperset(one.key for one in flow.pending):
            self.books.recorded.difference_update([one.key for one in flow.pending])
            self._forget_flow(flow)  # of before these books, and in the recording
            return
        flow.alone = True
        marker = verdicts.finding(flow.id, verdicts.PROBES_MISSED, flow.opened_ns, alarm=alarm)
        self._give(f"alone:{flow.id}", [verdicts.opened_alone(flow, self._host), marker], self._ready)
        if alarm:
            counts = self.books.counts
            counts.unseen += 1
            counts.alarmed_ns = now_ns
        self._place(flow, self._ready)
        if flow.closed_ns is not None:
            self._end_alone(flow)

    def _end_alone(self, flow: Flow) -> None:
        self._place(flow, self._ready)
        self._give(
            f"alone:{flow.id}:close", [verdicts.closed_alone(flow, max(flow.closed_ns or 0, flow.opened_ns))], self._ready
        )
        self._forget_flow(flow)

    def _link(self, flow: Flow, seen: Seen, out: list[Record]) -> None:
        self.changed = True
        flow.session, seen.flow = seen.session, flow.id
        self._connections.linked(seen)
        self._pairs.pair(seen, flow)
        self._flow_by_cookie.pop(flow.cookie, None)
        self._place(flow, out)

    def _send_away(self, away: Away, seen: Seen, out: list[Record]) -> bool:
        if seen.flow is not None or not matching.turned_away(away, seen):
            return False
        seen.turned_away = True
        self._give(away.key, [verdicts.not_let_in(seen.session, away, seen.last_ns)], out)
        return True

    def _place(self, flow: Flow, out: list[Record], *, patient: bool = True) -> None:
        """Write the decisions of a connection whose messages are there; without patience, all of them."""
        seen = self._seen(flow.session)
        if seen is None and not flow.alone:
            return
        session, time_ns = (seen.session, seen.last_ns) if seen is not None else (flow.id, flow.opened_ns)
        level = self._level_of(session, seen)
        written, waiting, astray = pending.part(flow.pending, seen if patient else None, others=self._pending)
        if astray and seen is not None:
            self._pairs.lose_place(seen)
        for one in written:
            self.books.counts.verdicts += 1
            self._give(one.key, [verdicts.verdict(session, flow, one, time_ns, level)], out)
        self.changed = self.changed or bool(written)
        self._pending -= len(written)
        flow.pending = waiting

    def _patience_ns(self, flow: Flow) -> int:
        return matching.patience_ns(self._level_of(flow.session or flow.id, self._seen(flow.session)))

    def _level_of(self, session: UUID, seen: Seen | None) -> str:
        """Give how much of a session is recorded, so that a verdict tells no more."""
        known = self._level(session)
        return known.word if known is not None else seen.level if seen is not None else ""

    def _give(self, key: str, records: list[Record], out: list[Record]) -> None:
        if key in self.books.recorded:
            self.books.recorded.discard(key)
            return
        self._keys.append(key)
        out.extend(records)

    def _seen(self, identity: UUID | None) -> Seen | None:
        return None if identity is None else self.books.seen.get(identity)

    def _flow(self, identity: UUID | None) -> Flow | None:
        return None if identity is None else self.books.flows.get(identity)

    def _give_up(self, seen: Seen, now_ns: int) -> None:
        """Let go of a connection for which there is no room; where that may hide something it is said, and an alarm."""
        flow = self._flow(seen.flow)
        if self._enforced and matching.hides(seen, since_ns=self.books.since_ns):
            self.books.counts.unknown += 1
            self._alarm("crowded", seen, verdicts.TOO_MANY, now_ns)
        if seen.alarms:
            self._connections.give_up(seen)
        if flow is not None:
            self._place(flow, self._ready, patient=False)
            self._forget_flow(flow)
        self._forget_seen(seen)

    def _give_up_flow(self, flow: Flow, now_ns: int) -> None:
        if (seen := self._seen(flow.session)) is not None:
            self._give_up(seen, now_ns)
        elif flow.alone:
            self._end_alone(flow)
        else:
            self._forget_flow(flow)

    def _forget_seen(self, seen: Seen) -> None:
        self.changed = True
        self._pairs.forget(seen, None)
        self._digests.forget(seen.session)
        self._connections.remove(seen)

    def _forget_flow(self, flow: Flow) -> None:
        self.changed = True
        self._pairs.forget(None, flow)
        if self.books.flows.pop(flow.id, None) is not None:
            self._pending -= len(flow.pending)
        if self._flow_by_cookie.get(flow.cookie) == flow.id:
            del self._flow_by_cookie[flow.cookie]
