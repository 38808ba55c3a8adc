"""What an nftables table is made of, as values: sets, counters, chains, rules, expressions.

What lives here: the types that a plan is written in. What must not: which rules capd wants (plan.py), bytes (messages.py).
Every expression works on one register: the kernel loads a value into it, compares it, and goes on or leaves the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

NAME_BYTES_MAX: Final = 31
"""What nft of every age shows and takes, though the kernel has room for more."""


class Meta(IntEnum):
    """What `meta` loads: NFT_META_* of include/uapi/linux/netfilter/nf_tables.h."""

    OUT_INTERFACE = 5
    USER = 10
    FAMILY = 15
    TRANSPORT = 16


class Conntrack(IntEnum):
    """What `ct` loads: NFT_CT_*."""

    DIRECTION = 1
    STATUS = 2


class Header(IntEnum):
    """Where `payload` counts from: NFT_PAYLOAD_*."""

    NETWORK = 1
    TRANSPORT = 2


class Verdict(IntEnum):
    """How a rule ends: NF_DROP, NF_ACCEPT and NFT_JUMP."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3


class Refusal(IntEnum):
    """How a packet is refused: NFT_REJECT_*."""

    TCP_RESET = 1
    PROHIBITED = 2
    """ICMP's "administratively prohibited" of the packet's own family."""


class KeyType(IntEnum):
    """What a set's elements are, by nft's own numbers, so that `nft list` can print them."""

    IPV4 = 7
    IPV6 = 8
    USER = 24
    CGROUP = 46


KEY_BYTES: Final = {KeyType.IPV4: 4, KeyType.IPV6: 16, KeyType.USER: 4, KeyType.CGROUP: 8}


@dataclass(frozen=True, kw_only=True)
class LoadMeta:
    """Load a fact of the packet or its socket."""

    key: Meta


@dataclass(frozen=True, kw_only=True)
class LoadCgroup:
    """Load the number of the cgroup above the packet's socket that is `level` steps below the root (Linux 5.13)."""

    level: int


@dataclass(frozen=True, kw_only=True)
class LoadConntrack:
    """Load a fact of the packet's connection."""

    key: Conntrack


@dataclass(frozen=True, kw_only=True)
class LoadHeader:
    """Load bytes of the packet."""

    header: Header
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Keep only these bits of what was loaded."""

    bits: bytes


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Go on if what was loaded is (not) this value."""

    value: bytes
    equal: bool = True


@dataclass(frozen=True, kw_only=True)
class InSet:
    """Go on if what was loaded is an element."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Count:
    """Count the packet in a counter of the table."""

    name: str


@dataclass(frozen=True, kw_only=True)
class End:
    """End the rule with a verdict; `chain` is where to jump."""

    verdict: Verdict
    chain: str | None = None


@dataclass(frozen=True, kw_only=True)
class Redirect:
    """Send the connection to this port of 127.0.0.1 or ::1."""

    port: int


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Drop the packet and tell its sender."""

    refusal: Refusal


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """An expression of the kernel's that no plan has: a table with one in it is not what was planned."""

    name: str
    data: bytes


Expression: TypeAlias = (
    LoadMeta | LoadCgroup | LoadConntrack | LoadHeader | Mask | Compare | InSet | Count | End | Redirect | Reject | Unknown
)
Rule: TypeAlias = tuple[Expression, ...]


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set with its elements, as bytes of the key's length."""

    name: str
    key: KeyType
    elements: frozenset[bytes]


class Place(IntEnum):
    """Which way of packets a base chain stands on: NF_INET_*."""

    OUTPUT = 3
    """What programs of this host send, before its way is settled: NAT may change it."""
    POSTROUTING = 4
    """All that leaves, when its device is settled; whose socket it is cannot be asked any more."""


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Where a base chain stands; `kind` is filter or nat."""

    kind: str
    priority: int
    place: Place = Place.OUTPUT


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Rules in order; without a hook it is only jumped to. What no rule decides is accepted: other packets are not ours."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of family inet.

    Attributes:
        name: unique on the host.
        counters: their names.
        sets, chains: by name each once; chains that are jumped to come first.
    """

    name: str
    counters: tuple[str, ...]
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
