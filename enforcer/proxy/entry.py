"""Entries of the decision log: facts of a connection as the recorder will read them (docs/formats/decisions.md).

What lives here: their shape. What must not: writing (enforcer/decision_log.py), payload: paths, queries, fields and bodies may
hold secrets, and masking is the recorder's; a request or statement is told by its hash, which the recorder has too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from capd.enforcer.decision_words import TEXT_CHARACTERS_MAX, said_sha256
from capd.enforcer.policy.protocol import REDIS
from capd.enforcer.proxy.commands import Exceed, Refused, Report
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Destination, Login, Question, Request, Verdict

Entry = dict[str, object]


@dataclass(slots=True)
class Heard:
    """What came from the agent's own socket.

    Attributes:
        count: bytes, as they were on the socket.
        ended: whether it said that this was all: then the agent sent no byte more.
    """

    count: int = 0
    ended: bool = False


RESOURCES_MAX: Final = 64
"""Of a statement; how many there are is told beside them."""


def opened_entry(session: str, agent: Agent, owner: Owner, *, client: tuple[str, int], to: Destination, at_ns: int) -> Entry:
    """Tell of a connection that was let in."""
    return {
        "kind": "open",
        "session": session,
        "at_ns": at_ns,
        "run": agent.run.id,
        "uid": owner.uid,
        "cgroup": owner.cgroup,
        "cookie": owner.cookie,
        "client": list(client),
        "destination": [to.address, to.port],
    }


def decision_entry(session: str, question: Question, verdict: Verdict, at_ns: int) -> Entry:
    """Tell of a decision."""
    return {
        "kind": "decision",
        "session": session,
        "at_ns": at_ns,
        "number": question.number,
        "about": question.kind.word,
        "protocol": question.protocol,
        "server_name": question.server_name,
        "inspected": question.inspected,
        **({} if question.request is None else _request(question.request)),
        **({} if question.login is None else _login(question.login)),
        **({} if question.statement is None else _statement(question)),
        **_exchange(question),
        "allowed": verdict.allowed,
        "needs_body": bool(verdict.body_bytes),
        "reason": verdict.reason,
        "rule": verdict.rule[:TEXT_CHARACTERS_MAX],
        "policy": verdict.policy,
        **({"approval": dict(verdict.approval)} if verdict.approval else {}),
        **({"obligations": verdict.obligations.to_entry()} if verdict.allowed and verdict.obligations else {}),
    }


def held_entry(session: str, question: Question, approval: str, at_ns: int) -> Entry:
    """Tell that a message waits for a person."""
    told: Entry = {"kind": "held", "session": session, "at_ns": at_ns, "number": question.number, "approval": approval}
    said = {} if question.statement is None else {"text_sha256": said_sha256(question.statement.text)}
    return told | _exchange(question) | said


def refused_entry(session: str, refused: Refused, at_ns: int) -> Entry:
    """Tell of what the proxy refused, or ended, by itself."""
    reason = refused.reason[:TEXT_CHARACTERS_MAX]
    return {"kind": "refused", "session": session, "at_ns": at_ns, "number": refused.number, "reason": reason}


def report_entry(session: str, report: Report, at_ns: int) -> Entry:
    """Tell what was done to an answer: how many places, by rule and by credential."""
    done = report.carried_out
    told = {"masked": dict(done.masked), "reflected": dict(done.reflected)}
    return {"kind": "carried_out", "session": session, "at_ns": at_ns, "number": report.number, **told}


def exceeded_entry(session: str, exceed: Exceed, at_ns: int) -> Entry:
    """Tell that a limit was reached; of exports that is all that follows."""
    found = exceed.exceeded
    told = {"rule": found.rule, "limit": found.limit, "most": found.most, "counted": found.counted}
    return {"kind": "exceeded", "session": session, "at_ns": at_ns, "number": exceed.number, **told}


def unsent_entry(session: str, number: int, at_ns: int) -> Entry:
    """Tell that nothing was sent under a decision that allowed it."""
    return {"kind": "unsent", "session": session, "at_ns": at_ns, "number": number}


def closed_entry(session: str, sent: Mapping[Side, int], heard: Heard, at_ns: int, said: Entry | None = None) -> Entry:
    """Tell of a connection's end: what was sent either way, what the agent's own socket must have moved, and what was said."""
    to_target, to_agent = sent[Side.UPSTREAM], sent[Side.CLIENT]
    return {
        "kind": "close",
        "session": session,
        "at_ns": at_ns,
        "bytes": {"request": to_target, "response": to_agent},
        "agent": {"received": heard.count, "sent": to_agent, "ended": heard.ended},
        "said": said,
    }


def turned_away_entry(reason: str, *, client: tuple[str, int], to: tuple[str, int] | None, at_ns: int) -> Entry:
    """Tell of a connection that was not let in: nothing of it went on."""
    where = None if to is None else list(to)
    return {"kind": "turned_away", "at_ns": at_ns, "client": list(client), "destination": where, "reason": reason}


def _exchange(question: Question) -> Entry:
    return {} if question.exchange is None else {"exchange": question.exchange}


def _login(login: Login) -> Entry:
    return {
        "database": None if login.database is None else login.database[:TEXT_CHARACTERS_MAX],
        "user": None if login.user is None else login.user[:TEXT_CHARACTERS_MAX],
    }


def _statement(question: Question) -> Entry:
    statement = question.statement
    assert statement is not None
    # Keys of Redis are data: a session's token is often one.
    named = statement.resources is not None and question.protocol != REDIS
    resources = (statement.resources or ()) if named else ()
    return {
        "operation": statement.operation[:TEXT_CHARACTERS_MAX],
        "effects": None if statement.effects is None else sorted(statement.effects),
        "resources": [[name[:TEXT_CHARACTERS_MAX], access] for name, access in resources[:RESOURCES_MAX]] if named else None,
        "resources_count": None if statement.resources is None else len(statement.resources),
        "complete": not statement.problems,
        "content_sha256": sha256(statement.content).digest(),
        "text_sha256": said_sha256(statement.text),
    }


def _request(request: Request) -> Entry:
    target = request.path if request.query is None else f"{request.path}?{request.query}"
    return {
        "method": request.method[:TEXT_CHARACTERS_MAX],
        "host": request.host,
        "target_sha256": sha256(target.encode("latin-1")).digest(),
    }
