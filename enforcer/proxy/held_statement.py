"""A statement of a database that a rule wants approved: what the approval is bound to, and what the person is shown.

What lives here: the same as in held.py, of statements. What must not: waiting, deciding, what the client is told.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Final

from capd.enforcer.approvals.action_hash import Bound
from capd.enforcer.approvals.hold import Hold
from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.masking import sql_secrets
from capd.enforcer.masking.place import filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.policy.action import Action
from capd.enforcer.policy.decision import Decision
from capd.enforcer.policy.sql_statement import DIALECTS
from capd.enforcer.proxy.held import HASH_LEFT_OUT, bound_to, cut, hold_with
from capd.enforcer.proxy.question import Question, Statement

STATEMENT_CHARACTERS_MAX: Final = 8_192
"""Of its text beside the other facts; `capd approvals ID` shows all of what is asked."""
ITEMS_SHOWN_MAX: Final = 32
"""Of resources, of problems, and of what else is known of it; how many more there are is said."""


def hold_of_statement(question: Question, action: Action, decision: Decision, uid: int | None) -> Hold:
    """Give what the desk is asked.

    Args:
        question: a statement.
        action: the same, as it was judged.
        decision: that a person has to approve it.
        uid: of the process that sent it.
    """
    statement = question.statement
    assert statement is not None
    bound = bound_to(action, uid, decision.policy, operation=statement.operation, content=statement.content)
    shown = _shown(bound, statement, action, decision)
    stays = {**shown, "body_hash": HASH_LEFT_OUT}
    hold = hold_with(bound, statement.content, decision, stays, is_json=False, likeness=_likeness(statement))
    return replace(hold, exact={"body_hash": shown["body_hash"]})


def statement_too_long(statement: Statement) -> str:
    """Say why a person cannot be shown all of it; "" when that can be."""
    if len(statement.content) > BODY_BYTES_MAX:
        return f"it has more than the {BODY_BYTES_MAX} bytes that a person can be shown"
    return ""


def _likeness(statement: Statement) -> bytes | None:
    """Give what all statements of its shape have in common; None for one that capd could not read: its literals may be code."""
    if not statement.shape or statement.problems:
        return None
    effects = None if statement.effects is None else sorted(statement.effects)
    resources = None if statement.resources is None else sorted(map(list, statement.resources))
    return json.dumps([statement.shape, effects, resources, sorted(statement.facts.items())]).encode("ascii")


def _shown(bound: Bound, statement: Statement, action: Action, decision: Decision) -> dict[str, object]:
    names = None if statement.resources is None else [f"{name} ({access})" for name, access in statement.resources]
    return {
        "protocol": bound.protocol,
        "operation": cut(bound.operation),
        "url": _url(bound),
        "address": bound.address,
        "upgrade": None,
        "database": bound.database,
        "user": bound.user,
        "statement": None if statement.text is None else cut(_masked(statement.text, bound.protocol), STATEMENT_CHARACTERS_MAX),
        "fields": [],
        "fields_left_out": 0,
        "fields_not_bound": [],
        "body_bytes": len(statement.content),
        "body_hash": bound.body_sha256.hex(),
        "effects": None if action.effects is None else sorted(action.effects),
        "resources": None if names is None else _first(names),
        "problems": _first(list(action.problems)),
        "known": {cut(name): _value(value, bound.protocol) for name, value in list(statement.shown.items())[:ITEMS_SHOWN_MAX]},
        "rules": list(decision.carried_out.rules),
        "credentials": [],
        "masked_by": [rule for rule, _ in decision.masks],
        "why": decision.carried_out.reason,
        "run_name": action.run.name,
        "labels": dict(action.run.labels),
    }


def _url(bound: Bound) -> str:
    """Give where it goes, as clients of databases write it."""
    host = f"[{bound.host}]" if ":" in bound.host else bound.host
    user = "" if bound.user is None else f"{cut(bound.user)}@"
    return f"{bound.protocol}://{user}{host}:{bound.port}/{cut(bound.database or '')}"


def _first(names: list[str]) -> list[str]:
    more = len(names) - ITEMS_SHOWN_MAX
    return [*map(cut, names[:ITEMS_SHOWN_MAX]), *([f"and {more} more"] if more > 0 else [])]


def _value(value: object, protocol: str) -> object:
    """Give a fact of a statement within its size."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return cut(_masked(value if isinstance(value, str) else json.dumps(value, default=str), protocol))


@cache
def _rules() -> Rules:
    return Rules(Choice())


def _masked(text: str, protocol: str) -> str:
    """Give a text with `*` for its passwords, and for what the rules of recordings find in any text."""
    data = text.encode("utf-8", "backslashreplace")
    if protocol in DIALECTS:
        data = filled(data, sql_secrets.places(data, 0, protocol))
    return filled(data, joined(Scanner(_rules()).feed(data, final=True))).decode("utf-8", "replace")
