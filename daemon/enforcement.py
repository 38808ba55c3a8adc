"""`[enforcement]`: what is forced through the proxy, and how it works.

What lives here: the keys. What must not: rules, which are the policy's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PORT_MAX: Final = 65_535
WORKERS_MAX: Final = 64


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class ClientCertificateSection(BaseModel):
    """`[[enforcement.client_certificates]]`: what the enforcer shows to a server that asks for a certificate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, description="name of the server, exactly")
    certificate: AbsolutePath = Field(description="PEM, with its chain; the enforcer's user reads it")
    key: AbsolutePath = Field(description="PEM; the same")


class EnforcementSection(BaseModel):
    """`[enforcement]`: the proxy between agents and their targets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["off", "observe", "enforce"] = Field(
        default="off", description="`enforce` carries out what the policy decides; `off`: no proxy, agents are only recorded"
    )
    user: str | None = Field(
        default=None,
        description="the enforcer's user; default: `capd-enforcer` if it exists, else who owns its files, else a number",
    )
    proxy_port: int = Field(default=15001, ge=1, le=PORT_MAX, description="where it listens, on 127.0.0.1 and ::1")
    workers: int = Field(default=0, ge=0, le=WORKERS_MAX, description="processes; 0: one for each processor core")
    policy_dir: AbsolutePath = Field(default=Path("/etc/capd/policy.d"), description="the policy: its files `*.yaml`")
    ca_file: AbsolutePath | None = Field(
        default=None, description="certificates (PEM) that targets are verified with, beside the system's"
    )
    client_certificates: tuple[ClientCertificateSection, ...] = Field(
        default=(), description="certificates for targets that ask for one"
    )
