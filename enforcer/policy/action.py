"""The action: one message of an agent, in the one form in which every protocol's messages are judged.

What lives here: the facts. What must not: how a protocol's message becomes one (http_request.py, sql_statement.py), rules.

Three values: what is known to be so, known not to be so, and not known (None). An action that is not complete is one of
which capd could not read everything that a rule may ask for; `problems` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

from capd.enforcer.policy.protocol import PROTOCOLS

Address = IPv4Address | IPv6Address
Tri = bool | None
"""True, False, or not known."""

_STRICT: Final = {"extra": "forbid"}
"""For whoever reads these from JSON (action_json.py): a key that means nothing is a mistake."""

UNREADABLE_HOST: Final = "?"
"""Stands for a host that has no normal form. It could be any: no rule that names hosts certainly matches it, or does not."""
UNKNOWN_SCHEMA: Final = "?."
"""Before the name of a relation whose schema is not known: it could be any."""
COMMANDS: Final = "; "
"""Between the commands of a message that has several."""
SUBCOMMAND: Final = "|"
"""Between a command of Redis and its subcommand: `CONFIG|SET`."""
PRINCIPAL_KINDS: Final = ("user", "unit", "oidc", "saml")
CONNECT: Final = "connect"
"""The operation of a connection whose messages capd does not judge one by one, and of the opening of one whose are."""


class Tls(StrEnum):
    """How the connection to the target is protected."""

    NONE = "none"
    INSPECTED = "inspected"
    PASSTHROUGH = "passthrough"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whom the run acts for.

    Attributes:
        name: of the identity.
        kind: one of PRINCIPAL_KINDS.
        verified: whether an identity provider vouches for it.
        groups: as the identity provider says.
    """

    __pydantic_config__: ClassVar = _STRICT
    name: str
    kind: str = "user"
    verified: bool = False
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run; name and id are None where they are not known."""

    __pydantic_config__: ClassVar = _STRICT
    name: str | None = None
    id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is spoken to.

    Attributes:
        host: the name that the agent used, normalised (host_name.py), or the address if it used none.
        port: TCP port.
        address: where the connection really goes; None when that is not known.
        aliases: further names that the message claims and that are not `host`: SNI beside a different Host field.
        tls: how it is protected.
    """

    __pydantic_config__: ClassVar = _STRICT
    host: str
    port: int
    address: Address | None = None
    aliases: tuple[str, ...] = ()
    tls: Tls = Tls.UNKNOWN

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is claimed."""
        return (self.host, *self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What an action touches: a relation `schema.table`, a key; `access` is "read", "write" or "unknown"."""

    __pydantic_config__: ClassVar = _STRICT
    name: str
    access: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One message.

    Attributes:
        principal: None when it is not known.
        run: which.
        target: which.
        protocol: as protocol.py calls it.
        operation: HTTP method, CONNECT, first words of SQL statements, each once, with COMMANDS between, or a command of Redis.
        database: in which a session of a database is, in Redis by number; "" for none; None where it is not known.
        user: as whom it is; likewise.
        path: of HTTP, normalised (http_path.py); None where there is none, or it is not known.
        readings: of HTTP: the paths that servers take it for, where they differ in a known way; `path` is None then.
        oddities: what they differ about (http_path.ODDITIES); each is among the problems too.
        query: of HTTP, raw, without the question mark, "" for none; None where it is not known.
        effects: what it does, as protocol.EFFECTS says; None when that is not known.
        resources: what it does it to; None when that is not known.
        text: what was said: the text of a statement, the body; None when that is not known.
        facts: further facts by their name in protocol.FACTS; one that is missing is not known.
        problems: why it is not complete; none: it is.
    """

    __pydantic_config__: ClassVar = _STRICT
    principal: Principal | None = None
    run: Run = field(default_factory=Run)
    target: Target
    protocol: str
    operation: str
    database: str | None = None
    user: str | None = None
    path: str | None = None
    readings: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()
    query: str | None = None
    effects: frozenset[str] | None = None
    resources: tuple[Resource, ...] | None = None
    text: str | None = None
    facts: Mapping[str, Tri] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all of it could be read."""
        return not self.problems

    @property
    def opening(self) -> bool:
        """Whether it is the opening of a session in which messages are judged one by one: nothing is said yet."""
        return self.operation == CONNECT and PROTOCOLS[self.protocol].opens

    @property
    def path_alone(self) -> bool:
        """Whether all of it could be read but for a path of which all readings are known."""
        return bool(self.readings) and len(self.problems) == len(self.oddities)
