"""The judge: a question of the proxy as an action of the policy, its decision as a verdict.

What lives here: the translation, both ways. What must not: rules, protocols, I/O.

What cannot be carried out is not allowed: an approval of a connection, whose client nobody could tell of it, a mask or a
credential that whoever asks does not put in. A body is asked for only when the policy would not let the request pass whatever
is in it, and has rules that look or wants a person to; and when a signature is over it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from capd.enforcer.obligations.feasibility import problem_of, signs_body
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.policy.action import CONNECT, Action, Address, Principal, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.decision import Decision, Outcome
from capd.enforcer.policy.http_request import RequestHead, http_action
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import HTTP, NAME_BOUND, TCP, TLS, WEBSOCKET
from capd.enforcer.proxy.held import hold_of, too_long
from capd.enforcer.proxy.question import Body, Kind, Question, Request, Verdict

ADDRESSES_MAX: Final = 4_096
"""Remembered in the form in which policies have them: reading one takes longer than judging."""
BODY_BYTES_MAX: Final = 1 << 20
"""Of a body that rules look at; what is longer was not read in full, and a rule that allows does not match that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who asks.

    Attributes:
        run: which.
        principal: whom it acts for.
        uid: of the user who made the socket; None where that is not known.
        cgroup: of the run, by path; None where that is not known.
    """

    run: Run
    principal: Principal | None
    uid: int | None = None
    cgroup: str | None = None


def judge(policy: Policy | None, agent: Agent, question: Question, *, proven: bool) -> Verdict:
    """Decide.

    Args:
        policy: in force; None: there is none, and nothing is allowed.
        agent: who asks.
        question: what is asked.
        proven: whether the name that the agent uses is known to lead to the destination: by a certificate that will be
            verified, or by the resolver. If not, a rule must allow both the name and the address.
    """
    if policy is None:
        return _denied(question, "no_policy", "no policy is in force, so nothing is allowed")
    if question.kind is Kind.PASSTHROUGH and not policy.passes_through(_target(question, Tls.PASSTHROUGH)):
        return _denied(question, "inspected", "its TLS is opened", policy.version)
    action = _action(agent, question, proven=proven)
    decision = policy.decide(action)
    if question.body is None and question.request is not None and _wants_body(policy, decision, question.request):
        return Verdict(number=question.number, allowed=False, policy=policy.version, body_bytes=BODY_BYTES_MAX)
    verdict = _verdict(question, decision)
    if decision.outcome is Outcome.APPROVE and question.request is not None:
        verdict = _held(verdict, agent, question, action, decision)
    if (verdict.allowed or verdict.held is not None) and question.request is not None and question.request.upgrade is not None:
        socket = policy.decide(_connection(agent, question, WEBSOCKET, proven=proven))
        return replace(verdict, upgrade=socket.outcome is Outcome.ALLOW)
    return verdict


def needs_proof(policy: Policy | None, agent: Agent, question: Question) -> bool:
    """Say whether it matters, to the policy or to a person, that the agent's name leads there; arguments as `judge` has."""
    without, proven = (judge(policy, agent, question, proven=known) for known in (False, True))
    return proven.held is not None or _way(without) != _way(proven)


def _way(verdict: Verdict) -> tuple[bool, bool, bool, Obligations]:
    """Give how it goes on: allowed, held for a person, or held for its body; and with what in it."""
    return verdict.allowed, verdict.held is not None, bool(verdict.body_bytes), verdict.obligations


def observed(verdict: Verdict) -> Verdict:
    """Let through what would be denied, and say what it would have been; nothing is masked or put in."""
    if verdict.body_bytes:
        return verdict
    if verdict.allowed:
        return replace(verdict, obligations=NOTHING)
    reason = f"would_be_{verdict.reason}"
    return replace(verdict, allowed=True, upgrade=True, held=None, reason=reason, obligations=NOTHING)


@lru_cache(maxsize=ADDRESSES_MAX)
def _address(text: str) -> Address | None:
    return address(text)


def name_of(question: Question) -> str:
    """Give the name, or address, that the agent uses for what it speaks to."""
    if question.request is not None:
        return question.request.host
    return question.server_name or question.destination.address


def _action(agent: Agent, question: Question, *, proven: bool) -> Action:
    if question.request is None:
        return _connection(agent, question, TLS if question.kind is Kind.PASSTHROUGH else TCP, proven=proven)
    head = _head(question, question.request)
    action = http_action(head, principal=agent.principal, run=agent.run)
    assert action.protocol == HTTP
    action = replace(action, facts={**action.facts, NAME_BOUND: proven})
    return action if proven else _unproven(action, question)


def _connection(agent: Agent, question: Question, protocol: str, *, proven: bool) -> Action:
    tls = Tls.PASSTHROUGH if protocol == TLS else Tls.INSPECTED if question.inspected else Tls.NONE
    target = _target(question, tls)
    action = Action(
        principal=agent.principal,
        run=agent.run,
        target=target,
        protocol=protocol,
        operation=CONNECT,
        facts={NAME_BOUND: proven},
    )
    return action if proven else _unproven(action, question)


def _unproven(action: Action, question: Question) -> Action:
    """Let a rule that permits have to permit the address as well; one that stops still stops the name."""
    where = question.destination.address
    if where in action.target.names:
        return action
    return replace(action, target=replace(action.target, aliases=(*action.target.aliases, where)))


def _target(question: Question, tls: Tls) -> Target:
    to = question.destination
    return Target(host=name_of(question), port=to.port, address=_address(to.address), tls=tls)


def _head(question: Question, request: Request) -> RequestHead:
    host = f"[{request.host}]" if ":" in request.host else request.host
    target = request.path if request.query is None else f"{request.path}?{request.query}"
    text, truncated = _text(question.body, request)
    return RequestHead(
        method=request.method,
        target=target,
        headers=(("host", f"{host}:{question.destination.port}"), *request.fields),
        sni=question.server_name,
        connection=_target(question, Tls.INSPECTED if question.inspected else Tls.NONE),
        truncated=truncated,
        body=text,
    )


def _text(body: Body | None, request: Request) -> tuple[str | None, bool | None]:
    """Give a body as text, and whether there is more; not known if it was not read, or is compressed."""
    if body is None:
        return None, None
    coded = any(name.lower() == "content-encoding" and value.lower() != "identity" for name, value in request.fields)
    if coded and body.content:
        return None, None
    return body.content.decode("utf-8", "surrogateescape"), not body.complete


def _wants_body(policy: Policy, decision: Decision, request: Request) -> bool:
    """Say whether the body decides: a rule looks at it, or a person; or whether it is signed."""
    if decision.outcome is Outcome.DENY:
        return _looks(policy)
    return decision.outcome is Outcome.APPROVE or signs_body(request, _obligations(decision))


def _obligations(decision: Decision) -> Obligations:
    return Obligations(masks=decision.masks, injections=decision.injections)


def _held(verdict: Verdict, agent: Agent, question: Question, action: Action, decision: Decision) -> Verdict:
    """Have a person decide, unless there is something that nobody could be shown."""
    assert question.body is not None
    problem = too_long(question, question.body)
    problem = problem or problem_of(question, _obligations(decision))
    if problem:
        return replace(verdict, reason="cannot_be_approved", message=problem)
    return replace(verdict, held=hold_of(question, action, decision, agent.uid))


def _looks(policy: Policy) -> bool:
    """Say whether any rule may look at a body."""
    return any(rule.match.text_regex is not None or rule.when is not None for rule in policy.rules)


def _verdict(question: Question, decision: Decision) -> Verdict:
    rules = decision.carried_out.rules
    reason, message = "denied_by_policy", decision.carried_out.reason
    allowed, obligations = decision.outcome is Outcome.ALLOW, _obligations(decision)
    if decision.outcome is Outcome.APPROVE:
        reason = "approval_needed"
    elif allowed and (problem := problem_of(question, obligations)):
        allowed, reason, message = False, "cannot_be_carried_out", problem
    elif not allowed and not rules:
        reason = "allowed_by_no_rule"
    return Verdict(
        number=question.number,
        allowed=allowed,
        reason="" if allowed else reason,
        rule=",".join(rules),
        policy=decision.policy,
        message=message,
        obligations=obligations,
    )


def _denied(question: Question, reason: str, message: str, policy: str = "") -> Verdict:
    return Verdict(number=question.number, allowed=False, reason=reason, message=message, policy=policy)
