"""What a proxy asks of the desk, and what it is told, as both go over their socket.

What lives here: the two values, and their form: a length of four bytes, big-endian, then msgpack. What must not: sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgpack

from capd.enforcer.approvals import limits
from capd.enforcer.approvals.action_hash import Bound
from capd.enforcer.approvals.request import Demand
from capd.enforcer.policy.rule import ApprovalScope

MESSAGE_BYTES_MAX: Final = limits.BODY_BYTES_MAX + 4 * limits.SHOWN_BYTES_MAX
"""A body, facts, and as much again for header fields."""
LENGTH_BYTES: Final = 4


class Outcome(StrEnum):
    """What becomes of a hold."""

    WAITING = "waiting"
    """It waits for a person; another answer will follow. All others are the last."""
    APPROVED = "approved"
    """It may go, this once, and that is written down."""
    PENDING = "pending"
    """It still waits for a person; the client is to come again."""
    DENIED = "denied"
    EXPIRED = "expired"
    POLICY_CHANGED = "policy_changed"
    """It is to be judged anew."""
    TOO_MANY = "too_many"
    """Nobody was asked."""
    UNAVAILABLE = "unavailable"
    """Nobody could be asked, or nothing be written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An action that a rule wants approved.

    Attributes:
        bound: what the approval is bound to.
        body: all of what `bound.body_sha256` is over.
        is_json: whether the body says that it is JSON.
        likeness: of a statement, what those of its shape have in common; None: there is none.
        hold_seconds: how long its client can wait.
        ttl_seconds, scope, demands: as the rules say.
        shown: facts for the person, which stay in the store.
        exact: those of them in which secrets were masked, as they are: for the person, while it waits.
    """

    bound: Bound
    body: bytes
    is_json: bool
    hold_seconds: int
    ttl_seconds: int
    scope: ApprovalScope
    demands: tuple[Demand, ...]
    likeness: bytes | None = None
    shown: Mapping[str, object] = field(default_factory=dict)
    exact: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of it.

    Attributes:
        outcome: what.
        id: of the request; "" when there is none.
        by: who denied or approved it, by name.
        reason: in words; of DENIED the person's.
        via: how those spoke who did not come to the socket of approvals, in words (listing.py).
    """

    outcome: Outcome
    id: str = ""
    by: str = ""
    reason: str = ""
    via: str = ""


def packed(message: Mapping[str, object]) -> bytes:
    """Give a message as it is sent."""
    content: bytes = msgpack.packb(message)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def hold_message(hold: Hold) -> dict[str, object]:
    """Give a hold as a message."""
    return {"verb": "hold", **asdict(hold)}


def read_hold(found: Mapping[str, Any]) -> Hold:
    """Read a hold.

    Raises:
        ValueError, KeyError, TypeError: it is none: a defect of ours.
    """
    bound = found["bound"]
    pairs = {name: tuple((str(key), str(value)) for key, value in bound[name]) for name in ("fields", "trailers")}
    principal = None if bound["principal"] is None else tuple(bound["principal"])
    return Hold(
        bound=Bound(**{**bound, **pairs, "aliases": tuple(bound["aliases"]), "principal": principal}),
        body=bytes(found["body"]),
        is_json=found["is_json"] is True,
        hold_seconds=int(found["hold_seconds"]),
        ttl_seconds=int(found["ttl_seconds"]),
        scope=ApprovalScope(found["scope"]),
        demands=tuple(Demand(**{**one, "groups": tuple(one["groups"])}) for one in found["demands"]),
        likeness=None if found["likeness"] is None else bytes(found["likeness"]),
        shown=dict(found["shown"]),
        exact=dict(found.get("exact") or {}),
    )


def answer_message(answer: Answer) -> dict[str, object]:
    """Give an answer as a message."""
    return asdict(answer)


def read_answer(found: Mapping[str, Any]) -> Answer:
    """Read an answer.

    Raises:
        ValueError, KeyError, TypeError: it is none: a defect of ours.
    """
    return Answer(**{**found, "outcome": Outcome(found["outcome"])})
