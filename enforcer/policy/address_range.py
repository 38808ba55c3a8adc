"""Addresses as rules name them, and the one form in which an address is judged.

What lives here: CIDR ranges; IPv4 that is written as IPv6. What must not: names.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from capd.enforcer.policy.action import Address

_V4_MAPPED_PREFIX: Final = 96


@dataclass(frozen=True, slots=True)
class AddressRange:
    """A network."""

    network: IPv4Network | IPv6Network

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Read `10.0.0.0/8`, `::1`, ...

        Raises:
            ValueError: it is none; the message says why.
        """
        try:
            network = ip_network(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no address and no network: {error}") from error
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= _V4_MAPPED_PREFIX:
            raise ValueError(f"{text!r} is IPv4 written as IPv6, which is judged as IPv4; write that")
        if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which is judged without")
        return cls(network)

    def __contains__(self, address: Address) -> bool:
        return address in self.network

    def covers(self, other: AddressRange) -> bool:
        """Say whether it has all of the other's addresses."""
        mine, others = self.network, other.network
        return mine.version == others.version and others.subnet_of(mine)  # type: ignore[arg-type] # of one version, both

    def __lt__(self, other: AddressRange) -> bool:
        return str(self) < str(other)

    def __str__(self) -> str:
        return str(self.network)


def address(text: str) -> Address | None:
    """Give an address as it is judged: IPv4 mapped into IPv6 is IPv4, a zone is left out. None: it is none."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        return IPv6Address(int(found)) if found.scope_id is not None else found
    return found


def is_ordinary(found: Address) -> bool:
    """Say whether a name of the network may lead there: nowhere on this host, on the link, to nobody or to many."""
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)
