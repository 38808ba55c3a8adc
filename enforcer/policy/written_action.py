"""Actions as people write them: `POST https://api.example.com/v1`, `connect db:5432`, `sql db:5432 SELECT 1`.

What lives here: reading that. What must not: what comes of it.

What is not written is assumed, and said to be: an address for documentation (RFC 5737) where the host is a name, TLS that capd
inspects for `https`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.redis.inline import split
from capd.enforcer.policy.action import CONNECT, Action, Address, Principal, Run, Target, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import normal_pattern
from capd.enforcer.policy.http_request import DEFAULT_PORTS, RequestHead, http_action
from capd.enforcer.policy.port_range import PORT_MAX
from capd.enforcer.policy.protocol import MYSQL, POSTGRESQL, REDIS, TCP, TLS
from capd.enforcer.policy.redis_command import redis_action
from capd.enforcer.policy.sql_statement import sql_action

ASSUMED_ADDRESS: Final = "192.0.2.1"
PORTS: Final = {POSTGRESQL: 5432, MYSQL: 3306, REDIS: 6379}
"""Where a database is that is written without a port."""
_STATEMENTS: Final = {"sql": POSTGRESQL, POSTGRESQL: POSTGRESQL, MYSQL: MYSQL}
"""What is written before a statement, and what it is."""
_HTTP: Final = re.compile(r"(\S+)\s+(https?)://([^/?#\s]+)(\S*)", re.IGNORECASE | re.ASCII)
_PLACE: Final = re.compile(r"(\[[^\]\s]+\]|[^:\s]+)(?::(\d{1,5}))?", re.ASCII)
FORMS: Final = (
    "write `METHOD URL`, `connect HOST:PORT`, `open PROTOCOL HOST[:PORT]`, or `sql HOST[:PORT] STATEMENT`, "
    "for MySQL `mysql HOST[:PORT] STATEMENT`, for Redis `redis HOST[:PORT] COMMAND`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known beside what is written.

    Attributes:
        principal: whom the run acts for.
        run: which.
        address: where the connection goes; None: the host's if it is one, else ASSUMED_ADDRESS.
        tls: how it is protected; None: as the text says.
        database, user: of the session of a database; None: not known.
    """

    principal: Principal | None = None
    run: Run = field(default_factory=Run)
    address: Address | None = None
    tls: Tls | None = None
    database: str | None = None
    user: str | None = None


def written_action(text: str, known: Circumstances) -> Action:
    """Read one.

    Raises:
        ValueError: it is none; the message says how one is written.
    """
    word, _, rest = text.strip().partition(" ")
    if word == "connect":
        return _connection(rest.strip(), known)
    if word == "open":
        protocol, _, where = rest.strip().partition(" ")
        return _opening(protocol, where.strip(), known)
    if word == REDIS:
        where, _, command = rest.strip().partition(" ")
        return _command(where, command.strip(), known)
    if word in _STATEMENTS:
        where, _, statement = rest.strip().partition(" ")
        if not statement.strip():
            raise ValueError(f"{text!r} has no statement; {FORMS}")
        return _statement(_STATEMENTS[word], where, statement.strip(), known)
    found = _HTTP.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no action; {FORMS}")
    return _request(found, known)


def _request(found: re.Match[str], known: Circumstances) -> Action:
    method, scheme, authority, rest = found.groups()
    scheme = scheme.lower()
    tls = known.tls or (Tls.INSPECTED if scheme == "https" else Tls.NONE)
    place = _PLACE.fullmatch(authority)
    port = int(place[2]) if place and place[2] else DEFAULT_PORTS[scheme]
    literal = address(authority.strip("[]")) if place is None or place[2] is None else address(place[1].strip("[]"))
    path = rest if rest.startswith("/") else f"/{rest}"
    connection = Target(
        host="unnamed.invalid", port=port, address=known.address or literal or address(ASSUMED_ADDRESS), tls=tls
    )
    # A client sends what is beyond ASCII in UTF-8; as decoders give bytes, each is a character.
    wire = path.partition("#")[0].encode("utf-8", "surrogatepass").decode("latin-1")
    head = RequestHead(method=method, target=wire, headers=(("Host", authority),), connection=connection)
    return http_action(head, principal=known.principal, run=known.run)


def _statement(protocol: str, where: str, statement: str, known: Circumstances) -> Action:
    target = _target(where, known, port=PORTS[protocol], tls=known.tls or Tls.NONE)
    return sql_action(
        statement,
        principal=known.principal,
        run=known.run,
        target=target,
        protocol=protocol,
        login=(known.database, known.user),
    )


def _command(where: str, command: str, known: Circumstances) -> Action:
    words = split(command.encode("utf-8", "surrogateescape"))
    if not words:
        raise ValueError(f"{command!r} is no command of Redis; {FORMS}")
    return redis_action(words, (), _opening(REDIS, where, known))


def _opening(protocol: str, where: str, known: Circumstances) -> Action:
    if protocol not in PORTS:
        raise ValueError(f"{protocol!r} is none of {', '.join(PORTS)}; {FORMS}")
    target = _target(where, known, port=PORTS[protocol], tls=known.tls or Tls.NONE)
    return Action(
        principal=known.principal,
        run=known.run,
        target=target,
        protocol=protocol,
        operation=CONNECT,
        database=known.database,
        user=known.user,
    )


def _connection(where: str, known: Circumstances) -> Action:
    tls = known.tls or Tls.NONE
    target = _target(where, known, port=None, tls=tls)
    protocol = TLS if tls in {Tls.PASSTHROUGH, Tls.INSPECTED} else TCP
    return Action(principal=known.principal, run=known.run, target=target, protocol=protocol, operation=CONNECT)


def _target(where: str, known: Circumstances, *, port: int | None, tls: Tls) -> Target:
    found = _PLACE.fullmatch(where)
    named = None if found is None else (int(found[2]) if found[2] else port)
    if found is None or named is None or not 1 <= named <= PORT_MAX:
        raise ValueError(f"{where!r} names no host and port; {FORMS}")
    host = normal_pattern(found[1].removeprefix("[").removesuffix("]"))
    return Target(host=host, port=named, address=known.address or address(host) or address(ASSUMED_ADDRESS), tls=tls)


def is_assumed(action: Action, known: Circumstances) -> bool:
    """Say whether the action's address was assumed."""
    return known.address is None and str(action.target.address) == ASSUMED_ADDRESS and action.target.host != ASSUMED_ADDRESS
