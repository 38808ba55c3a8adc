"""`[credentials.NAME]`: where a credential's value comes from, and whom and where it may be used for.

What lives here: the pydantic model of the section. What must not: values, which no configuration has; what the sections become
(credentials.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from capd.daemon.section import AbsolutePath, Port, Section
from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.policy.host_pattern import ANY, HostPattern

TIMEOUT_SECONDS_MAX: Final = 30
"""A client of HTTP waits as long, and longer."""
TTL_SECONDS_MAX: Final = 86_400
DATABASE_CHARACTERS_MAX: Final = 128
"""Names of databases have 64 at most."""
PLACEHOLDER_CHARACTERS_MAX: Final = 128
"""It is no secret: any word will do."""


def _host(value: str) -> str:
    if value == ANY:
        raise ValueError("a credential is bound to hosts; `*` would be all of them")
    HostPattern.parse(value)
    return value


def _program(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if value is not None and (not value or not Path(value[0]).is_absolute()):
        raise ValueError("begins with the absolute path of a program; no shell reads it")
    return value


Host = Annotated[str, AfterValidator(_host)]
Words = Annotated[tuple[str, ...] | None, AfterValidator(_program)]
Name = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\z")]
Database = Annotated[str, StringConstraints(min_length=1, max_length=DATABASE_CHARACTERS_MAX)]
FileName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\z")]


class CredentialSection(Section):
    """`[credentials.NAME]`: a credential; one of `file`, `systemd`, `environment_file` and `command` says where it is."""

    file: AbsolutePath | None = Field(default=None, description="the value is all of this file, which only root can write")
    systemd: FileName | None = Field(default=None, description="name in LoadCredential= of the enforcer's unit")
    environment_file: AbsolutePath | None = Field(default=None, description="file with lines KEY=value, as `file`")
    variable: str | None = Field(default=None, min_length=1, description="of `environment_file`: which KEY")
    command: Words = Field(default=None, description="program and arguments that print the value; no shell")
    timeout_seconds: int = Field(default=10, ge=1, le=TIMEOUT_SECONDS_MAX, description="of `command`: how long it may take")
    ttl_seconds: int = Field(default=300, ge=1, le=TTL_SECONDS_MAX, description="of `command`: how long a value is used")
    hosts: tuple[Host, ...] = Field(min_length=1, description="it may be sent to, as in `match` of a rule, but not `*`")
    ports: tuple[Port, ...] = Field(min_length=1, description="of those hosts")
    principals: tuple[str, ...] = Field(default=(), description="whose runs it is for, as in `match`; none: anybody's")
    user: str | None = Field(
        default=None, min_length=1, description="that belongs to it: of basic, an AWS access key's id, of a database"
    )
    databases: tuple[Database, ...] = Field(default=(), description="that it is for, with `*` and `?`; none: any")
    weak_methods: tuple[WeakMethod, ...] = Field(default=(), description="of databases, that it may be used with")
    placeholder: str | None = Field(
        default=None, min_length=1, max_length=PLACEHOLDER_CHARACTERS_MAX, description="that agents' clients have in its place"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        said = [self.file, self.systemd, self.environment_file, self.command]
        if sum(one is not None for one in said) != 1:
            raise ValueError("says one of file, systemd, environment_file, command")
        if (self.environment_file is None) != (self.variable is None):
            raise ValueError("environment_file and variable go together")
        if self.user is not None and not (self.user.isascii() and self.user.isprintable()):
            raise ValueError("user must be ASCII that can be printed")
        if self.placeholder is not None and not (self.placeholder.isascii() and self.placeholder.isprintable()):
            raise ValueError("placeholder must be ASCII that can be printed")
        return self
