"""A request that a rule wants approved: what the approval is bound to, what the person is shown, what the client is told.

What lives here: the translation between the proxy and approvals, both ways. What must not: waiting, deciding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Final, cast

from capd.enforcer.approvals.action_hash import VARYING, Bound
from capd.enforcer.approvals.hold import Answer, Hold, Outcome
from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.approvals.request import WIDTH, Demand
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.names import HEADERS
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.values import Value, Values
from capd.enforcer.policy.action import Action
from capd.enforcer.policy.decision import Decision
from capd.enforcer.proxy.preference import wait_seconds
from capd.enforcer.proxy.question import Body, Question, Verdict

_VERIFIED: Final = {True: "verified", False: "unverified"}
FIELDS_SHOWN_MAX: Final = 256
"""Header fields; nobody reads more, and what is not shown is not approved."""
TEXT_CHARACTERS_MAX: Final = 512
"""Of one fact that no approval is bound to; what is longer is cut with its length."""
TARGET_CHARACTERS_MAX: Final = 8_192
"""Of path and query; what is longer cannot be shown whole, and is not approved."""
HASH_LEFT_OUT: Final = ""
"""Of a body that is not kept: who knows all of it but a weak secret could guess that by the hash."""
_SAID: Final = frozenset({"url", "fields", "run_name", "labels"})
"""Facts that whoever asks words as he likes."""
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
    is_json = any(name.lower() == "content-type" and _json(value) for name, value in bound.fields)
    shown = _shown(bound, action, decision, len(body))
    stays = _without_secrets(shown)
    exact = {name: value for name, value in shown.items() if stays[name] != value}
    hold = replace(hold_with(bound, body, decision, stays, is_json=is_json), exact=exact)
    wanted = wait_seconds(bound.fields)
    return hold if wanted is None else replace(hold, hold_seconds=min(wanted, hold.hold_seconds))


def hold_with(
    bound: Bound,
    body: bytes,
    decision: Decision,
    shown: Mapping[str, object],
    *,
    is_json: bool,
    likeness: bytes | None = None,
) -> Hold:
    """Give what the desk is asked, as the rules that hold it want it; arguments as of Hold."""
    options = [option for _, option in decision.approvals]
    return Hold(
        bound=bound,
        body=body,
        is_json=is_json,
        likeness=likeness,
        hold_seconds=min(option.hold_seconds for option in options),
        ttl_seconds=min(option.ttl_seconds for option in options),
        scope=min((option.scope for option in options), key=WIDTH.__getitem__),
        demands=tuple(
            Demand(rule=rule, quorum=one.quorum, groups=tuple(sorted(one.groups))) for rule, one in decision.approvals
        ),
        shown=shown,
    )


def bound_to(action: Action, uid: int | None, policy: str, *, operation: str, content: bytes) -> Bound:
    """Give what an approval is bound to of every action.

    Args:
        action: as it was judged.
        uid: of the process that sent it.
        policy: version of the one that wants the approval.
        operation: method, or what a statement does.
        content: the body, or all of a statement that decides what it does.
    """
    target = action.target
    return Bound(
        principal=principal_of(action),
        run=action.run.id,
        uid=uid,
        host=target.host,
        aliases=target.aliases,
        port=target.port,
        address=None if target.address is None else str(target.address),
        tls=target.tls.value,
        protocol=action.protocol,
        operation=operation,
        database=action.database,
        user=action.user,
        body_sha256=sha256(content).digest(),
        policy=policy,
    )


def _bound(question: Question, action: Action, policy: str, uid: int | None) -> Bound:
    request, body = question.request, question.body
    assert request is not None
    assert body is not None
    bound = bound_to(action, uid, policy, operation=request.method, content=body.content)
    return replace(bound, path=request.path, query=request.query, upgrade=request.upgrade, fields=request.fields)


def principal_of(action: Action) -> tuple[str, str, str] | None:
    """Give whom an action is bound to."""
    principal = action.principal
    return None if principal is None else (principal.kind, principal.name, _VERIFIED[principal.verified])


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
        "database": None,
        "user": None,
        "statement": None,
        "known": {},
        "fields": [[name, _value(name, value)] for name, value in bound.fields],
        "fields_left_out": 0,
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


@cache
def _values() -> Values:
    return Values(Rules(Choice()))


def _without_secrets(shown: Mapping[str, object]) -> dict[str, object]:
    """Give facts as they stay when nobody has to look at them any more: without what the rules of recordings find in them."""
    values = _values()
    stays = {name: values.value(cast("Value", value)) if name in _SAID else value for name, value in shown.items()}
    return stays | {"body_hash": HASH_LEFT_OUT}


def _value(name: str, value: str) -> str:
    """Give a field's value with credentials as `*`."""
    shown = bytearray(value.encode("latin-1", "replace"))
    for place in header_places(HEADERS, (), name, bytes(shown)):
        shown[place.start : place.end] = b"*" * (place.end - place.start)
    return shown.decode("latin-1")


def cut(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Give a text within its size, and how long it is if it is not whole."""
    if len(text) <= characters_max:
        return text
    return f"{text[:characters_max]}… ({len(text)} characters)"


def too_long(question: Question, body: Body) -> str:
    """Say why a person cannot be shown all of a request; "" when that can be."""
    request = question.request
    assert request is not None
    if not body.complete or len(body.content) > BODY_BYTES_MAX:
        return f"its body has more than the {BODY_BYTES_MAX} bytes that a person can be shown"
    if len(request.path) + len(request.query or "") > TARGET_CHARACTERS_MAX:
        return "its path and query are too long to be shown to a person"
    length = sum(len(name) + len(value.encode()) for name, value in request.fields)
    if len(request.fields) > FIELDS_SHOWN_MAX or length > TARGET_CHARACTERS_MAX * 4:
        return "its header fields are too many, or too long, to be shown to a person"
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
    request, statement = question.request, question.statement
    if (request is None and statement is None) or verdict.body_bytes or verdict.held is not None:
        return None
    outcome = "allowed" if verdict.allowed else verdict.reason
    if request is not None:
        return cut(f"{request.method} {request.host}{request.path}"), outcome
    assert statement is not None
    # Of what is said in it a shape has nothing but names: its literals may be anything.
    return cut(statement.shape or statement.operation), outcome
