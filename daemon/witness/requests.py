"""Request by request: what the probes recorded of a connection, held against what the enforcer decided about it. Pure rules.

What lives here: reading a request, pairing, the words of what is wrong. What must not: records' form, when it is looked at.

In HTTP/1 both have the order in which requests were sent (RFC 9112 9.3.2), and the enforcer reads one only when the one before
was answered; streams of HTTP/2 have numbers. The enforcer writes down path and query by their hash, in the form in which it
sends them on, so both sides are brought into that form here.

What is no disagreement: a request without an answer may never have been read, since what a client sends behind a last answer,
or leaves behind when it goes, is not. After the proxy refused something by itself its client is told so and the connection
ends; in HTTP/2 a stream does. Where bytes are missing in the recording, or a decision is about a whole connection, nothing is
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from capd.daemon.assembly.naming import host_of
from capd.daemon.witness.matching import AGE_NS
from capd.daemon.witness.state import Asked, Flow, Ruled, Seen
from capd.enforcer.decision_words import TEXT_CHARACTERS_MAX
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.proxy.http1.target import TargetError, read_target
from capd.recording.record import Value

PROTOCOLS: Final = ("http1", "http2")
"""Whose requests are decided one by one, as decoders call them."""
WAITING_MAX: Final = 256
"""Requests, or decisions, of one connection that wait for the other; clients that pipeline, and streams, stop below."""
TOO_MANY: Final = "too many requests waited for a decision"
INCOMPLETE: Final = "a part of what the agent sent was not captured"


def read_request(body: Mapping[str, Value]) -> Asked | None:
    """Give the request of a message's record; None: it is none that the enforcer decides about."""
    fields, exchange = body.get("fields"), body.get("exchange")
    if body.get("type") != "request" or body.get("protocol") not in PROTOCOLS or body.get("incomplete") is not None:
        return None
    if not isinstance(fields, Mapping) or not isinstance(exchange, int):
        return None
    method, target = fields.get("method"), fields.get("target")
    if not isinstance(method, str):
        return None
    return Asked(
        exchange=exchange,
        method=method[:TEXT_CHARACTERS_MAX],
        host=_host(fields.get("host")),
        target_sha256=_hash(method, target) if isinstance(target, str) else None,
    )


def answers(body: Mapping[str, Value]) -> int | None:
    """Give the exchange whose last answer a message's record begins; None: it begins none."""
    fields, exchange = body.get("fields"), body.get("exchange")
    last = body.get("type") == "response" and not (isinstance(fields, Mapping) and fields.get("interim") is True)
    return exchange if last and isinstance(exchange, int) else None


def pair(seen: Seen, flow: Flow) -> str | None:
    """Take what belongs together out of both; say what is wrong with a pair."""
    left: list[Ruled] = []
    wrong = None
    for ruled in flow.ruled:
        asked = _asked_for(seen, ruled) if not left or ruled.exchange is not None else None
        if asked is None:
            left.append(ruled)
            continue
        seen.asked.remove(asked)
        wrong = wrong or _difference(asked, ruled)
    flow.ruled = left
    return wrong


def undecided(seen: Seen, flow: Flow, *, heard_ns: int) -> str | None:
    """Say which request was answered without a decision; None: none, or not yet.

    Args:
        seen: a connection, paired with its flow.
        flow: the same, as the enforcer tells.
        heard_ns: wall time up to which all that the enforcer wrote was read.
    """
    if flow.relayed or flow.lost:
        return None
    answered = [one for one in seen.asked if one.answered_ns is not None]
    if len(answered) <= flow.refusals:
        return None
    first = answered[flow.refusals]
    if heard_ns < (first.answered_ns or 0) + AGE_NS:
        return None
    return f"undecided request: number {first.exchange} was answered, and the enforcer has no decision about it"


def unseen(flow: Flow) -> str:
    """Say how many decisions of a connection that is over are about requests that the probes did not see."""
    return f"unseen request: {len(flow.ruled)} decisions are about requests that no probe saw the agent send"


def _asked_for(seen: Seen, ruled: Ruled) -> Asked | None:
    if ruled.exchange is None:
        return seen.asked[0] if seen.asked else None
    return next((asked for asked in seen.asked if asked.exchange == ruled.exchange), None)


def _difference(asked: Asked, ruled: Ruled) -> str | None:
    names: dict[str, tuple[object, object]] = {
        "method": (asked.method, ruled.method),
        "host": (asked.host, ruled.host),
        "path": (asked.target_sha256, ruled.target_sha256),
    }
    wrong = [name for name, (sent, decided) in names.items() if sent is not None and sent != decided]
    if not wrong:
        return None
    return f"request differs: what the enforcer decided about number {asked.exchange} has another {' and '.join(wrong)}"


def _host(value: Value) -> str | None:
    found = host_of(value) if isinstance(value, str) else None
    try:
        return None if found is None else normal_host(found)
    except HostNameError:
        return None


def _hash(method: str, text: str) -> bytes | None:
    try:
        return sha256(read_target(method, text).origin_form.encode("latin-1")).digest()
    except (TargetError, UnicodeEncodeError):
        return None
