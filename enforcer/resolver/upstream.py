"""Which servers are asked: resolv.conf(5), as far as a resolver that is asked for full names needs it.

What lives here: reading its text. What must not: reading the file, asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

RESOLV_CONF: Final = Path("/etc/resolv.conf")
SERVERS_MAX: Final = 3
"""MAXNS of glibc's resolv.h: further ones are passed over there too."""
DNS_PORT: Final = 53


@dataclass(frozen=True, kw_only=True)
class Server:
    """A name server: `host` is an address, of IPv6 with its zone if it has one."""

    host: str
    port: int = DNS_PORT


def servers(text: str) -> tuple[Server, ...]:
    """Give the name servers that the text of a resolv.conf names; 127.0.0.1 if it names none, as resolv.conf(5) says."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(Server(host=words[1]))
    return tuple(found[:SERVERS_MAX]) or (Server(host="127.0.0.1"),)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
