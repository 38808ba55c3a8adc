"""Entries of the decision log, checked: facts that a process without rights wrote, of which nothing is believed before.

What lives here: their types, and the way there from msgpack. What must not: files, what follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

import msgpack

from capd.recording.record import Value
from capd.recording.stream_digest import DIGEST_BYTES, KEY_NAME_BYTES, Said

TEXT_CHARACTERS_MAX: Final = 2_048
"""Of any text of an entry; the enforcer cuts at half of it."""
APPROVAL_FIELDS_MAX: Final = 16
OBLIGATIONS_MAX: Final = 1_024
ITEMS_MAX: Final = 1_024
"""Effects, or resources, of a statement; the enforcer writes fewer."""
HASH_BYTES: Final = 32
PORT_MAX: Final = 65_535
NS_MAX: Final = (1 << 63) - 1
COUNT_MAX: Final = (1 << 63) - 1

STATEMENT: Final = "statement"
ALLOW: Final = "allow"
DENY: Final = "deny"
HELD: Final = "held"
"""A person has to approve."""
BODY_WANTED: Final = "body_wanted"
"""Nothing is decided before the body is known."""
INSPECT: Final = "inspect"
"""TLS that no rule lets through unread: it is opened, and what is said in it is judged."""

Ends = tuple[str, int]
"""Address in text, and port."""
_Found = TypeVar("_Found")


class MalformedEntryError(Exception):
    """An entry is not of the form that docs/formats/decisions.md says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A connection was let in.

    Attributes:
        flow: id that the enforcer gave it.
        at_ns: wall time.
        run: of the socket that it came from.
        cookie: the kernel's number of that socket.
        client: its own end.
        destination: where it believes to be connected.
    """

    flow: UUID
    at_ns: int
    run: UUID
    cookie: int
    client: Ends
    destination: Ends


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """A connection was not let in."""

    at_ns: int
    client: Ends
    destination: Ends | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision, or what the proxy refused by itself.

    Attributes:
        flow: of which connection.
        at_ns: wall time.
        about: `http`, `tls`, `tcp`, `session`, `statement`; `held` of what waits for a person; `refused` of what no policy was
            asked about.
        outcome: ALLOW, DENY, HELD, or one after which another decision follows: BODY_WANTED, INSPECT.
        facts: what is recorded of it, as it is recorded.
        exchange: what the recorder's decoder numbers the request by; None: the order of requests tells.
        statement: whether it is about a statement.
        said: hash of its text; None: any may be it.
    """

    flow: UUID
    at_ns: int
    about: str
    outcome: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    exchange: int | None = None
    statement: bool = False
    said: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A connection ended.

    Attributes:
        flow: which.
        at_ns: wall time.
        received: bytes that came from the agent's socket; None: an earlier enforcer did not count.
        sent: bytes for it.
        ended: whether the agent said that this was all.
        said: what was said on it, without TLS; None: it was not digested.
    """

    flow: UUID
    at_ns: int
    received: int | None = None
    sent: int = 0
    ended: bool = False
    said: Said | None = None


Entry = Opened | TurnedAway | Decided | Closed


def parse(body: bytes) -> Entry | None:
    """Read an entry.

    Returns:
        None for a kind that a later enforcer writes.

    Raises:
        MalformedEntryError: it is none.
    """
    try:
        found = msgpack.unpackb(body, strict_map_key=True)
        if not isinstance(found, dict):
            raise MalformedEntryError("not a map")
        read = _KINDS.get(_text(found, "kind"))
        return None if read is None else read(found)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MalformedEntryError(str(error) or type(error).__name__) from error


def sequence_of(body: bytes) -> int:
    """Give the number of an entry among those of its process, from 1.

    Raises:
        MalformedEntryError: it has none.
    """
    try:
        found = msgpack.unpackb(body, strict_map_key=True)
        if not isinstance(found, dict):
            raise MalformedEntryError("not a map")
        return _integer(found, "sequence", COUNT_MAX)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MalformedEntryError(str(error) or type(error).__name__) from error


def _opened(entry: Mapping[str, object]) -> Opened:
    return Opened(
        flow=UUID(_text(entry, "session")),
        at_ns=_integer(entry, "at_ns", NS_MAX),
        run=UUID(_text(entry, "run")),
        cookie=_integer(entry, "cookie", (1 << 64) - 1),
        client=_ends(entry["client"]),
        destination=_ends(entry["destination"]),
    )


def _turned_away(entry: Mapping[str, object]) -> TurnedAway:
    to = entry.get("destination")
    return TurnedAway(
        at_ns=_integer(entry, "at_ns", NS_MAX),
        client=_ends(entry["client"]),
        destination=None if to is None else _ends(to),
        reason=_text(entry, "reason"),
    )


def _decision(entry: Mapping[str, object]) -> Decided:
    reason, allowed = _text(entry, "reason"), _boolean(entry, "allowed")
    about, number = _text(entry, "about"), _integer(entry, "number", COUNT_MAX)
    outcome = _outcome(about, reason, allowed=allowed, needs_body=_boolean(entry, "needs_body"))
    flow = UUID(_text(entry, "session"))
    facts: dict[str, Value] = {
        "decision": f"{flow}/{number}",
        "outcome": outcome,
        "about": about,
        "reason": reason,
        "rule": _text(entry, "rule"),
        "policy": _text(entry, "policy"),
        "protocol": _text(entry, "protocol"),
        "server_name": _optional(entry, "server_name", _text),
        "inspected": _boolean(entry, "inspected"),
        "at_ns": _integer(entry, "at_ns", NS_MAX),
    }
    if "approval" in entry:
        facts["approval"] = _approval(entry["approval"])
    if "obligations" in entry:
        facts["obligations"] = _obligations(entry["obligations"])
    if "method" in entry:
        facts |= {key: _text(entry, key) for key in ("method", "host")} | {"target_sha256": _hash(entry, "target_sha256")}
    if "database" in entry:
        facts |= {key: _optional(entry, key, _text) for key in ("database", "user")}
    statement = about == STATEMENT
    if statement:
        facts |= _said(entry)
    return Decided(
        flow=flow,
        at_ns=_integer(entry, "at_ns", NS_MAX),
        about=about,
        outcome=outcome,
        facts=facts,
        exchange=_exchange(entry),
        statement=statement,
        said=_optional(entry, "text_sha256", _hash) if statement else None,
    )


def _said(entry: Mapping[str, object]) -> dict[str, Value]:
    """Read what is told of a statement."""
    effects, resources = entry["effects"], entry["resources"]
    pairs = None if resources is None else [{"name": name, "access": access} for name, access in _list(resources)]
    return {
        "operation": _text(entry, "operation"),
        "effects": None if effects is None else [_text({"effect": one}, "effect") for one in _list(effects)],
        "resources": None if pairs is None else [[_text(one, "name"), _text(one, "access")] for one in pairs],
        "resources_count": _optional(entry, "resources_count", lambda found, key: _integer(found, key, COUNT_MAX)),
        "complete": _boolean(entry, "complete"),
        "content_sha256": _hash(entry, "content_sha256"),
    }


def _list(found: object) -> list[Any]:
    if not isinstance(found, list) or len(found) > ITEMS_MAX:
        raise MalformedEntryError("not a short list")
    return found


def _outcome(about: str, reason: str, *, allowed: bool, needs_body: bool) -> str:
    if needs_body:
        return BODY_WANTED
    if allowed:
        return ALLOW
    if about == "tls":
        return INSPECT
    return HELD if reason == "approval_needed" else DENY


def _approval(found: object) -> dict[str, Value]:
    if not isinstance(found, dict) or len(found) > APPROVAL_FIELDS_MAX:
        raise MalformedEntryError("approval: not a small map")
    return {key[:TEXT_CHARACTERS_MAX]: _text(found, key) for key in found if isinstance(key, str)}


def _obligations(found: object) -> dict[str, Value]:
    """Read names of rules, and pairs of a rule and a credential."""
    if not isinstance(found, dict):
        raise MalformedEntryError("obligations: not a map")
    rules, pairs = found["masks"], found["credentials"]
    if not isinstance(rules, list) or not isinstance(pairs, list) or len(rules) + len(pairs) > OBLIGATIONS_MAX:
        raise MalformedEntryError("obligations: not two short lists")
    put_in = [{"rule": pair[0], "credential": pair[1]} for pair in pairs if isinstance(pair, list)]
    return {
        "masks": [_text({"rule": rule}, "rule") for rule in rules],
        "credentials": [[_text(pair, "rule"), _text(pair, "credential")] for pair in put_in],
    }


def _held(entry: Mapping[str, object]) -> Decided:
    flow, at_ns = UUID(_text(entry, "session")), _integer(entry, "at_ns", NS_MAX)
    facts: dict[str, Value] = {
        "decision": f"{flow}/{_integer(entry, 'number', COUNT_MAX)}",
        "outcome": HELD,
        "about": "held",
        "reason": "waits for a person",
        "rule": "",
        "policy": "",
        "approval": {"id": _text(entry, "approval")},
        "at_ns": at_ns,
    }
    statement = "text_sha256" in entry
    return Decided(
        flow=flow,
        at_ns=at_ns,
        about="held",
        outcome=HELD,
        facts=facts,
        exchange=_exchange(entry),
        statement=statement,
        said=_optional(entry, "text_sha256", _hash) if statement else None,
    )


def _refused(entry: Mapping[str, object]) -> Decided:
    flow, at_ns = UUID(_text(entry, "session")), _integer(entry, "at_ns", NS_MAX)
    facts: dict[str, Value] = {
        "decision": f"{flow}/{_integer(entry, 'number', COUNT_MAX)}",
        "outcome": DENY,
        "about": "refused",
        "reason": _text(entry, "reason"),
        "rule": "",
        "policy": "",
        "at_ns": at_ns,
    }
    return Decided(flow=flow, at_ns=at_ns, about="refused", outcome=DENY, facts=facts)


def _closed(entry: Mapping[str, object]) -> Closed:
    flow, at_ns, agent = UUID(_text(entry, "session")), _integer(entry, "at_ns", NS_MAX), entry.get("agent")
    if agent is None:
        return Closed(flow=flow, at_ns=at_ns)
    if not isinstance(agent, dict):
        raise MalformedEntryError("agent: not a map")
    received, sent = _integer(agent, "received", COUNT_MAX), _integer(agent, "sent", COUNT_MAX)
    said = _digests(entry.get("said"))
    return Closed(flow=flow, at_ns=at_ns, received=received, sent=sent, ended=_boolean(agent, "ended"), said=said)


def _digests(found: object) -> Said | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise MalformedEntryError("said: not a map")
    (request_bytes, request), (response_bytes, response) = (_digest(found, side) for side in ("request", "response"))
    key = _octets(found, "key", KEY_NAME_BYTES)
    return Said(key=key, request_bytes=request_bytes, request=request, response_bytes=response_bytes, response=response)


def _digest(said: Mapping[str, object], side: str) -> tuple[int, bytes]:
    found = said[side]
    if not isinstance(found, list) or len(found) != len(("bytes", "digest")):
        raise MalformedEntryError("a digest is a number of bytes and 16 bytes")
    pair = {"bytes": found[0], "digest": found[1]}
    return _integer(pair, "bytes", COUNT_MAX), _octets(pair, "digest", DIGEST_BYTES)


_KINDS: Final[Mapping[str, Callable[[Mapping[str, object]], Entry]]] = {
    "open": _opened,
    "turned_away": _turned_away,
    "held": _held,
    "decision": _decision,
    "refused": _refused,
    "close": _closed,
}


def _text(entry: Mapping[str, object], key: str) -> str:
    found = entry[key]
    if not isinstance(found, str):
        raise MalformedEntryError(f"{key}: not a text")
    return found[:TEXT_CHARACTERS_MAX]


def _integer(entry: Mapping[str, object], key: str, most: int) -> int:
    found = entry[key]
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise MalformedEntryError(f"{key}: not a number from 0 to {most}")
    return found


def _boolean(entry: Mapping[str, object], key: str) -> bool:
    found = entry[key]
    if not isinstance(found, bool):
        raise MalformedEntryError(f"{key}: neither true nor false")
    return found


def _exchange(entry: Mapping[str, object]) -> int | None:
    return _integer(entry, "exchange", COUNT_MAX) if "exchange" in entry else None


def _hash(entry: Mapping[str, object], key: str) -> bytes:
    return _octets(entry, key, HASH_BYTES)


def _octets(entry: Mapping[str, object], key: str, size: int) -> bytes:
    found = entry[key]
    if not isinstance(found, bytes) or len(found) != size:
        raise MalformedEntryError(f"{key}: not {size} bytes")
    return found


def _ends(found: object) -> Ends:
    if not isinstance(found, list) or len(found) != len(("address", "port")):
        raise MalformedEntryError("an end is an address and a port")
    pair = {"address": found[0], "port": found[1]}
    return _text(pair, "address"), _integer(pair, "port", PORT_MAX)


def _optional(entry: Mapping[str, object], key: str, read: Callable[[Mapping[str, object], str], _Found]) -> _Found | None:
    return None if entry[key] is None else read(entry, key)
