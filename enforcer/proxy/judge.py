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
from capd.enforcer.policy.action import CONNECT, Action, Address, Principal, Resource, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.decision import Decision, Outcome
from capd.enforcer.policy.http_request import RequestHead, http_action
from capd.enforcer.policy.limit import READING
from capd.enforcer.policy.linear_regex import is_unicode
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import HTTP, NAME_BOUND, TCP, TLS, WEBSOCKET
from capd.enforcer.policy.sql_statement import TEXT_CHARACTERS_MAX
from capd.enforcer.proxy.body_text import body_text
from capd.enforcer.proxy.held import hold_of, too_long
from capd.enforcer.proxy.held_statement import hold_of_statement, statement_too_long
from capd.enforcer.proxy.question import Body, Kind, Login, Question, Request, Statement, Verdict
from capd.enforcer.proxy.remembered import Remembered, looks_at_text

PREPARED, APPROVED = "only_prepared", "approved_before"
"""Reasons of what goes on though rules want it approved."""
READ_ONLY: Final = "a rule lets nothing be said here but what only reads"
ADDRESSES_MAX: Final = 4_096
"""Remembered in the form in which policies have them: reading one takes longer than judging."""
ESTIMATE: Final = 1
"""In the place of bytes of a body: a statement's estimate is wanted first."""
BODY_BYTES_MAX: Final = 1 << 20
"""Of a body that rules look at; the text of a longer one is not known (body_text.py)."""


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


def judge(
    policy: Policy | None, agent: Agent, question: Question, *, proven: bool, remembered: Remembered | None = None
) -> Verdict:
    """Decide.

    Args:
        policy: in force; None: there is none, and nothing is allowed.
        agent: who asks.
        question: what is asked.
        proven: whether the name that the agent uses is known to lead to the destination: by a certificate that will be
            verified, or by the resolver. If not, a rule must allow both the name and the address.
        remembered: what was decided before; None: decide anew.
    """
    if policy is None:
        return _denied(question, "no_policy", "no policy is in force, so nothing is allowed")
    if question.kind is Kind.PASSTHROUGH and not policy.passes_through(_target(question, Tls.PASSTHROUGH)):
        return _denied(question, "inspected", "its TLS is opened", policy.version)
    if question.kind is Kind.SESSION:
        return _verdict(question, policy.open(_session(agent, question, proven=proven)))
    decision = _decision(policy, agent, question, proven=proven, remembered=remembered)
    if question.body is None and question.request is not None and _wants_body(policy, decision, question.request):
        return Verdict(number=question.number, allowed=False, policy=policy.version, body_bytes=BODY_BYTES_MAX)
    nobody = decision.outcome is Outcome.APPROVE and _needs_nobody(question, decision)
    if decision.outcome is Outcome.APPROVE and question.statement is not None and question.statement.estimable and not nobody:
        return Verdict(number=question.number, allowed=False, policy=policy.version, body_bytes=ESTIMATE)
    verdict = _verdict(question, decision)
    if question.statement is not None and (rule := _only_reading(question.statement, decision)):
        return replace(verdict, allowed=False, rule=rule, reason="read_only", message=READ_ONLY)
    if nobody:
        verdict = _without_person(verdict, question, decision)
    elif decision.outcome is Outcome.APPROVE and question.kind in {Kind.REQUEST, Kind.STATEMENT}:
        verdict = _held(verdict, agent, question, _action(agent, question, proven=proven), decision)
    if (verdict.allowed or verdict.held is not None) and question.request is not None and question.request.upgrade is not None:
        socket = policy.decide(_connection(agent, question, WEBSOCKET, proven=proven))
        return replace(verdict, upgrade=socket.outcome is Outcome.ALLOW)
    return verdict


def _decision(policy: Policy, agent: Agent, question: Question, *, proven: bool, remembered: Remembered | None) -> Decision:
    def action() -> Action:
        return _action(agent, question, proven=proven)

    if remembered is None or (question.request is None and question.statement is None):
        return policy.decide(action())
    return remembered.decision(policy, (agent.run, agent.principal), question, proven=proven, action=action)


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
def parsed_address(text: str) -> Address | None:
    """Give an address as policies have it; None: it is none."""
    return address(text)


def name_of(question: Question) -> str:
    """Give the name, or address, that the agent uses for what it speaks to."""
    if question.request is not None:
        return question.request.host
    return question.server_name or question.destination.address


def _action(agent: Agent, question: Question, *, proven: bool) -> Action:
    if question.statement is not None:
        return _statement(_session(agent, question, proven=proven), question.statement)
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


def _session(agent: Agent, question: Question, *, proven: bool) -> Action:
    """Give the opening of a database's session."""
    login = question.login or Login(user=None, database=None)
    opened = _connection(agent, question, question.protocol, proven=proven)
    assert opened.opening
    return replace(opened, database=login.database, user=login.user)


def _statement(opened: Action, said: Statement) -> Action:
    """Give what is said in a session."""
    resources = said.resources
    text = said.text
    # Longer text is not looked into: a rule that stops may be about it, and none that lets it go is.
    readable = text is not None and len(text) <= TEXT_CHARACTERS_MAX and is_unicode(text)
    return replace(
        opened,
        operation=said.operation,
        effects=said.effects,
        resources=None if resources is None else tuple(Resource(name=name, access=access) for name, access in resources),
        text=text if readable else None,
        facts={**said.facts, **opened.facts},
        problems=said.problems,
    )


def _unproven(action: Action, question: Question) -> Action:
    """Let a rule that permits have to permit the address as well; one that stops still stops the name."""
    where = question.destination.address
    if where in action.target.names:
        return action
    return replace(action, target=replace(action.target, aliases=(*action.target.aliases, where)))


def _target(question: Question, tls: Tls) -> Target:
    to = question.destination
    return Target(host=name_of(question), port=to.port, address=parsed_address(to.address), tls=tls)


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
    """Give a body as text, and whether there is more; not known if it was not read, or cannot be."""
    if body is None:
        return None, None
    text = body_text(body, request.fields)
    return text, None if text is None and body.complete else not body.complete


def _wants_body(policy: Policy, decision: Decision, request: Request) -> bool:
    """Say whether the body decides: a rule looks at it, or a person; or whether it is signed."""
    if decision.outcome is Outcome.DENY:
        return looks_at_text(policy)
    if decision.outcome is Outcome.APPROVE:
        return True
    return bool(decision.injections) and signs_body(request, _obligations(decision))


def _obligations(decision: Decision) -> Obligations:
    if not decision.masks and not decision.injections and not decision.limits:
        return NOTHING
    return Obligations(masks=decision.masks, injections=decision.injections, limits=decision.limits)


def _held(verdict: Verdict, agent: Agent, question: Question, action: Action, decision: Decision) -> Verdict:
    """Have a person decide, unless there is something that nobody could be shown."""
    if question.statement is not None:
        problem = statement_too_long(question.statement)
    else:
        assert question.body is not None
        problem = too_long(question, question.body)
    problem = problem or problem_of(question, _obligations(decision))
    if problem:
        return replace(verdict, reason="cannot_be_approved", message=problem)
    hold = hold_of if question.statement is None else hold_of_statement
    return replace(verdict, held=hold(question, action, decision, agent.uid))


def _needs_nobody(question: Question, decision: Decision) -> bool:
    """Say whether no person is asked though rules want one: it is asked about again before it is run, or was approved so."""
    said = question.statement
    return said is not None and (said.prepares or said.approved == decision.policy)


def _without_person(verdict: Verdict, question: Question, decision: Decision) -> Verdict:
    """Let a statement go on of which no person is asked, unless what rules want beside cannot be done."""
    assert question.statement is not None
    if problem := problem_of(question, _obligations(decision)):
        return replace(verdict, reason="cannot_be_carried_out", message=problem)
    return replace(verdict, allowed=True, reason=APPROVED if question.statement.approved else PREPARED)


def _verdict(question: Question, decision: Decision) -> Verdict:
    outcome, rules = decision.carried_out.outcome, decision.carried_out.rules
    reason, message = "denied_by_policy", decision.carried_out.reason
    allowed, obligations = outcome is Outcome.ALLOW, _obligations(decision)
    if outcome is Outcome.APPROVE:
        reason = "approval_needed"
    elif allowed and obligations is not NOTHING and (problem := problem_of(question, obligations)):
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


def _only_reading(said: Statement, decision: Decision) -> str:
    """Give the rule by which a statement may only read, if it does not, or nobody can say so."""
    reads = said.effects is not None and not said.problems and said.effects <= READING
    return "" if reads else next((rule for rule, limit in decision.limits if limit.read_only), "")


def _denied(question: Question, reason: str, message: str, policy: str = "") -> Verdict:
    return Verdict(number=question.number, allowed=False, reason=reason, message=message, policy=policy)
