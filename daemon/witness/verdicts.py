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
PROBES_MISSED: Final = "unseen flow: the enforcer told of this connection, and no probe saw it"


LEFT_OUT: Final = {
    "metadata": frozenset({"target_sha256"}),
    "off": frozenset({"target_sha256", "method", "host", "server_name"}),
}
"""By recording level: of a decision, what tells of what was said. A hash of a short path is as good as the path."""


def verdict(session: UUID, flow: Flow, pending: Pending, time_ns: int, level: str = "") -> Record:
    """Give the record of a decision, in a session of a recording level."""
    hidden = LEFT_OUT.get(level, frozenset())
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
