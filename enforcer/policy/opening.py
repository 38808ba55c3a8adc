"""The opening of a session in which messages are judged one by one: what rules make of it before anything is said.

What lives here: asking a rule with what is known then. What must not: finding rules, putting answers together (evaluator.py).

An opening permits nothing that is said. It is stopped by what stops every message, and needs a rule that lets some message go:
whatever is allowed in a session whose facts stay as they are, its opening was allowed. A fact that is not known yet, such as
the user before a client has said it, may become any; one that nobody will ever know, such as the principal of a run, will not.
"""

from __future__ import annotations

from capd.enforcer.policy.action import Action, Tri
from capd.enforcer.policy.condition import Bindings, Condition
from capd.enforcer.policy.matcher import CONNECTION, named_checks
from capd.enforcer.policy.protocol import SESSION_KEYS
from capd.enforcer.policy.rule import Effect, Rule


class Opening:
    """A rule that is ready to be asked."""

    __slots__ = ("_condition", "_connection", "_facts", "_login", "_says", "rule")

    def __init__(self, rule: Rule, condition: Condition | None) -> None:
        checks = dict(named_checks(rule.match))
        self.rule = rule
        self._connection = [check for key, check in checks.items() if key in CONNECTION and key not in SESSION_KEYS]
        self._login = [check for key, check in checks.items() if key in SESSION_KEYS]
        self._facts = checks.get("facts")
        self._says = bool(rule.match.content - {"facts"})
        self._condition = condition

    def counts(self, action: Action, bindings: Bindings) -> bool:
        """Say whether the rule's effect comes into an opening: whatever is said for what stops, something for what permits."""
        match self.rule.then:
            case Effect.DENY:
                stands = not self._says and all(answer is not False for answer in self._of_connection(action))
                return stands and self._certain(action, bindings)
            case Effect.INJECT:
                return all(answer is True for answer in self._of_connection(action)) and self._certain(action, bindings)
            case Effect.ALLOW | Effect.APPROVE:
                # To sign in is to send something, which nobody is asked about: a rule that holds is as sure as one that allows.
                possible = self._facts is None or self._facts(action) is not False
                possible = possible and (self._condition is None or self._condition(bindings) is not False)
                return possible and all(answer is True for answer in self._of_connection(action)) and self._may_be(action)
            case Effect.LOG:
                return not self._says and all(answer is not False for answer in self._of_connection(action))
            case Effect.MASK | Effect.LIMIT:
                return False

    def _of_connection(self, action: Action) -> list[Tri]:
        return [check(action) for check in self._connection]

    def _may_be(self, action: Action) -> bool:
        return all(check(action) is not False for check in self._login)

    def _certain(self, action: Action, bindings: Bindings) -> bool:
        known = all(check(action) is True for check in self._login) and (self._facts is None or self._facts(action) is True)
        return known and (self._condition is None or self._condition(bindings) is True)
