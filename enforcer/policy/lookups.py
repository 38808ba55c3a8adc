"""Which names a run may ask for: those that a rule could permit something for, and all that are only observed.

What lives here: what rules and scopes say of a run and a name, before there is a connection. What must not: DNS, deciding.

A name is a message to whoever serves its zone, whatever the answer. So one is looked up only for a run that a rule in force
could let speak to it; and where a scope observes, nothing is stopped, names neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from capd.enforcer.policy.action import CONNECT, Action, Principal, Run, Target, Tri
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.host_pattern import HostPattern, any_host
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.matcher import compile_match
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import TCP
from capd.enforcer.policy.rule import Effect
from capd.enforcer.policy.scope import Mode

Says = Callable[[str], bool]
"""Says of a name, in lower case and without a dot at its end, whether it may be asked for."""
_ASKED: Final = frozenset({"principals", "runs", "labels", "hosts"})
"""What is known when a name is asked for."""


def lookups(policy: Policy | None, principal: Principal | None, run: Run) -> Says:
    """Give what says which names a run may ask for; None: no policy is in force, and none may be."""
    if policy is None:
        return lambda _: False
    asking = Action(principal=principal, run=run, target=Target(host="", port=0), protocol=TCP, operation=CONNECT)
    about = [(rule, _of_run(rule.match, asking)) for rule in policy.rules if rule.enforced]
    # As the evaluator has it: what is not known of a run has a message held, and allows none.
    permitting = [
        rule.match
        for rule, answer in about
        if (rule.then is Effect.ALLOW and answer is True) or (rule.then is Effect.APPROVE and answer is not False)
    ]
    permitted = _any_name(match.hosts for match in permitting)
    scopes = [(scope, _of_run(scope.match, asking)) for scope in policy.scopes]
    observed = _any_name(scope.match.hosts for scope, answer in scopes if scope.mode is Mode.OBSERVE and answer is True)
    enforced = _any_name(
        scope.match.hosts
        for scope, answer in scopes
        if scope.mode is Mode.ENFORCE and answer is not False and scope.match.given <= _ASKED
    )
    return lambda name: permitted(name) or (observed(name) and not enforced(name))


def _of_run(match: Match, asking: Action) -> Tri:
    """Say whether a match is about a run, whatever it says to whom."""
    of_run = Match(principals=match.principals, runs=match.runs, labels=match.labels)
    return compile_match(of_run)(asking, Bindings(asking, ()))


def _any_name(hosts: Iterable[Sequence[HostPattern]]) -> Says:
    """Give what says whether a name is among any of these; an empty one has all."""
    named = list(hosts)
    if not named:
        return lambda _: False
    if not all(named):
        return lambda _: True
    matches = any_host([pattern for patterns in named for pattern in patterns])
    return lambda name: matches(name) is not False
