"""Records that the witness adds: verdicts, findings, and a session for a connection that only the enforcer told of.

What lives here: their form (docs/formats/segment.md). What must not: when they are written.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from capd.daemon.witness.state import Away, Flow, Pending, Seen
from capd.recording.record import Direction, Kind, Record, Value

WITNESS: Final = "witness"
"""Name of the marker of a finding."""
WITNESSED: Final = "witnessed"
"""Name of the host's marker that says which entries, and findings, are in the recording up to here."""
UNKNOWN: Final = "verdicts not known"
"""What a finding begins with when decisions about a session may be missing."""
TOO_MANY: Final = f"{UNKNOWN}: there were too many connections at once to hold this one against the decision log"
PROBES_MISSED: Final = "unseen flow: the enforcer told of this connection, and no probe saw it"


HASHES: Final = frozenset({"target_sha256", "content_sha256"})
"""A hash of a short path is as good as the path, and one of a statement as good as the only password in it."""
LEFT_OUT: Final = {
    "full": frozenset[str](),
    "off": HASHES
    | {"method", "host", "server_name", "database", "user", "operation", "effects", "resources", "resources_count"},
}
"""By recording level: of a decision, what tells of what was said. At others, and where it is not known any more, hashes do."""


def verdict(session: UUID, flow: Flow, pending: Pending, time_ns: int, level: str = "") -> Record:
    """Give the record of a decision, in a session of a recording level."""
    hidden = LEFT_OUT.get(level, HASHES)
    facts = {name: value for name, value in pending.facts.items() if name not in hidden}
    body: dict[str, Value] = {**facts, "exchange": pending.exchange, "flow": flow.id.bytes}
    return Record(Kind.VERDICT, session, time_ns, Direction.REQUEST, body)


def not_let_in(session: UUID, away: Away, time_ns: int) -> Record:
    """Give the record of a connection that was not let in."""
    body: dict[str, Value] = {
        "decision": "",
        "outcome": "deny",
        "about": "connection",
        "reason": away.reason,
        "rule": "",
        "policy": "",
        "at_ns": away.at_ns,
        "exchange": None,
        "flow": None,
        "so_far": {"allowed": 0, "denied": 1, "held": 0},
    }
    return Record(Kind.VERDICT, session, time_ns, Direction.REQUEST, body)


def finding(session: UUID, words: str, time_ns: int, *, alarm: bool) -> Record:
    """Give the marker of a finding; `alarm`: the two witnesses disagree."""
    body: dict[str, Value] = {"name": WITNESS, "alarm": alarm, "finding": words}
    return Record(Kind.MARKER, session, time_ns, None, body)


def incomparable(seen: Seen, why: str) -> Record:
    """Give the marker that the bytes of a connection could not be compared."""
    return finding(seen.session, f"cannot be compared with what the enforcer says: {why}", seen.last_ns, alarm=False)


def told(body: dict[str, Value], alarms: list[str]) -> dict[str, Value]:
    """Give the body of a CLOSE record that says what is wrong: a session with a finding is not complete."""
    before = body.get("completeness")
    completeness: dict[str, Value] = dict(before) if isinstance(before, dict) else {"verdict": "partial", "reasons": []}
    reasons = completeness.get("reasons")
    known = list(reasons) if isinstance(reasons, list | tuple) else []
    completeness["reasons"] = known + [alarm for alarm in alarms if alarm not in known]
    if completeness.get("verdict") == "complete":
        completeness["verdict"] = "partial"
    return {**body, "completeness": completeness}


def unjudged(record: Record) -> Record:
    """Give the CLOSE record of a session that was let go of before its end."""
    return Record(record.kind, record.session, record.time_ns, record.direction, told(dict(record.body), [TOO_MANY]))


def closed_again(seen: Seen) -> Record:
    """Give the CLOSE record of a session once more, because something was found after its end."""
    return Record(Kind.CLOSE, seen.session, seen.last_ns, None, told(seen.close or {}, seen.alarms))


def opened_alone(flow: Flow, host: UUID) -> Record:
    """Give the OPEN record of a connection that only the enforcer told of."""
    body: dict[str, Value] = {
        "run": flow.run.bytes,
        "host": host.bytes,
        "socket": flow.cookie,
        "transport": "tcp",
        "role": "client",
        "local": {"host": flow.client[0], "port": flow.client[1]},
        "target": {"host": flow.destination[0], "port": flow.destination[1], "name": None},
    }
    return Record(Kind.OPEN, flow.id, flow.opened_ns, None, body)


def closed_alone(flow: Flow, time_ns: int) -> Record:
    """Give its CLOSE record."""
    reasons: list[Value] = [PROBES_MISSED, *([f"{UNKNOWN}: {flow.lost}"] if flow.lost else [])]
    body: dict[str, Value] = {
        "state": "closed",
        "bytes": {"request": 0, "response": 0},
        "messages": 0,
        "completeness": {"verdict": "partial", "reasons": reasons},
    }
    return Record(Kind.CLOSE, flow.id, time_ns, None, body)


def witnessed(host: UUID, keys: list[str], time_ns: int) -> Record:
    """Give the host's marker for what was just written."""
    return Record(Kind.MARKER, host, time_ns, None, {"name": WITNESSED, "keys": keys})
