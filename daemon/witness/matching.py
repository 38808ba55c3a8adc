"""Which connection of the enforcer is which connection of the probes, and whether they say the same of it: pure rules.

What lives here: the rules, each from facts to an answer. What must not: records, what is remembered.

The enforcer asks the kernel for the agent's own socket and writes its cookie down, which is what the probes know it by; no
socket of one boot has the cookie of another. Where a side has none (the probes' classic tier; connections that were turned
away) its two ends stand for it: the agent's address and port, and the destination that it wrote, before the redirection. A port
is used again, so of several the one counts that had begun last when the enforcer accepted. The run must be the same anyway.

Bytes are compared on the agent's own socket, as they were on it, ciphertext included: what the enforcer read from its end of
that very connection, and what it wrote into it. What it says to the target is another connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from capd.daemon.masking.levels import Level
from capd.daemon.witness.state import Away, Flow, Seen
from capd.recording.stream_digest import Said

SKEW_NS: Final = 100_000_000
"""How much earlier than the probes' event the enforcer may seem to have accepted: two clocks read in two processes."""
_SAID: Final = "what the agent said is not what the enforcer read"
_HEARD: Final = "what the agent read is not what the enforcer said"
NOT_OPENED: Final = "the run was not seen to open it"
"""Of a connection that it did not accept either: one that another process opened and passed on, or one of before capture."""
PATIENCE_NS: Final = 2_000_000_000
"""How long a decision waits for its message where level `metadata` keeps that out of the recording."""
LONG_PATIENCE_NS: Final = 60_000_000_000
"""The same where messages are recorded: one that is late, on a host with no time for capd, still comes before its verdict."""
AGE_NS: Final = 5_000_000_000
"""How long one witness may be behind the other: the enforcer writes before it forwards, the recorder reads after a tenth of a
second. A worker that is too busy for so long has its connections turned away or cut, which is told as well."""
FAREWELL_NS: Final = 600_000_000_000
"""How long the enforcer may keep a connection that the agent has closed: twice what it does itself."""
QUEUE_NS: Final = 60_000_000_000
"""How long a connection on which the agent heard nothing may wait in the kernel's queue for an enforcer that is started anew:
2 s, and more than 5 where packages are set up at the same time. An agent that gets no answer waits about as long."""


def same(flow: Flow, seen: Seen) -> bool:
    """Say whether two witnesses may speak of one connection."""
    if seen.run is not None and seen.run != flow.run:
        return False
    if seen.cookie is not None and seen.cookie != flow.cookie:
        return False
    if seen.cookie is None and (seen.local is None or seen.target is None):
        return False
    begun = seen.incomparable is not None or seen.started_ns <= flow.opened_ns + SKEW_NS
    return begun and _ends_agree(flow.client, flow.destination, seen)


def turned_away(away: Away, seen: Seen) -> bool:
    """Say whether a connection may be the one that was not let in."""
    if away.destination is None or seen.local is None or seen.target is None:
        return False
    return _ends_agree(away.client, away.destination, seen) and seen.started_ns <= away.at_ns + SKEW_NS


def latest(found: Iterable[Seen]) -> Seen | None:
    """Give the one that began last: the port of one that is over was free to be used again."""
    return max(found, key=lambda seen: seen.started_ns, default=None)


def undecided(seen: Seen, *, heard_ns: int, since_ns: int) -> str | None:
    """Say what is wrong with a connection of which the enforcer has not told; None: nothing, or not yet.

    Args:
        seen: one that should have gone through the enforcer.
        heard_ns: wall time up to which all that the enforcer wrote was read.
        since_ns: wall time since when runs are forced through it.
    """
    known = seen.flow is not None or seen.turned_away
    if known or not seen.spoke or not _forced(seen, since_ns=since_ns):
        return None
    if heard_ns < (seen.started_ns if seen.closed_ns is None else seen.closed_ns) + telling_ns(seen):
        return None
    if seen.incomparable == NOT_OPENED:
        return f"undecided flow: bytes moved on this connection, {NOT_OPENED}, and the enforcer has no decision about it"
    return "undecided flow: bytes moved on this connection, and the enforcer has no decision about it"


def hides(seen: Seen, *, since_ns: int) -> bool:
    """Say whether something may stay unknown if a connection is looked at no more.

    That is so of all that are open, of those that both told of and that were not compared, and where something was said.
    """
    looked_at = seen.turned_away or bool(seen.alarms)
    return (
        not looked_at and _forced(seen, since_ns=since_ns) and (seen.closed_ns is None or seen.flow is not None or seen.spoke)
    )


def _forced(seen: Seen, *, since_ns: int) -> bool:
    """Say whether the enforcer should have told of it: all of it was seen, since runs are forced."""
    return seen.incomparable in {None, NOT_OPENED} and seen.started_ns >= since_ns


def telling_ns(seen: Seen) -> int:
    """Give how long after a connection's start, or its end, the enforcer may still have to tell of it.

    The enforcer keeps its listeners over a restart, so an agent may have connected and spoken to a queue that nobody reads yet.
    Nobody answers out of a queue: where the agent heard something, somebody was there.
    """
    return AGE_NS if seen.heard else QUEUE_NS


def unseen(flow: Flow, *, seen_ns: int) -> bool:
    """Say whether the probes should have told of a connection by now: `seen_ns` is up to when all of theirs was read."""
    return flow.session is None and seen_ns >= flow.opened_ns + AGE_NS


def moved(seen: Seen) -> tuple[int, int] | None:
    """Give the bytes that moved on the agent's socket, by the probes and the kernel; None: nobody counted all of them."""
    counted = (seen.close or {}).get("socket_bytes")
    if not isinstance(counted, dict):
        return None
    request, response = counted.get("request"), counted.get("response")
    return (request, response) if isinstance(request, int) and isinstance(response, int) else None


def incomparable(seen: Seen, flow: Flow) -> str | None:
    """Say why the bytes of a connection that is over cannot be compared; None: they can."""
    if seen.incomparable is not None:
        return seen.incomparable
    if flow.received is None:
        return "the enforcer did not count them"
    return "the probes did not count all of them" if moved(seen) is None else None


def differing(seen: Seen, flow: Flow) -> str | None:
    """Compare the bytes of a connection that is over on both sides; None: both say the same.

    The enforcer cannot have read what the agent did not send, nor the agent what the enforcer did not send. When the agent said
    that it had sent all, the enforcer has read all of it. Else one of them left before the other had read everything.
    """
    counted = moved(seen)
    if counted is None or flow.received is None:
        return None
    request, response = counted
    if flow.received > request or (flow.ended and flow.received < request):
        return f"bytes differ: the agent sent {request} bytes, the enforcer read {flow.received} of this connection"
    if response > flow.sent:
        return f"bytes differ: the agent read {response} bytes, the enforcer sent {flow.sent} into this connection"
    return _hidden(seen, flow) or _unlike(seen.said, flow.said)


def digested(seen: Seen, flow: Flow) -> bool:
    """Say whether what was said on a connection that is over can be compared by its content, in a direction at least."""
    return bool(_comparable(seen.said, flow.said))


def _hidden(seen: Seen, flow: Flow) -> str | None:
    """Say whether the enforcer read what no probe saw, though nothing is known to be missing.

    The kernel counts ciphertext, so what is said inside TLS by other means than a library's calls is in no such count. Where
    capd opened TLS the enforcer counts what is inside; else all that it read.
    """
    ours, theirs = seen.said, flow.said
    if ours is None or theirs is None or ours.request is None or theirs.request_bytes == flow.received:
        return None
    told = (seen.close or {}).get("completeness")
    if not isinstance(told, dict) or told.get("verdict") != "complete" or theirs.request_bytes <= ours.request_bytes:
        return None
    return (
        f"bytes differ: in TLS the agent was seen to say {ours.request_bytes} bytes, the enforcer read {theirs.request_bytes}"
    )


def _unlike(seen: Said | None, told: Said | None) -> str | None:
    """Compare what was said by its content."""
    unlike = (whose for ours, theirs, whose in _comparable(seen, told) if ours != theirs)
    return next((f"bytes differ: {whose}, though it is as long" for whose in unlike), None)


def _comparable(seen: Said | None, told: Said | None) -> list[tuple[bytes, bytes, str]]:
    """Give the directions of which both have as much, of all of it: else one left before it had read everything."""
    if seen is None or told is None or seen.key != told.key:
        return []
    directions = (
        (seen.request_bytes, told.request_bytes, seen.request, told.request, _SAID),
        (seen.response_bytes, told.response_bytes, seen.response, told.response, _HEARD),
    )
    return [
        (ours, theirs, whose)
        for count, other, ours, theirs, whose in directions
        if count == other and count and ours is not None and theirs is not None
    ]


def _ends_agree(client: tuple[str, int], destination: tuple[str, int], seen: Seen) -> bool:
    return seen.local in (None, client) and seen.target in (None, destination)


def patience_ns(level: str) -> int:
    """Give how long a decision of a session of a recording level waits for its message."""
    return PATIENCE_NS if level == Level.METADATA.word else LONG_PATIENCE_NS
