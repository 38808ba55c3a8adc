"""Credentials as the configuration names them, as the enforcer has them.

What lives here: the way from the one to the other. What must not: values; pydantic, which is to stay out
of a role (settled.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from capd.enforcer.credentials.credential import (
    CommandSource,
    Credential,
    EnvironmentSource,
    FileSource,
    Source,
    SystemdSource,
)
from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.host_pattern import HostPattern

if TYPE_CHECKING:
    from capd.daemon.credentials_section import CredentialSection


def credentials_of(sections: Mapping[str, CredentialSection]) -> dict[str, Credential]:
    """Give the credentials of a configuration, by name."""
    return {
        name: Credential(
            name=name,
            source=_source(one),
            hosts=tuple(HostPattern.parse(host) for host in one.hosts),
            ports=tuple(one.ports),
            principals=tuple(Glob(principal) for principal in one.principals),
            user=one.user,
            databases=tuple(Glob(database) for database in one.databases),
            weak_methods=frozenset(one.weak_methods),
            placeholder=one.placeholder,
        )
        for name, one in sections.items()
    }


def _source(one: CredentialSection) -> Source:
    if one.file is not None:
        return FileSource(path=one.file)
    if one.systemd is not None:
        return SystemdSource(name=one.systemd)
    if one.environment_file is not None:
        assert one.variable is not None
        return EnvironmentSource(path=one.environment_file, variable=one.variable)
    assert one.command is not None
    return CommandSource(words=tuple(one.command), timeout_seconds=one.timeout_seconds, ttl_seconds=one.ttl_seconds)
