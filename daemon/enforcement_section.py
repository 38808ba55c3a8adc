"""`[enforcement]`: whether and how agents' traffic is forced through the enforcer.

What lives here: the pydantic model of the section. What must not: any rule (enforcer/forcing), what follows (enforcement.py).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Port = Annotated[int, Field(ge=1, le=65535)]


class EnforcementSection(BaseModel):
    """`[enforcement]`: forcing traffic through the enforcer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

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
    proxy_port: Port = Field(default=17861, description="where the enforcer listens for redirected connections")
    resolver_port: Port = Field(default=17853, description="where it answers DNS")
    metadata: Literal["deny", "judge"] = Field(
        default="deny", description="addresses of cloud metadata: refused before any policy, or judged like others"
    )

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        if self.proxy_port == self.resolver_port:
            raise ValueError("proxy_port and resolver_port must be two ports")
        return self
