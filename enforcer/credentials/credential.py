"""A named credential: where its value comes from, and whom and where it is for.

What lives here: the values, and whether a use is within the binding. What must not: reading a value (source.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.glob import Glob, any_of
from capd.enforcer.policy.host_pattern import HostPattern, any_host

NOT_BOUND: Final = "credential_not_bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """All of a file, without the line end behind it."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdSource:
    """A credential that systemd gives to the enforcer's unit, by its name in `$CREDENTIALS_DIRECTORY` (systemd.exec(5))."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSource:
    """One variable of a file with lines `KEY=value` (systemd.exec(5), EnvironmentFile=)."""

    path: Path
    variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSource:
    """What a program prints.

    Attributes:
        words: the program, by an absolute path, and its arguments; no shell reads them.
        timeout_seconds: how long it may take.
        ttl_seconds: how long what it printed is used.
    """

    words: tuple[str, ...]
    timeout_seconds: float
    ttl_seconds: float


Source = FileSource | SystemdSource | EnvironmentSource | CommandSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential.

    Attributes:
        name: by which rules ask for it.
        source: of its value.
        hosts: it may be sent to.
        ports: of those hosts.
        principals: whose runs it may be used for, as in `match` of a rule; none: anybody's.
        user: that belongs to it: of `basic`, or the id of an AWS access key.
    """

    name: str
    source: Source
    hosts: Sequence[HostPattern]
    ports: Sequence[int]
    principals: Sequence[Glob] = ()
    user: str | None = None

    def check(self, principal: Principal | None, host: str, port: int) -> None:
        """Check that a use is within the binding.

        Args:
            principal: whom the run acts for.
            host: normalised name or address of the target.
            port: of the target.

        Raises:
            CredentialError: it is not.
        """
        if not any_host(self.hosts)(host):
            raise CredentialError(f"the credential {self.name} is not for the host {host}", NOT_BOUND)
        if port not in self.ports:
            raise CredentialError(f"the credential {self.name} is not for port {port}", NOT_BOUND)
        if self.principals and not self._is_for(principal):
            raise CredentialError(f"the credential {self.name} is not for whom this run acts for", NOT_BOUND)

    def _is_for(self, principal: Principal | None) -> bool:
        if principal is None:
            return False
        # As in `match` of a rule: a pattern without a kind is for names, so that no name can pass for one of another kind.
        names = any_of([glob for glob in self.principals if ":" not in glob.text])
        kinds = any_of([glob for glob in self.principals if ":" in glob.text])
        return names(principal.name) is True or kinds(f"{principal.kind}:{principal.name}") is True
