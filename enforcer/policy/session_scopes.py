"""Recording levels that a policy sets, asked of a session: by what is known of it so far, before any of its messages is judged.

What lives here: the scopes that say a level, their plain form, asking them. What must not: what a level does to a recording.

The recorder asks, not the proxy: it records runs that are not forced through the proxy too, and what it may not store it must
know before a decision about a message is there. The scopes, and what asks them, are the ones that decisions are made with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from capd.enforcer.policy.action import CONNECT, UNREADABLE_HOST, Action, Address, Principal, Run, Target, Tls, Tri
from capd.enforcer.policy.address_range import AddressRange
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.port_range import PortRange
from capd.enforcer.policy.protocol import PROTOCOLS, TCP, TLS
from capd.enforcer.policy.scope import Recording, Scope

Plain = Mapping[str, Any]
"""Scopes, or one of them, in plain values: keys of a match as texts."""
RUN_KEYS: Final = frozenset({"principals", "runs", "labels"})
"""Of a match: what a run has before it has a session."""
_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "principals": Glob,
    "runs": Glob,
    "protocols": str,
    "hosts": HostPattern,
    "ports": PortRange.parse,
    "addresses": AddressRange.parse,
    "tls": Tls,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What is known of a session.

    Attributes:
        principal, run: whose it is.
        hosts: names that the agent used, normalised; the address if it is known that it used none; none: it may yet use one.
        port: of the target; 0: it has none.
        address: of the target; None where that is not known.
        protocol: as policies call it; None: it may yet be any.
        encrypted: whether TLS was seen that can be read.
    """

    principal: Principal | None
    run: Run
    hosts: Sequence[str] = ()
    port: int = 0
    address: Address | None = None
    protocol: str | None = None
    encrypted: bool = False


class SessionScopes:
    """The scopes of a policy that say a level, in their order."""

    def __init__(self, scopes: Sequence[Scope], passthrough: Sequence[Match] = ()) -> None:
        """Take the scopes, and to which targets TLS is not opened."""
        self._scopes = [scope for scope in scopes if scope.recording is not None]
        self._matchers = [compile_match(scope.match) for scope in self._scopes]
        self._passthrough = list(passthrough)
        self._passed = [compile_match(match) for match in passthrough]

    def __bool__(self) -> bool:
        """Say whether any session can have a level by it."""
        return bool(self._scopes)

    def of_session(self, facts: SessionFacts) -> Iterator[tuple[Recording, Tri]]:
        """Give the level of each scope that the session has or may have, up to the first that it certainly has."""
        protocols = [facts.protocol] if facts.protocol is not None else list(PROTOCOLS)
        yield from self._asked([action for protocol in protocols for action in self._actions(facts, protocol)], None)

    def of_run(self, principal: Principal | None, run: Run) -> Iterator[tuple[Recording, Tri]]:
        """Give the same of a run itself, which only scopes that ask for nothing else can be about."""
        yield from self._asked([_action(SessionFacts(principal=principal, run=run), TCP, Tls.UNKNOWN)], RUN_KEYS)

    def _asked(self, actions: Sequence[Action], keys: frozenset[str] | None) -> Iterator[tuple[Recording, Tri]]:
        for scope, matcher in zip(self._scopes, self._matchers, strict=True):
            if keys is not None and not scope.match.given <= keys:
                continue
            answer = _agreed(matcher, actions)
            if answer is not False and scope.recording is not None:
                yield scope.recording, answer
            if answer is True:
                return

    def _actions(self, facts: SessionFacts, protocol: str) -> Iterator[Action]:
        """Give what the proxy may be asked about: what is said in TLS, or TLS itself where that passes unopened."""
        if protocol == TLS:
            yield _action(facts, TLS, Tls.PASSTHROUGH)
        elif not facts.encrypted:
            yield _action(facts, protocol, Tls.NONE if facts.protocol is not None else Tls.UNKNOWN)
        else:
            whole = _action(facts, TLS, Tls.PASSTHROUGH)
            passed = {matcher(whole, Bindings(whole, ())) for matcher in self._passed}
            if passed & {True, None}:
                yield whole
            if True not in passed:
                yield _action(facts, protocol, Tls.INSPECTED)

    def plain(self) -> Plain:
        """Give them in plain values, for a file or another process."""
        scopes = [
            {"id": one.id, "recording": one.recording and one.recording.value, **_plain(one.match)} for one in self._scopes
        ]
        return {"scopes": scopes, "passthrough": [_plain(match) for match in self._passthrough]}

    @classmethod
    def from_plain(cls, found: Plain) -> SessionScopes:
        """Read what `plain` gave.

        Raises:
            ValueError, TypeError, KeyError: it is nothing of that.
        """
        scopes = [Scope(id=one["id"], match=_match(one), recording=Recording(one["recording"])) for one in found["scopes"]]
        return cls(scopes, [_match(one) for one in found["passthrough"]])


def _action(facts: SessionFacts, protocol: str, tls: Tls) -> Action:
    hosts = tuple(facts.hosts) or (UNREADABLE_HOST,)
    target = Target(host=hosts[0], aliases=hosts[1:], port=facts.port, address=facts.address, tls=tls)
    return Action(principal=facts.principal, run=facts.run, target=target, protocol=protocol, operation=CONNECT)


def _agreed(matcher: Matcher, actions: Sequence[Action]) -> Tri:
    answers = {matcher(action, Bindings(action, ())) for action in actions}
    return answers.pop() if len(answers) == 1 else None


def _plain(match: Match) -> Plain:
    labels = {name: [glob.text for glob in globs] for name, globs in match.labels}
    return {"labels": labels, **{key: [_text(one) for one in getattr(match, key)] for key in _READ}}


def _text(value: object) -> str:
    return value.text if isinstance(value, Glob | HostPattern) else str(value)


def _match(plain: Plain) -> Match:
    labels = tuple((str(name), tuple(Glob(text) for text in texts)) for name, texts in plain["labels"].items())
    keys: dict[str, Any] = {key: tuple(read(text) for text in plain[key]) for key, read in _READ.items()}
    return Match(labels=labels, **keys)
