"""Which one host a request is for, and the refusal of what no policy can allow.

What lives here: names and ports from all that names them, against the connection; statuses of refusals. What must not: a
version of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.proxy.layer import Surroundings

BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
EXPECTATION_FAILED: Final = 417
MISDIRECTED: Final = 421
BAD_GATEWAY: Final = 502
AUTHORITIES_MAX: Final = 1_024
"""Remembered; agents ask the same few hosts again and again."""
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/?#]+)(?::([0-9]{1,5}))?", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class RequestRefused(Exception):  # noqa: N818 - an answer to a client, no failure of ours
    """A request that is never forwarded.

    Attributes:
        status: that it is answered with.
        reason: for a person.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def scheme_of(around: Surroundings) -> str:
    """Give the scheme that requests on this connection have."""
    return "https" if around.inspected else "http"


def one_host(named: Sequence[str], scheme: str | None, around: Surroundings) -> str:
    """Give the one host that everything names (RFC 9112 3.2, RFC 9113 8.3.1).

    Args:
        named: what the request has for it: absolute target, `:authority`, Host fields; none: the connection's.
        scheme: that it names, or None.
        around: its connection.

    Raises:
        RequestRefused: there is no such one, or it is not this connection's.
    """
    own = scheme_of(around)
    if len(named) == 1 and scheme is None:  # nearly always
        host = _authority(named[0], own, around)
        if (around.server_name is None or host == around.server_name) and not _is_address(host):
            return host
    hosts = [_authority(text, own, around) for text in named]
    if scheme is not None and scheme != own:
        raise RequestRefused(MISDIRECTED, f"the request is for {scheme}, its connection is {own}")
    if around.server_name is not None:
        hosts.append(around.server_name)
    different = sorted(set(hosts))
    if len(different) > 1:
        raise RequestRefused(MISDIRECTED, f"the request names {' and '.join(different)} for its target")
    host = different[0] if different else around.destination.address
    if _is_address(host) and host != around.destination.address:
        raise RequestRefused(MISDIRECTED, f"the request is for {host}, its connection goes to {around.destination.address}")
    return host


def authority_text(host: str, around: Surroundings) -> str:
    """Write a host as a target gets it, with the connection's port where that is not the scheme's own."""
    text = f"[{host}]" if ":" in host else host
    port = around.destination.port
    return text if port == _DEFAULT_PORTS[scheme_of(around)] else f"{text}:{port}"


def _authority(text: str, scheme: str, around: Surroundings) -> str:
    try:
        host, named_port = _read_authority(text)
    except HostNameError as error:
        raise RequestRefused(BAD_REQUEST, str(error)) from error
    port = named_port or _DEFAULT_PORTS[scheme]
    if port != around.destination.port:
        reason = f"the request is for port {port}, its connection goes to port {around.destination.port}"
        raise RequestRefused(MISDIRECTED, reason)
    return host


@lru_cache(maxsize=AUTHORITIES_MAX)
def _read_authority(text: str) -> tuple[str, int | None]:
    """Give host, normalised, and port. Raises HostNameError, which is not remembered: what is, is short."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise HostNameError("the Host is none that everybody reads alike")
    return normal_host(found[1]), int(found[2]) if found[2] else None


def _is_address(host: str) -> bool:
    """Say whether a normalised host is an address: no name ends with a number."""
    return ":" in host or (host[-1:].isdigit() and address(host) is not None)
