"""What an approval is bound to: every byte that decides what an action does, and who does it, in one order.

What lives here: the canonical form (docs/approvals.md has it byte by byte), the fingerprint over it, the shape. What must not:
how a protocol's message comes to be one of these.

The form is injective: every text stands behind its length, every list behind its count, and what is absent differs from what is
empty. The fingerprint is keyed with a key of this host that never leaves it, because an action may hold a weak password in a
header field, and fingerprints go where recordings go: without the key nobody can try passwords against one.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, TypeVar

KEY_BYTES: Final = 32
ACTION: Final = b"capd-action-2\n"
SHAPE: Final = b"capd-shape-2\n"
_ABSENT: Final = b"\xff\xff\xff\xff"
LENGTH_MAX: Final = 0xFFFFFFFE
VARYING: Final = frozenset(
    {
        "b3",
        "baggage",
        "date",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-amzn-trace-id",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-request-id",
        "x-stainless-retry-count",
    }
)
"""Header fields that clients make anew for each attempt and by which no server chooses what to do. All others are bound."""
_NUMBERS: Final = re.compile(rb"(?<==)[0-9]+(?=&|\Z)")

_One = TypeVar("_One")
Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An action as an approval is bound to it. Text is what will be sent, as Latin-1 where bytes were given.

    Attributes:
        principal: kind, name, and "verified" or "unverified"; None where it is not known.
        run: id of the run; None where it is not known.
        uid: of the process that speaks; None where it is not known.
        host, aliases, port, address, tls: of the target.
        protocol, operation: as the policy has them.
        database, user: of the session of a database; None where there is none, or it is not known.
        path, query: as they will be sent; None: there is none.
        upgrade: the protocol that it wants to change to, or None.
        fields, trailers: header fields in their order, names in any case; those in VARYING do not count.
        body_sha256: over the body, or over all of a statement that decides what it does.
        policy: version of the policy that wants the approval.
    """

    principal: tuple[str, str, str] | None
    run: str | None
    uid: int | None
    host: str
    aliases: tuple[str, ...] = ()
    port: int
    address: str | None
    tls: str
    protocol: str
    operation: str
    database: str | None = None
    user: str | None = None
    path: str | None = None
    query: str | None = None
    upgrade: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    body_sha256: bytes
    policy: str


def canonical(bound: Bound) -> bytes:
    """Give the bytes that the fingerprint is taken over."""
    principal = [None, None, None] if bound.principal is None else list(bound.principal)
    return b"".join(
        (
            ACTION,
            *map(_text, principal),
            _text(bound.run),
            _text(None if bound.uid is None else str(bound.uid)),
            _text(bound.host),
            _list(bound.aliases, _text),
            _text(str(bound.port)),
            _text(bound.address),
            _text(bound.tls),
            _text(bound.protocol),
            _text(bound.operation),
            _text(bound.database),
            _text(bound.user),
            _text(bound.path),
            _text(bound.query),
            _text(bound.upgrade),
            _fields(bound.fields),
            _fields(bound.trailers),
            _bytes(bound.body_sha256),
            _text(bound.policy),
        )
    )


def fingerprint(key: bytes, bound: Bound) -> bytes:
    """Give HMAC-SHA-256 (RFC 2104) over the canonical form.

    Args:
        key: of this host, KEY_BYTES.
        bound: what is bound.
    """
    return hmac.digest(key, canonical(bound), "sha256")


def shape(key: bytes, bound: Bound, body: bytes, *, is_json: bool, likeness: bytes | None = None) -> bytes:
    """Give the fingerprint of the action but for numbers: those in JSON, and values of the query that are digits alone.

    Strings stay, for in too many APIs a string says what is done. What a statement of a database does stands in its likeness,
    in which nothing but its literals is left out.

    Args:
        key: of this host.
        bound: what is bound.
        body: all of it.
        is_json: whether it says that it is JSON.
        likeness: of a statement, what those of its shape have in common; None: it has no shape, or is none.
    """
    if likeness is not None:
        alike = replace(bound, body_sha256=sha256(b"?" + likeness).digest())
        return hmac.digest(key, SHAPE + canonical(alike), "sha256")
    skeleton = _skeleton(body) if is_json else None
    alike = replace(
        bound,
        query=None if bound.query is None else _NUMBERS.sub(b"0", bound.query.encode("latin-1")).decode("latin-1"),
        body_sha256=sha256((b"=" + body) if skeleton is None else (b"~" + skeleton)).digest(),
    )
    return hmac.digest(key, SHAPE + canonical(alike), "sha256")


def _skeleton(body: bytes) -> bytes | None:
    """Give JSON without its numbers; members keep their order, and one that is there twice is so here; None: it is no JSON."""
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=lambda pairs: {"members": [list(pair) for pair in pairs]},
            parse_int=_number,
            parse_float=_number,
            parse_constant=_refuse,
        )
        return json.dumps(found, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError):
        return None


def _number(_digits: str) -> dict[str, str]:
    """Give what stands for every number; no value of JSON looks like it, since objects have `members`."""
    return {"number": ""}


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _bytes(value: bytes) -> bytes:
    assert len(value) <= LENGTH_MAX
    return len(value).to_bytes(4, "big") + value


def _text(value: str | None) -> bytes:
    # surrogatepass: whatever text there is has bytes, and different text has different ones.
    return _ABSENT if value is None else _bytes(value.encode("utf-8", "surrogatepass"))


def _list(values: Sequence[_One], written: Callable[[_One], bytes]) -> bytes:
    return len(values).to_bytes(4, "big") + b"".join(map(written, values))


def _fields(fields: Fields) -> bytes:
    kept = [(name.lower(), value) for name, value in fields if name.lower() not in VARYING]
    return _list(kept, lambda pair: _text(pair[0]) + _text(pair[1]))
