"""A request that a rule wants approved: what the approval is bound to, what the person is shown, what the client is told.

What lives here: the translation between the proxy and approvals, both ways. What must not: waiting, deciding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final

from capd.enforcer.approvals.action_hash import VARYING, Bound
from capd.enforcer.approvals.hold import Answer, Hold, Outcome
from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.approvals.request import WIDTH, Demand
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.names import HEADERS
from capd.enforcer.policy.action import Action
from capd.enforcer.policy.decision import Decision
from capd.enforcer.proxy.question import Body, Question, Verdict

_VERIFIED: Final = {True: "verified", False: "unverified"}
FIELDS_SHOWN_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 512
"""Of one fact beside target and body; what is longer is cut with its length."""
TARGET_CHARACTERS_MAX: Final = 8_192
"""Of path and query; what is longer cannot be shown whole, and is not approved."""
_REASONS: Final[Mapping[Outcome, tuple[str, str]]] = {
    Outcome.PENDING: ("approval_pending", "a person has not decided yet; repeat the identical request"),
    Outcome.EXPIRED: ("approval_expired", "no person decided in time; repeat the request to ask again"),
    Outcome.TOO_MANY: ("approval_too_many", "too much waits for a person already"),
    Outcome.UNAVAILABLE: ("approval_unavailable", "no person can be asked now"),
    Outcome.POLICY_CHANGED: ("approval_unavailable", "the policy changes all the time"),
    Outcome.DENIED: ("denied_by_person", "a person denied it"),
}


def hold_of(question: Question, action: Action, decision: Decision, uid: int | None) -> Hold:
    """Give what the desk is asked.

    Args:
        question: a request, with all of its body.
        action: the same, as it was judged.
        decision: that a person has to approve it.
        uid: of the process that sent it.
    """
    assert question.body is not None
    bound, body = _bound(question, action, decision.policy, uid), question.body.content
    options = [option for _, option in decision.approvals]
    return Hold(
        bound=bound,
        body=body,
        is_json=any(name.lower() == "content-type" and _json(value) for name, value in bound.fields),
        hold_seconds=min(option.hold_seconds for option in options),
        ttl_seconds=min(option.ttl_seconds for option in options),
        scope=min((option.scope for option in options), key=WIDTH.__getitem__),
        demands=tuple(
            Demand(rule=rule, quorum=one.quorum, groups=tuple(sorted(one.groups))) for rule, one in decision.approvals
        ),
        shown=_shown(bound, action, decision, len(body)),
    )


def _bound(question: Question, action: Action, policy: str, uid: int | None) -> Bound:
    request, body, principal, target = question.request, question.body, action.principal, action.target
    assert request is not None
    assert body is not None
    return Bound(
        principal=None if principal is None else (principal.kind, principal.name, _VERIFIED[principal.verified]),
        run=action.run.id,
        uid=uid,
        host=target.host,
        aliases=target.aliases,
        port=target.port,
        address=None if target.address is None else str(target.address),
        tls=target.tls.value,
        protocol=action.protocol,
        operation=request.method,
        path=request.path,
        query=request.query,
        upgrade=request.upgrade,
        fields=request.fields,
        body_sha256=sha256(body.content).digest(),
        policy=policy,
    )


def _json(value: str) -> bool:
    kind = value.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _shown(bound: Bound, action: Action, decision: Decision, body_bytes: int) -> dict[str, object]:
    scheme = "http" if action.target.tls.value == "none" else "https"
    target = bound.path if bound.query is None else f"{bound.path}?{bound.query}"
    host = f"[{bound.host}]" if ":" in bound.host else bound.host
    return {
        "protocol": bound.protocol,
        "operation": bound.operation,
        "url": f"{scheme}://{host}:{bound.port}{target}",
        "address": bound.address,
        "upgrade": bound.upgrade,
        "fields": [[name, _value(name, value)] for name, value in bound.fields[:FIELDS_SHOWN_MAX]],
        "fields_left_out": max(len(bound.fields) - FIELDS_SHOWN_MAX, 0),
        "fields_not_bound": sorted({name.lower() for name, _ in bound.fields} & VARYING),
        "body_bytes": body_bytes,
        "body_hash": bound.body_sha256.hex(),
        "effects": None if action.effects is None else sorted(action.effects),
        "resources": None if action.resources is None else [one.name for one in action.resources],
        "problems": list(action.problems),
        "rules": list(decision.carried_out.rules),
        "credentials": sorted({one.credential for _, one in decision.injections}),
        "masked_by": [rule for rule, _ in decision.masks],
        "why": decision.carried_out.reason,
        "run_name": action.run.name,
        "labels": dict(action.run.labels),
    }


def _value(name: str, value: str) -> str:
    """Give a field's value with credentials as `*`."""
    shown = bytearray(value.encode("latin-1", "replace"))
    for place in header_places(HEADERS, (), name, bytes(shown)):
        shown[place.start : place.end] = b"*" * (place.end - place.start)
    return _cut(shown.decode("latin-1"))


def _cut(text: str) -> str:
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    return f"{text[:TEXT_CHARACTERS_MAX]}… ({len(text)} characters)"


def too_long(question: Question, body: Body) -> str:
    """Say why a person cannot be shown all of a request; "" when that can be."""
    request = question.request
    assert request is not None
    if not body.complete or len(body.content) > BODY_BYTES_MAX:
        return f"its body has more than the {BODY_BYTES_MAX} bytes that a person can be shown"
    if len(request.path) + len(request.query or "") > TARGET_CHARACTERS_MAX:
        return "its path and query are too long to be shown to a person"
    if sum(len(name) + len(value) for name, value in request.fields) > TARGET_CHARACTERS_MAX * 4:
        return "its header fields are too long to be shown to a person"
    return ""


def verdict_of(held: Verdict, answer: Answer) -> Verdict:
    """Give what an answer means for what was held."""
    approval = {"id": answer.id, "outcome": answer.outcome.value, "by": answer.by}
    approval |= {"via": answer.via} if answer.via else {}
    if answer.outcome is Outcome.APPROVED:
        return replace(held, allowed=True, held=None, reason="", message="", approval=approval)
    reason, message = _REASONS[answer.outcome]
    if answer.outcome is Outcome.DENIED:
        message = f"denied by {answer.by}: {answer.reason}" if answer.by else answer.reason
    elif answer.outcome is Outcome.PENDING:
        message = f"approval_pending:{answer.id}: {message}"
    elif answer.reason:
        message = f"{message}: {answer.reason}"
    facts = {"approval": answer.id} if answer.id else {}
    facts |= {"denied_by": answer.by} if answer.outcome is Outcome.DENIED else {}
    return replace(held, held=None, reason=reason, message=message, facts=facts, approval=approval)


def in_short(question: Question, verdict: Verdict) -> tuple[str, str] | None:
    """Give a message and what became of it, as context for later ones; None: it is not decided yet, or says nothing."""
    request = question.request
    if request is None or verdict.body_bytes or verdict.held is not None:
        return None
    return _cut(f"{request.method} {request.host}{request.path}"), "allowed" if verdict.allowed else verdict.reason
