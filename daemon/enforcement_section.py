"""`[enforcement]`: whether and how agents' traffic is forced through the enforcer.

What lives here: the pydantic model of the section. What must not: any rule (enforcer/forcing), what follows (enforcement.py).
"""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from capd.daemon.pulse import WORKERS_MAX
from capd.daemon.section import AbsolutePath, Port, Section


class ClientCertificateSection(Section):
    """`[[enforcement.client_certificates]]`: what the enforcer shows to a target that asks for a certificate."""

    host: str = Field(min_length=1, description="name of the target, exactly")
    certificate: AbsolutePath = Field(description="PEM, with its chain; the enforcer reads it when it starts, as root")
    key: AbsolutePath = Field(description="PEM; the same")


HELPERS: Final = ("/run/systemd/journal/*", "/run/systemd/notify", "/run/systemd/userdb/*")
"""What programs tell or ask services of their host, which do nothing for them: log lines, readiness, names of users."""


class EnforcementSection(Section):
    """`[enforcement]`: forcing traffic through the enforcer."""

    mode: Literal["off", "observe", "enforce"] = Field(
        default="off",
        description="`enforce`: what does not reach the enforcer is refused; `observe`: TCP does, the rest is counted",
    )
    user: str | None = Field(
        default=None, description="the enforcer's user; default: `capd-enforcer` if it exists, else a free number"
    )
    cgroup: str | None = Field(
        default=None, description="the enforcer's cgroup by path; default: its unit's with systemd, else one that capd makes"
    )
    users: tuple[str, ...] = Field(
        default=(), description="users (names or numbers) whose traffic is forced wherever their processes live"
    )
    helpers: tuple[str, ...] = Field(
        default=HELPERS,
        description="unix sockets of programs outside of runs, to which runs may speak without an alarm: patterns of their "
        "names; abstract ones begin with `@`",
    )
    proxy_port: Port = Field(default=17861, description="where the enforcer listens for redirected connections")
    resolver_port: Port = Field(default=17853, description="where it answers DNS")
    approvers: tuple[str, ...] = Field(
        default=("capd-approvers",),
        description="groups of this host whose members may decide about what waits for approval, beside root",
    )
    workers: int = Field(default=0, ge=0, le=WORKERS_MAX, description="processes that serve; `0`: one for each processor core")
    ca_file: AbsolutePath | None = Field(
        default=None, description="certificates (PEM) that targets are verified with, beside the system's"
    )
    client_certificates: tuple[ClientCertificateSection, ...] = Field(
        default=(), description="certificates for targets that ask for one"
    )
    metadata: Literal["deny", "judge"] = Field(
        default="deny", description="addresses of cloud metadata: refused before any policy, or judged like others"
    )
    interim_answers: Literal["never", "known", "all"] = Field(
        default="known",
        description="clients of HTTP/1.1 that get `102 Processing` while a person is asked; `known`: those seen to bear it",
    )

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        if self.proxy_port == self.resolver_port:
            raise ValueError("proxy_port and resolver_port must be two ports")
        return self
