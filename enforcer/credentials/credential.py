"""A named credential: where its value comes from, and whom and where it is for.

What lives here: the values, and whether a use is within the binding. What must not: reading a value (source.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.method import WeakMethod
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
        user: that belongs to it: of `basic`, the id of an AWS access key, or of a database; None there: whom the agent names.
        databases: that it may be used for; none: any, and what is no database.
        weak_methods: that it may be used with.
        placeholder: what agents' clients have in its place; None: they are asked for nothing.
    """

    name: str
    source: Source
    hosts: Sequence[HostPattern]
    ports: Sequence[int]
    principals: Sequence[Glob] = ()
    user: str | None = None
    databases: Sequence[Glob] = ()
    weak_methods: frozenset[WeakMethod] = frozenset()
    placeholder: str | None = None

    def check(self, principal: Principal | None, host: str, port: int) -> None:
        """Check that a use is within the binding.

        Args:
            principal: whom the run acts for.
            host: normalised name or address of the target.
            port: of the target.

        Raises:
            CredentialError: it is not.
        """
        self.check_target(host, port)
        if self.principals and not self._is_for(principal):
            raise CredentialError(f"the credential {self.name} is not for whom this run acts for", NOT_BOUND)

    def check_target(self, host: str, port: int) -> None:
        """Check the target alone; arguments and errors as `check` has."""
        if not any_host(self.hosts)(host):
            raise CredentialError(f"the credential {self.name} is not for the host {host}", NOT_BOUND)
        if port not in self.ports:
            raise CredentialError(f"the credential {self.name} is not for port {port}", NOT_BOUND)

    def check_database(self, database: str | None) -> None:
        """Check that a session may be in a database.

        Args:
            database: that the agent wants; None: none, or not known.

        Raises:
            CredentialError: it may not.
        """
        if self.databases and (database is None or any_of(self.databases)(database) is not True):
            raise CredentialError(f"the credential {self.name} is not for the database {database or '(none)'}", NOT_BOUND)

    def check_request(self) -> None:
        """Check that it may be put into a request of HTTP.

        Raises:
            CredentialError: it is for databases.
        """
        if self.databases:
            raise CredentialError(f"the credential {self.name} is for databases", NOT_BOUND)

    def _is_for(self, principal: Principal | None) -> bool:
        if principal is None:
            return False
        # As in `match` of a rule: a pattern without a kind is for names, so that no name can pass for one of another kind.
        names = any_of([glob for glob in self.principals if ":" not in glob.text])
        kinds = any_of([glob for glob in self.principals if ":" in glob.text])
        return names(principal.name) is True or kinds(f"{principal.kind}:{principal.name}") is True
