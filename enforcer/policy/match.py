"""What a rule is about: the conditions of its `match`, as values.

What lives here: the values. What must not: reading them (match_reading.py), asking them (matcher.py), comparing (coverage.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from capd.enforcer.policy.action import Tls
from capd.enforcer.policy.address_range import AddressRange
from capd.enforcer.policy.glob import Glob, PathGlob
from capd.enforcer.policy.host_pattern import HostPattern
from capd.enforcer.policy.port_range import PortRange
from capd.enforcer.policy.protocol import CONTENT_KEYS, PROTOCOLS, SESSION_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Conditions, all of which must hold; of a list, one must. What is empty asks for nothing. Lists are sorted.

    Attributes:
        principals: names, or `kind:name`.
        runs: names of runs.
        labels: labels of the run: name, and patterns for its value.
        protocols: names in protocol.PROTOCOLS.
        hosts: of the target; every name that the message claims must be among them.
        ports, addresses: of the target, as it is really connected to.
        tls: how the target is protected.
        databases, users: of the session of a database.
        methods, paths, path_regex, query_regex: of HTTP.
        commands, effects, resources: of statements.
        text_regex: for what was said.
        facts: facts that must be so.
    """

    principals: tuple[Glob, ...] = ()
    runs: tuple[Glob, ...] = ()
    labels: tuple[tuple[str, tuple[Glob, ...]], ...] = ()
    protocols: tuple[str, ...] = ()
    hosts: tuple[HostPattern, ...] = ()
    ports: tuple[PortRange, ...] = ()
    addresses: tuple[AddressRange, ...] = ()
    tls: tuple[Tls, ...] = ()
    databases: tuple[Glob, ...] = ()
    users: tuple[Glob, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[PathGlob, ...] = ()
    path_regex: str | None = None
    query_regex: str | None = None
    commands: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    resources: tuple[Glob, ...] = ()
    text_regex: str | None = None
    facts: tuple[tuple[str, bool], ...] = ()

    @property
    def given(self) -> frozenset[str]:
        """The keys that ask for something."""
        return frozenset(one.name for one in fields(self) if getattr(self, one.name))

    @property
    def content(self) -> frozenset[str]:
        """Those of them that ask for what a message says."""
        return self.given & (CONTENT_KEYS | {"facts"})

    @property
    def of_protocols(self) -> frozenset[str]:
        """The protocols of which a message can be meant: those named, as far as they have all keys that are given."""
        named = frozenset(self.protocols or PROTOCOLS)
        wanted = self.given & (CONTENT_KEYS | SESSION_KEYS)
        foreign = {prefix for name, _ in self.facts if (prefix := f"{name.partition('.')[0]}.") in _PREFIXES}
        return frozenset(
            name
            for name in named
            if wanted <= PROTOCOLS[name].keys | PROTOCOLS[name].session_keys and foreign <= PROTOCOLS[name].variables
        )


_PREFIXES: Final = frozenset[str]().union(*(protocol.variables for protocol in PROTOCOLS.values()))
