"""A policy: what several documents say together, checked as a whole and ready to decide.

What lives here: putting documents together. What must not: files, reloading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from capd.enforcer.policy import shipped
from capd.enforcer.policy.action import CONNECT, Action, Target
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.decision import Decision
from capd.enforcer.policy.document import Document, Passthrough, read_document
from capd.enforcer.policy.evaluator import Evaluator
from capd.enforcer.policy.example import Example
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.problem import Problems
from capd.enforcer.policy.protocol import TLS
from capd.enforcer.policy.rule import Rule, by_id
from capd.enforcer.policy.scope import Scope
from capd.enforcer.policy.shadows import check_passed_through, check_shadows
from capd.enforcer.policy.version import version_of

RULES_MAX: Final = 5_000
"""Loading compares rules in pairs; so many load in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy that can be used.

    Attributes:
        rules: sorted by id, those that come with capd among them.
        scopes: in the order of the files.
        passthrough: hosts whose TLS is not opened.
        examples: what must come out.
        version: hash over what decides.
        evaluator: decides.
        passed: asks whether TLS is passed through, ready to be asked.
    """

    rules: Sequence[Rule]
    scopes: Sequence[Scope]
    passthrough: Sequence[Passthrough]
    examples: Sequence[Example]
    version: str
    evaluator: Evaluator
    passed: Sequence[Matcher] = ()

    def decide(self, action: Action) -> Decision:
        """Decide about a message."""
        return self.evaluator.decide(action)

    def open(self, action: Action) -> Decision:
        """Decide about the opening of a session in which messages are judged one by one."""
        return self.evaluator.open(action)

    def judge(self, action: Action) -> Decision:
        """Decide about what is written or was recorded, which says itself which of both it is."""
        return self.open(action) if action.opening else self.decide(action)

    def looks_at(self, action: Action) -> frozenset[str]:
        """Give what of an HTTP request decides beside the rest (looks.py)."""
        return self.evaluator.looks_at(action)

    def passes_through(self, target: Target) -> bool:
        """Say whether TLS to a target is passed through unopened."""
        connection = Action(target=target, protocol=TLS, operation=CONNECT)
        return any(matches(connection, Bindings(connection)) is True for matches in self.passed)

    @property
    def own_rules(self) -> int:
        """How many of its rules the operator wrote."""
        return sum(not rule.id.startswith(shipped.PREFIX) for rule in self.rules)


@cache
def shipped_document(text: bytes = shipped.TEXT.encode()) -> Document:
    """Give rules that come with capd.

    Raises:
        PolicyError: they are wrong: a defect of capd.
    """
    problems = Problems()
    document = read_document(text, shipped.FILE, problems, prefix=shipped.PREFIX)
    problems.raise_if_any()
    return document


def read_policy(files: Mapping[str, bytes], own: bytes = b"") -> Policy:
    """Read a policy from the content of its files, by name; their order counts for recording levels of scopes only.

    Args:
        files: of the operator.
        own: further rules that come with capd, which follow from the configuration; none: there are none.

    Raises:
        PolicyError: it cannot be used; every problem of every file is listed.
    """
    problems = Problems()
    ours = [shipped_document(), *([shipped_document(own)] if own else [])]
    documents = [*ours, *(read_document(content, name, problems) for name, content in files.items())]
    return assemble(documents, problems)


def assemble(documents: Sequence[Document], problems: Problems) -> Policy:
    """Put documents together.

    Args:
        documents: in their order.
        problems: what was found wrong so far.

    Raises:
        PolicyError: something is wrong.
    """
    rules = by_id([rule for document in documents for rule in document.rules])
    scopes = [scope for document in documents for scope in document.scopes]
    passthrough = [one for document in documents for one in document.passthrough]
    for what, items in (("rule", rules), ("scope", scopes), ("passthrough", passthrough)):
        _check_unique(what, items, problems)
    if len(rules) > RULES_MAX:
        problems.add(rules[0].place, f"there are {len(rules)} rules; at most {RULES_MAX} are allowed")
        problems.raise_if_any()
    check_shadows(rules, problems)
    check_passed_through(rules, [one.match for one in passthrough], problems)
    problems.raise_if_any()
    version = version_of({"rules": rules, "scopes": scopes, "passthrough": sorted(passthrough, key=lambda one: one.id)})
    return Policy(
        rules=rules,
        scopes=scopes,
        passthrough=passthrough,
        examples=[example for document in documents for example in document.examples],
        version=version,
        evaluator=Evaluator(rules, scopes, version),
        passed=[compile_match(one.match) for one in passthrough],
    )


def _check_unique(what: str, items: Iterable[Rule | Scope | Passthrough], problems: Problems) -> None:
    seen: dict[str, Rule | Scope | Passthrough] = {}
    for one in sorted(items, key=lambda item: item.place):
        first = seen.setdefault(one.id, one)
        if first is not one:
            problems.add(one.place, f"there is another {what} {one.id!r}: {first.place}")
