"""A rule: what it is about, and what then happens.

What lives here: the values of rules. What must not: reading, judging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.problem import Place


class Effect(StrEnum):
    """What happens to an action that a rule matches, the strongest first. Masks, injections, limits and logs permit nothing."""

    DENY = "deny"
    APPROVE = "approve"
    MASK = "mask"
    INJECT = "inject"
    LIMIT = "limit"
    ALLOW = "allow"
    LOG = "log"


class Stage(StrEnum):
    """Whether a rule is in force, or only told of."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class ApprovalScope(StrEnum):
    """What one approval is for: this action, actions of the same shape, or all that the rule holds for the rest of the run."""

    ONCE = "once"
    SHAPE = "shape"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """How an action is held.

    Attributes:
        hold_seconds: how long it waits in the open before its client is told to come again.
        scope: what an approval is good for.
        ttl_seconds: how long an approval is good, used or not.
        quorum: how many persons must say yes.
        groups: who may; none: every approver.
    """

    hold_seconds: int = 55
    scope: ApprovalScope = ApprovalScope.ONCE
    ttl_seconds: int = 900
    quorum: int = 1
    groups: tuple[str, ...] = ()


class Replace(StrEnum):
    """What stands in the place of a value of a hidden column."""

    NULL = "null"
    """NULL, whatever was there: it is legal in every format, and tells nothing."""
    FIXED = "fixed"
    """The same constant for every value of a type; NULL stays NULL."""
    PARTIAL = "partial"
    """Of texts the last four characters; all else is as `fixed`."""
    HASH = "hash"
    """A keyed hash: equal values have equal ones, in every column, on this host."""
    TOKEN = "token"  # noqa: S105 - no password
    """The same, with a prefix that says what it is."""


class Predicates(StrEnum):
    """Whether a hidden column may stand elsewhere than in the list of what is shown: WHERE, ON, ORDER BY, GROUP BY."""

    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What is hidden, as in enforcer/masking: by names, places in JSON, checksums, and secrets by their known formats.

    Attributes:
        headers, cookies, keys, json_paths: of HTTP.
        columns: of databases: `column`, `table.column`, `schema.table.column` (masking/rows/column_pattern.py).
        replace: by what, in columns.
        predicates: whether agents may compare what is hidden in columns.
        identifiers, formats: what is recognised by its form, anywhere.
    """

    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    json_paths: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    replace: Replace = Replace.NULL
    predicates: Predicates = Predicates.DENY
    identifiers: tuple[str, ...] = ()
    formats: bool = False


class Form(StrEnum):
    """How a credential stands in a request of HTTP."""

    HEADER = "header"
    """The value of a field, behind a prefix."""
    BEARER = "bearer"
    """`Authorization: Bearer` (RFC 6750)."""
    BASIC = "basic"
    """`Authorization: Basic` (RFC 7617), with the credential's user."""
    QUERY = "query"
    """A parameter of the query."""
    AWS_SIGV4 = "aws-sigv4"
    """The agent's own signature (AWS Signature Version 4) is taken away, and the request signed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """Which credential is put in, where.

    Attributes:
        credential: its name in capd's store.
        form: how; None for databases.
        header: of HEADER: the field whose value it becomes; whatever the agent put there is removed.
        prefix: of HEADER: before it, such as `Token `.
        parameter: of QUERY: its name; whatever the agent put there is removed.
        cleartext: whether it may go without TLS to a target that was not verified.
    """

    credential: str
    form: Form | None = None
    header: str | None = None
    prefix: str = ""
    parameter: str | None = None
    cleartext: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """Where it goes: two different ones cannot go to one place, whichever way servers read its name."""
        if self.form is Form.QUERY:
            return "query", (self.parameter or "").lower()
        named = (self.header or "") if self.form in {None, Form.HEADER} else "authorization"
        return "header", named.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: unique in a policy; `capd:` begins those that come with capd.
        then: what happens.
        match: what it is about.
        when: a condition in CEL; None: none.
        stage: whether it is in force.
        reason: what the agent is told, of deny and approve.
        approval, mask, injection, limit: the options of its effect.
        accept_incomplete: of allow: whether it also allows what capd could not read in full.
        accept_paths: of allow and inject: oddities (http_path.ODDITIES) of paths that it also matches, if it does however a
            server reads them.
        description: for people; decides nothing.
        place: where it stands.
    """

    id: str
    then: Effect
    match: Match = field(default_factory=Match)
    when: str | None = None
    stage: Stage = Stage.ENFORCE
    reason: str | None = None
    approval: Approval | None = None
    mask: Mask | None = None
    injection: Injection | None = None
    limit: Limit | None = None
    accept_incomplete: bool = False
    accept_paths: tuple[str, ...] = ()
    description: str | None = field(default=None, compare=False)
    place: Place = field(default=Place("-"), compare=False)

    @property
    def enforced(self) -> bool:
        """Whether it is in force."""
        return self.stage is Stage.ENFORCE


CAREFUL: Final = frozenset({Effect.DENY, Effect.APPROVE, Effect.MASK, Effect.LIMIT, Effect.LOG})
"""Effects of rules that match when it is not known whether they do; the others do not match then."""


def by_id(rules: Sequence[Rule]) -> list[Rule]:
    """Give rules in the one order that does not depend on files."""
    return sorted(rules, key=lambda rule: rule.id)
