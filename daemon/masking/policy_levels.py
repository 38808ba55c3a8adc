"""What the policy says of recording, as the recorder has it.

What lives here: which policy that is, and from the facts in records to those that a policy asks for. What must not: files
(recorder_policy.py), what a level does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.policy.protocol import HTTP, TLS, WEBSOCKET, of_recorded
from capd.enforcer.policy.session_scopes import SessionFacts, SessionScopes
from capd.recording.record import Value

NOWHERE: Final = ""
"""Stands for the name of a peer that has neither a name nor an address: no pattern but `*` is for it."""
NAMES: Final = "names"
"""Under this, what a session's facts have of every name that was told of its peer."""
ENCRYPTED: Final = "encrypted"
"""Under this, whether TLS was seen in it that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy, as far as recording is concerned.

    Attributes:
        version: of it; "": there is none.
        scopes: that say a level.
        known: False: there is one, and nobody could read it.
    """

    version: str = ""
    scopes: SessionScopes = field(default_factory=lambda: SessionScopes(()))
    known: bool = True

    def same(self, other: Policy) -> bool:
        """Say whether it says the same as another one."""
        return self.save() == other.save()

    def save(self) -> list[object]:
        """Give it as plain values."""
        return [self.version, self.known, dict(self.scopes.plain())]

    @classmethod
    def restored(cls, saved: object) -> Policy:
        """Read what `save` gave; of an earlier capd, which knew none, that there is none.

        Raises:
            ValueError, TypeError, LookupError: it is nothing of that.
        """
        if saved is None:
            return cls()
        if not isinstance(saved, Sequence) or isinstance(saved, str | bytes):
            raise TypeError("no policy")
        version, known, scopes = saved
        return cls(version=str(version), known=known is True, scopes=SessionScopes.from_plain(scopes))


def session_facts(facts: Mapping[str, Value], protocol: str | None) -> SessionFacts:
    """Give what a policy asks for.

    Args:
        facts: as `Levels.of` has them.
        protocol: as its decoder calls it; "" for one that nobody decodes; None while it is not known.
    """
    target, known, labels = (_mapping(facts.get(name)) for name in ("target", "principal", "labels"))
    name, host, port = known.get("name"), target.get("host"), target.get("port")
    principal = None
    if isinstance(name, str):
        principal = Principal(name=name, kind=str(known.get("kind") or "user"), verified=known.get("verified") is True)
    run_name = facts.get("run_name")
    texts = {key: value for key, value in labels.items() if isinstance(value, str)}
    spoken = protocol if protocol in {None, WEBSOCKET} else of_recorded(protocol or "")
    return SessionFacts(
        principal=principal,
        run=Run(name=run_name if isinstance(run_name, str) else None, labels=texts),
        hosts=_hosts(facts, spoken),
        port=port if isinstance(port, int) else 0,
        address=address(host) if isinstance(host, str) else None,
        protocol=spoken,
        encrypted=facts.get(ENCRYPTED) is True,
    )


def _hosts(facts: Mapping[str, Value], protocol: str | None) -> list[str]:
    """Give the names of the target, and its address once it is known that there is none; nothing while it is not."""
    names = facts.get(NAMES)
    told = [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
    if protocol in {None, HTTP, WEBSOCKET, TLS} and told:
        return [_normal(name) for name in told]
    if protocol in {None, HTTP, WEBSOCKET}:
        return []
    host = _mapping(facts.get("target")).get("host")
    return [_normal(host)] if isinstance(host, str) and address(host) is not None else [NOWHERE]


def _normal(text: str) -> str:
    try:
        return normal_host(f"[{text}]" if ":" in text and not text.startswith("[") else text)
    except HostNameError:
        return "?"


def _mapping(value: Value) -> Mapping[str, Value]:
    return value if isinstance(value, Mapping) else {}
