"""Entries of the store: what happened to requests, one after the other.

What lives here: their form (docs/approvals.md), both ways, and what each does to the requests. What must not: deciding, files.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, cast

from capd.enforcer.approvals.moment import Moment
from capd.enforcer.approvals.request import Asked, Channel, Demand, Person, Request, Vote
from capd.enforcer.approvals.state import Change, State, after
from capd.enforcer.policy.rule import ApprovalScope

ASK: Final = "ask"
VOTE: Final = "vote"
TELL: Final = "tell"
KEEP: Final = "keep"
"""A whole request, as it stands: so a store is written anew."""

Entry = dict[str, Any]
Requests = MutableMapping[str, Request]


def ask_entry(asked: Asked) -> Entry:
    """Tell of a new request."""
    return {"kind": ASK, "asked": _plain(asked)}


def vote_entry(request: str, vote: Vote) -> Entry:
    """Tell of a yes."""
    return {"kind": VOTE, "id": request, "vote": _plain(vote)}


def tell_entry(request: str) -> Entry:
    """Tell that a client was told to come again."""
    return {"kind": TELL, "id": request}


def change_entry(request: str, change: Change, at: Moment, *, by: Person | None = None, reason: str = "") -> Entry:
    """Tell of a change of state."""
    person = None if by is None else _plain(by)
    return {"kind": change.value, "id": request, "at": _plain(at), "by": person, "reason": reason}


def keep_entry(request: Request) -> Entry:
    """Tell of a request as it stands."""
    return {"kind": KEEP, "request": _plain(request)}


def apply_entry(requests: Requests, entry: Mapping[str, Any]) -> None:
    """Do to the requests what an entry tells of.

    Raises:
        ValueError, KeyError, TypeError: it is no entry, or tells of what cannot happen.
    """
    kind = entry["kind"]
    if kind == ASK:
        asked = _asked(entry["asked"])
        if asked.id in requests:
            raise ValueError(f"request {asked.id} was asked before")
        requests[asked.id] = Request(asked=asked, changed=asked.since)
    elif kind == KEEP:
        request = _request(entry["request"])
        requests[request.id] = request
    else:
        request = requests[entry["id"]]
        requests[request.id] = _changed(request, kind, entry)


def _changed(request: Request, kind: str, entry: Mapping[str, Any]) -> Request:
    if kind == VOTE:
        return replace(request, votes=(*request.votes, _vote(entry["vote"])))
    if kind == TELL:
        return replace(request, told=True)
    state = after(request.state, Change(kind))
    if state is None:
        raise ValueError(f"{kind} cannot happen to a request that is {request.state}")
    by = None if entry["by"] is None else _person(entry["by"])
    return replace(request, state=state, changed=_moment(entry["at"]), by=by, reason=str(entry["reason"]))


def _plain(value: Asked | Vote | Moment | Person | Request) -> object:
    return asdict(value)


def _moment(found: Mapping[str, Any]) -> Moment:
    return Moment(wall_ns=int(found["wall_ns"]), boot_ns=int(found["boot_ns"]), boot=str(found["boot"]))


def _person(found: Mapping[str, Any]) -> Person:
    channel = found.get("channel")  # not in what was written before there were any
    return Person(**{**found, "groups": tuple(found["groups"]), "channel": None if channel is None else Channel(**channel)})


def _vote(found: Mapping[str, Any]) -> Vote:
    return Vote(person=_person(found["person"]), scope=ApprovalScope(found["scope"]), at=_moment(found["at"]))


def _asked(found: Mapping[str, Any]) -> Asked:
    principal = found["principal"]
    demands = cast("Sequence[Mapping[str, Any]]", found["demands"])
    return Asked(
        **{
            **found,
            "since": _moment(found["since"]),
            "scope": ApprovalScope(found["scope"]),
            "demands": tuple(Demand(**{**one, "groups": tuple(one["groups"])}) for one in demands),
            "principal": None if principal is None else (str(principal[0]), str(principal[1])),
        }
    )


def _request(found: Mapping[str, Any]) -> Request:
    by = found["by"]
    return Request(
        **{
            **found,
            "asked": _asked(found["asked"]),
            "state": State(found["state"]),
            "votes": tuple(_vote(one) for one in found["votes"]),
            "changed": _moment(found["changed"]),
            "by": None if by is None else _person(by),
        }
    )
