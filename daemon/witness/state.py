"""What is remembered of connections until both witnesses were heard: plain values, so that a snapshot can hold them.

What lives here: the fields. What must not: rules, records, files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from capd.daemon.assembly.facts import Facts
from capd.recording.stream_digest import Said


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request as the probes saw it, until a decision about it is found.

    Attributes:
        exchange: its number: of requests in their order, of streams in HTTP/2.
        method: as sent.
        host: that it names, normalised; None: none, or none that could be read.
        target_sha256: of path and query in the form in which they would be sent on; None: they have none.
        answered_ns: wall time at which its answer was seen; None: none was.
    """

    exchange: int
    method: str
    host: str | None
    target_sha256: bytes | None
    answered_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Ruled:
    """A decision about a request, until the request is found that it is about.

    Attributes:
        exchange: the stream of HTTP/2; None: the order of requests tells.
        method, host, target_sha256: as the enforcer wrote them down.
    """

    exchange: int | None
    method: str
    host: str
    target_sha256: bytes


@dataclass(slots=True, kw_only=True)
class Spoken:
    """A statement as the probes saw it, until a decision about it is found.

    Attributes:
        exchange: its number.
        said: hash of its text; None: any may be it.
        ran_ns: wall time at which it was seen that it was run; None: it was not.
    """

    exchange: int
    said: bytes | None
    ran_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Told:
    """A decision that allows a statement, until what was said is found: hash of its text, and wall time."""

    said: bytes | None
    at_ns: int


@dataclass(slots=True, kw_only=True)
class Seen:
    """A connection as the probes saw it.

    Attributes:
        session: its id.
        run: whose it is; None: its OPEN record does not say.
        cookie: the kernel's number of its socket; None in the classic tier.
        local, target: its ends as the agent sees them; None while unknown.
        started_ns, last_ns: wall time of its first and latest record.
        incomparable: why bytes cannot be compared; None: they can.
        spoke: whether anything moved on it.
        heard: whether the agent got anything on it.
        requests: HTTP requests that were seen.
        close: the body of its CLOSE record; None while it is open.
        closed_ns: wall time of that.
        flow: what the enforcer calls it; None: it has not told of it.
        turned_away: the enforcer did not let it in.
        alarms: what is wrong with it, in words.
        level: how much of it is recorded, if that is not the usual; "": it is.
        asked: requests without a decision so far.
        unpaired: why requests and decisions are not held against each other; "": they are.
        spoken: statements that were not run so far, or without a decision so far.
        unplaced: statements without a decision beside them; unplaceable: nobody can say any more which decision is whose.
        begun, stored: highest exchange of a statement that was seen, and of one that is in the recording; -1: none.
        said: what was said on it, once it is over; None: not all of it was seen by this recorder.
    """

    session: UUID
    run: UUID | None = None
    cookie: int | None = None
    local: tuple[str, int] | None = None
    target: tuple[str, int] | None = None
    started_ns: int
    last_ns: int
    incomparable: str | None = None
    spoke: bool = False
    heard: bool = False
    requests: int = 0
    close: Facts | None = None
    closed_ns: int | None = None
    flow: UUID | None = None
    turned_away: bool = False
    alarms: list[str] = field(default_factory=list)
    level: str = ""
    asked: list[Asked] = field(default_factory=list)
    unpaired: str = ""
    spoken: list[Spoken] = field(default_factory=list)
    unplaced: list[Spoken] = field(default_factory=list)
    unplaceable: bool = False
    begun: int = -1
    stored: int = -1
    said: Said | None = None


@dataclass(slots=True, kw_only=True)
class Pending:
    """A decision that is not in the recording yet.

    Attributes:
        key: of its entry; no other has it.
        facts: what is recorded of it.
        exchange: number of the HTTP request that it is about, counted from 0, or of a statement, which has to be found; None:
            the whole connection.
        since_ns: wall time from which it has waited for its message.
        statement: whether it is about a statement; said: hash of its text.
    """

    key: str
    facts: Facts
    exchange: int | None
    since_ns: int
    statement: bool = False
    said: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Final decisions so far."""

    allowed: int = 0
    denied: int = 0
    held: int = 0


@dataclass(slots=True, kw_only=True)
class Flow:
    """A connection as the enforcer tells of it.

    Attributes:
        id: what the enforcer calls it.
        opened_ns: wall time.
        run, cookie, client, destination: whose, and its ends as the agent sees them.
        session: the recorded session that it is; None: no probe has told of it yet.
        alone: no probe told of it in time: it is recorded as a session of its own, under its own id.
        requests: HTTP requests that were decided.
        tally: of its decisions.
        policy: version that decided last; "" before any.
        pending: decisions that are not recorded yet.
        closed_ns: wall time of its end; None while it is open.
        received, sent: bytes that came from the agent's socket, and for it; None: not counted.
        ended: whether the agent said that this was all.
        said: what was said on it, without TLS; None: not known.
        writer: of its entries.
        ruled: decisions about requests that were not seen so far.
        told: the same about statements, of those that allow; statements: how many there were.
        refusals: what the proxy refused by itself.
        relayed: whether what is said in it may pass without a decision about each request.
        lost: why some of what the enforcer wrote about it may be missing; "": nothing is.
    """

    id: UUID
    opened_ns: int
    run: UUID
    cookie: int
    client: tuple[str, int]
    destination: tuple[str, int]
    session: UUID | None = None
    alone: bool = False
    requests: int = 0
    tally: Tally = field(default_factory=Tally)
    policy: str = ""
    pending: list[Pending] = field(default_factory=list)
    closed_ns: int | None = None
    received: int | None = None
    sent: int = 0
    ended: bool = False
    said: Said | None = None
    writer: str = ""
    ruled: list[Ruled] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    statements: int = 0
    refusals: int = 0
    relayed: bool = False
    lost: str = ""


@dataclass(slots=True, kw_only=True)
class Away:
    """A connection that the enforcer did not let in, and that is not found yet."""

    key: str
    at_ns: int
    client: tuple[str, int]
    destination: tuple[str, int] | None
    reason: str


@dataclass(slots=True, kw_only=True)
class Helped:
    """A session over a unix socket, until it is known who listens.

    Attributes:
        name: at which that is; "": not known, or of no run, or from before.
        since_ns: wall time since when anything is said; None: nothing was.
    """

    name: str = ""
    since_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Counts:
    """What is told in the status.

    Attributes:
        entries: of the log, read.
        malformed: of them, not of the form that they must have.
        orphans: decisions of connections whose begin is not in the log.
        verdicts: records written.
        undecided, unseen, differing: alarms by kind: connections.
        requests: connections with a request or statement without a decision, with a decision without a request, or with one
            about another.
        unknown: connections of which decisions may be missing.
        helpers: sessions of runs with programs outside of all of them, over unix sockets.
        unpaired: connections whose requests could not be held against decisions.
        missing: entries of the log that are missing, as far as their numbers tell; missing_ns: when that was found last.
        incomparable: connections whose bytes could not be compared.
        digested: connections whose bytes were compared by their content, in a direction at least.
        forgotten: connections of which too many waited.
        alarmed_ns: wall time at which the latest alarm was found.
        malformed_ns: wall time of the latest malformed entry.
    """

    entries: int = 0
    malformed: int = 0
    orphans: int = 0
    verdicts: int = 0
    undecided: int = 0
    unseen: int = 0
    differing: int = 0
    requests: int = 0
    unknown: int = 0
    helpers: int = 0
    unpaired: int = 0
    missing: int = 0
    missing_ns: int | None = None
    incomparable: int = 0
    digested: int = 0
    forgotten: int = 0
    alarmed_ns: int | None = None
    malformed_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Books:
    """Everything that has to be remembered.

    Attributes:
        since_ns: connections that began before are not held against the log: nothing was enforced then.
        seen: by session; flows: by the enforcer's id; away: not found yet.
        helped: sessions over unix sockets; served: names at which runs listened, and when.
        counts: for the status.
        sequences: number of the latest entry, by writer.
        given_up: open sessions for which there was no room, so that their ends say so.
        unremembered: the newest of those for which there was no room there either; None: there were none.
        recorded: keys of what an earlier recorder wrote after its books were stored, and that did not come again yet: the log
            may not be read up to there when the next books are.
    """

    since_ns: int
    seen: dict[UUID, Seen] = field(default_factory=dict)
    flows: dict[UUID, Flow] = field(default_factory=dict)
    away: list[Away] = field(default_factory=list)
    helped: dict[UUID, Helped] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    sequences: dict[str, int] = field(default_factory=dict)
    given_up: set[UUID] = field(default_factory=set)
    unremembered: UUID | None = None
    recorded: set[str] = field(default_factory=set)
