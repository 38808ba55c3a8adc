"""An HTTP request as an action: what of its head decides where it goes and what it does.

What lives here: reading of target, Host and SNI into one target, one path. What must not: parsing of bytes (decoders/http1).

Whatever two readers could understand differently makes the action incomplete, with the reason: no rule that allows matches it
then, and every rule that denies and could match does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from capd.enforcer.policy.action import UNREADABLE_HOST, Action, Principal, Run, Target, Tls, Tri
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.policy.http_path import ODDITIES, PathError, is_plain, read_path
from capd.enforcer.policy.port_range import PORT_MAX
from capd.enforcer.policy.protocol import HTTP

OVERRIDES: Final = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "x-original-method"}
)
"""Fields by which some servers take another method or path than the request line's."""
FORWARDED: Final = frozenset({"x-forwarded-host", "x-host", "x-http-host-override"})
"""Fields by which some servers take another host: no matter where they name the same."""
PARAMETERS: Final = frozenset({"_method", "$httpmethod"}) | OVERRIDES
"""Parameters of a query by which some servers take another method: Laravel's and Symfony's, Google's."""
NAMING: Final = (":authority", "host")
"""Fields that name the target; the first in HTTP/2 (RFC 9113 section 8.3.1)."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OTHER: Final = OVERRIDES | FORWARDED
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)
_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]*)([^?]*)(\?.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]@]*)(?::(\d{0,5}))?", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_NO_LETTER: Final = re.compile(r"[^a-z0-9]")
_SEPARATOR: Final = re.compile(r"[&;]")
REMEMBERED_MAX: Final = 4_096
"""Names and authorities that were read; agents use the same few again and again."""
REMEMBERED_CHARACTERS_MAX: Final = 300
"""Of one of them: a host name has at most 253. So what is remembered stays small, whatever an agent sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request's head, as it was sent, and what is known of its connection.

    Attributes:
        method, target: of the request line; text as decoders give it (Latin-1).
        headers: fields in order, names as sent.
        sni: server name of the TLS handshake; None without TLS or where it is not known.
        connection: where it goes: port, address and TLS. Its host is used only when the request names none.
        truncated: whether there is more of the body than `body`; None: that is not known.
        body: text of the body; None when it was not read.
        problems: why what is given here is not all that was sent.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    sni: str | None = None
    connection: Target
    truncated: Tri = None
    body: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """What was found so far."""

    problems: list[str]
    hosts: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    path: str | None = None
    readings: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()
    query: str | None = None


def http_action(head: RequestHead, *, principal: Principal | None, run: Run, query_known: bool = True) -> Action:
    """Give the action of a request. Never raises: what has no one meaning is among its problems.

    Args:
        head: the request.
        principal: whom the run acts for.
        run: which.
        query_known: whether its query is as it was sent.
    """
    reading = _Reading(list(head.problems))
    if _METHOD.fullmatch(head.method) is None:
        reading.problems.append("the method is none")
    default = _default_port(head.connection)
    _read_target(head, default, reading)
    _read_fields(head, default, reading)
    if head.sni is not None:
        _take_host(head.sni, reading)
    hosts = list(dict.fromkeys(reading.hosts)) or [head.connection.host]
    agree = len(hosts) == 1 and set(reading.ports) <= {head.connection.port}
    if len(hosts) > 1:
        reading.problems.append(f"the request names {' and '.join(hosts)} for its target")
    if not set(reading.ports) <= {head.connection.port}:
        reading.problems.append(f"the request names another port than {head.connection.port}, where it goes")
    target = head.connection
    if hosts != [target.host] or target.aliases:
        target = replace(target, host=hosts[0], aliases=tuple(hosts[1:]))
    return Action(
        principal=principal,
        run=run,
        target=target,
        protocol=HTTP,
        operation=head.method,
        path=reading.path,
        readings=reading.readings,
        oddities=reading.oddities,
        query=reading.query if query_known else None,
        text=head.body,
        facts={"target.names_agree": agree, "http.body_truncated": head.truncated},
        problems=tuple(reading.problems),
    )


def _default_port(connection: Target) -> int:
    """Give the port that a Host field without one means; without knowing of TLS it can be either, and is taken for right."""
    if connection.tls is Tls.UNKNOWN:
        return connection.port
    return DEFAULT_PORTS["http" if connection.tls is Tls.NONE else "https"]


def _read_target(head: RequestHead, default: int, reading: _Reading) -> None:
    """Read the request target (RFC 9112 section 3.2)."""
    if head.method == "CONNECT":
        _take_authority(head.target, default, reading)
        return
    if head.target == "*":
        return
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is not None:
        _take_authority(absolute[2], DEFAULT_PORTS[absolute[1].lower()], reading)
        path, query = absolute[3] or "/", (absolute[4] or "")[1:]
    else:
        path, _, query = head.target.partition("?")
    _read_path(path, reading)
    if not is_clean_query(query):
        reading.problems.append("the query has characters that no client sends")
    else:
        reading.query = query
    overriding = overriding_parameters(query)
    if overriding:
        reading.problems.append(f"the request says something else to some servers: it has the parameter {overriding[0]}")


def is_clean_query(query: str) -> bool:
    """Say whether all of a query's characters are such as clients send."""
    return "#" not in query and _CONTROL.search(query) is None


def overriding_parameters(query: str) -> list[str]:
    """Give the names in PARAMETERS that a query has, in whichever case and encoding."""
    if "=" not in query or ("%" not in query and "method" not in query.lower()):
        return []
    names = (unquote_plus(part.partition("=")[0]).strip().lower() for part in _SEPARATOR.split(query))
    return sorted(PARAMETERS.intersection(names))


def _read_path(raw: str, reading: _Reading) -> None:
    if is_plain(raw):
        reading.path = raw
        return
    try:
        read = read_path(raw)
    except PathError as error:
        reading.problems.append(str(error))
        return
    if read.oddities:
        reading.readings, reading.oddities = read.readings, read.oddities
        reading.problems += [ODDITIES[name] for name in read.oddities]
    else:
        reading.path = read.readings[0]


def _read_fields(head: RequestHead, default: int, reading: _Reading) -> None:
    telling = [(read, value) for name, value in head.headers if (read := _telling(name)) is not None]
    for field_name in NAMING:
        hosts = [value for name, value in telling if name == field_name]
        for value in hosts:
            _take_authority(value.strip(" \t"), default, reading)
        if len(hosts) > 1:
            reading.problems.append(f"the request has more than one {field_name} field")
    elsewhere = {name for name, value in telling if name in FORWARDED and not _names_the_same(value, reading)}
    overriding = sorted(({name for name, _ in telling} & OVERRIDES) | elsewhere)
    if overriding:
        reading.problems.append(f"the request says something else to some servers: it has {', '.join(overriding)}")


def _names_the_same(value: str, reading: _Reading) -> bool:
    """Say whether a field of FORWARDED names the host that the request is for."""
    named = _Reading([])
    for one in value.split(","):
        _take_authority(one.strip(" \t"), DEFAULT_PORTS["https"], named)
    return not named.problems and set(named.hosts) <= set(reading.hosts)


def telling_names(fields: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Give which of NAMING, FORWARDED and OVERRIDES fields are, or are taken for, in their order: all that decides of them."""
    return tuple([read for name, _ in fields if (read := _telling(name)) is not None])


def _telling(name: str) -> str | None:
    """Give one of these for the name of a field that is one of them, or that some servers take for one."""
    return (_read_name if len(name) <= REMEMBERED_CHARACTERS_MAX else _read_name.__wrapped__)(name)


@lru_cache(maxsize=REMEMBERED_MAX)
def _read_name(name: str) -> str | None:
    lower = name.lower()
    if lower in NAMING:
        return lower
    # Servers with the variables of CGI (RFC 3875 4.1.18) take `X_Method_Override` for `X-Method-Override`.
    variable = _NO_LETTER.sub("-", lower)
    return variable if variable in _OTHER else None


def _take_authority(text: str, default: int, reading: _Reading) -> None:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        reading.problems.append("the request names a host in a form that readers take differently")
        reading.hosts.append(UNREADABLE_HOST)
        return
    _take_host(found[1], reading)
    port = int(found[2]) if found[2] else default
    if not 1 <= port <= PORT_MAX:
        reading.problems.append(f"the request names port {port}, which there is none")
    reading.ports.append(port)


def _take_host(text: str, reading: _Reading) -> None:
    try:
        host = _known_host(text) if len(text) <= REMEMBERED_CHARACTERS_MAX else normal_host(text)
    except HostNameError as error:
        reading.problems.append(str(error))
        host = UNREADABLE_HOST
    reading.hosts.append(host)


_known_host: Final = lru_cache(maxsize=REMEMBERED_MAX)(normal_host)
"""What raises is not remembered."""
