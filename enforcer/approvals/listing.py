"""Requests as persons and programs get them (docs/json.md).

What lives here: the public form. What must not: printing, files.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.approvals.moment import NS_PER_SECOND, Moment
from capd.enforcer.approvals.request import Demand, Person, Request
from capd.enforcer.approvals.state import State


def to_json(
    request: Request,
    now: Moment,
    *,
    clients: int = 0,
    body: bytes | None = None,
    head_bytes: int = BODY_BYTES_MAX,
    exact: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Give the public form of a request.

    Args:
        request: which.
        now: the time.
        clients: how many wait for it.
        body: all of its body; None: it is not there any more.
        head_bytes: how much of it is given.
        exact: facts as they are, in the place of those with secrets masked.
    """
    asked = request.asked
    over = request.open and request.deadline.over(now)
    return {
        "id": asked.id,
        "state": (State.EXPIRED if over else request.state).value,
        "asked_ns": asked.since.wall_ns,
        "changed_ns": request.changed.wall_ns,
        "expires_ns": request.deadline.wall_ns if request.open else None,
        "seconds_left": round(request.deadline.left_ns(now) / NS_PER_SECOND, 1) if request.open else None,
        "clients": clients,
        "fingerprint": asked.fingerprint.hex(),
        "scope": asked.scope.value,
        "approved_for": request.scope.value if request.votes else None,
        "ttl_seconds": asked.ttl_seconds,
        "demands": [_demand(request, one) for one in asked.demands],
        "approved_by": [vote.person.name for vote in request.votes],
        "denied_by": None if request.by is None else request.by.name,
        "channels": channels(request),
        "reason": request.reason,
        "run": {"id": asked.run, "uid": asked.uid},
        "principal": None if asked.principal is None else {"kind": asked.principal[0], "name": asked.principal[1]},
        "policy": asked.policy,
        **asked.shown,
        **(exact or {}),
        "body": None if body is None else b64encode(body[:head_bytes]).decode("ascii"),
    }


def channels(request: Request) -> list[Mapping[str, str]]:
    """Give how those spoke who did not come to the socket of approvals."""
    return [found for person in request.spoken() if (found := _channel(person)) is not None]


def via(request: Request) -> str:
    """Give the same in words, such as `ann: webhook oncall, link 0123456789abcdef`; "" when there is nothing to tell."""
    return "; ".join(
        f"{one['by']}: webhook {one['webhook']}, link {one['link']}" + (f", user {one['user']}" if one["user"] else "")
        for one in channels(request)
    )


def _channel(person: Person) -> Mapping[str, str] | None:
    return None if person.channel is None else {"by": person.name, **asdict(person.channel)}


def _demand(request: Request, demand: Demand) -> dict[str, object]:
    return {"rule": demand.rule, "quorum": demand.quorum, "groups": list(demand.groups), "yeses": request.yeses(demand)}
