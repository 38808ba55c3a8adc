"""Which rules force a run's traffic: a table for the facts of this host.

What lives here: the decisions, each beside its reason. What must not: the kernel, bytes.

Four base chains, three of them on the output of the host, in the order in which a packet meets them:

1. `early` refuses the addresses of cloud metadata while the packet still has the destination the agent wrote.
2. `steer` redirects DNS to the resolver and all other TCP to the proxy: every port, loopback and the host's own addresses too.
3. `guard` lets pass what was redirected and the answers of a run's own servers to this host, and refuses the rest: UDP and
   with it QUIC, ICMP, SCTP, raw IP, and TCP that was not redirected whatever the reason, such as a connection from before.
4. `leave`, where the device is settled, drops what was redirected and does not go by loopback: a socket may be bound to a
   device, by any user, and keeps it when its destination changes. The chains before see the device of the first one.

Selected is what a socket's cgroup or its user says. The cgroup is the one above it at a fixed level, so that the permanent
parent of all runs stands in the table and no run starts outside of it. A mark selects nothing and frees nothing: whoever has
CAP_NET_ADMIN could forge it. What is capd's own is known by user and cgroup together.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from capd.enforcer.forcing.table import (
    Chain,
    Compare,
    Conntrack,
    Count,
    End,
    Expression,
    Header,
    Hook,
    InSet,
    KeyType,
    LoadCgroup,
    LoadConntrack,
    LoadHeader,
    LoadMeta,
    Mask,
    Meta,
    Place,
    Redirect,
    Refusal,
    Reject,
    Rule,
    Set,
    Table,
    Verdict,
)

EARLY_PRIORITY: Final = -150
"""After conntrack (-200), before any NAT: the destination is still the agent's."""
STEER_PRIORITY: Final = -110
"""Before the usual -100 of others: a container runtime's DNAT must not come first. The kernel allows NAT above -200 only."""
GUARD_PRIORITY: Final = 10
"""After NAT and after the filters of others."""

DNS_PORT: Final = 53
LOOPBACK_INDEX: Final = 1
"""Of `lo` in every network namespace (include/net/net_namespace.h)."""
DESTINATION_CHANGED: Final = 0x20
"""IPS_DST_NAT of include/uapi/linux/netfilter/nf_conntrack_common.h."""
REPLY: Final = b"\1"
"""IP_CT_DIR_REPLY."""

METADATA_PREFIX: Final = IPv4Address("169.254.0.0").packed[:2]
"""All of IPv4's link-local addresses: AWS, Azure, GCP, OpenStack, ECS and EKS have theirs there."""
METADATA4: Final = tuple(
    IPv4Address(text).packed
    for text in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle Cloud, before 169.254
    )
)
METADATA6: Final = tuple(
    IPv6Address(text).packed
    for text in (
        "fd00:ec2::254",  # AWS, instance metadata
        "fd00:ec2::23",  # AWS, EKS pod identity
        "fd20:ce::254",  # GCP
    )
)

CANARY_ADDRESS4, CANARY_ADDRESS6, CANARY_PORT = "127.255.255.254", "::1", 9
"""Where the daemon's canary connects to: addresses of loopback and the port of `discard` (RFC 863), which are nobody's. The
enforcer closes such a connection without a word."""

REFUSED_KINDS: Final = ("metadata", "tcp", "udp", "icmp", "other")
"""What was refused, or in mode `observe` would have been; each has a counter."""
USERS_SET: Final = "agent_users"
METADATA4_SET: Final = "metadata4"
METADATA6_SET: Final = "metadata6"
FORBIDDEN, REDIRECTED, JUDGED, ASTRAY = "forbidden", "redirected", "judged", "astray"


@dataclass(frozen=True, kw_only=True, order=True)
class CgroupAt:
    """A cgroup.

    Attributes:
        level: how many steps below the root of the hierarchy; the root's children are 1.
        id: the kernel's number, 64 bits.
    """

    level: int
    id: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules depend on.

    Attributes:
        name: of the table, unique for the instance.
        mode: `enforce` refuses, `observe` redirects TCP and only counts the rest.
        agents: cgroups whose sockets are selected, with all below them.
        users: numbers of users whose sockets are selected wherever they live.
        enforcer_user: the number of capd's own user.
        enforcer_cgroup: capd's own cgroup; None while there is none: then nothing is let pass as capd's.
        proxy_port, resolver_port: where it listens, on 127.0.0.1 and ::1.
        metadata: whether the addresses of cloud metadata are refused, or are judged like any other.
    """

    name: str
    mode: Literal["observe", "enforce"]
    agents: tuple[CgroupAt, ...]
    users: tuple[int, ...]
    enforcer_user: int
    enforcer_cgroup: CgroupAt | None
    proxy_port: int
    resolver_port: int
    metadata: Literal["deny", "judge"] = "deny"


def plan(facts: Facts) -> Table:
    """Give the table that forces what the facts select."""
    return Table(
        name=facts.name,
        counters=tuple(counter(kind) for kind in REFUSED_KINDS),
        sets=tuple(_sets(facts)),
        chains=(
            Chain(name=FORBIDDEN, rules=tuple(_forbidden(facts))),
            Chain(name=REDIRECTED, rules=tuple(_redirected(facts))),
            Chain(name=JUDGED, rules=tuple(_judged(facts))),
            Chain(name=ASTRAY, rules=tuple(_astray(facts))),
            _base("early", "filter", EARLY_PRIORITY, FORBIDDEN, facts),
            _base("steer", "nat", STEER_PRIORITY, REDIRECTED, facts),
            _base("guard", "filter", GUARD_PRIORITY, JUDGED, facts),
            Chain(
                name="leave",
                hook=Hook(kind="filter", priority=GUARD_PRIORITY, place=Place.POSTROUTING),
                rules=tuple(_leaving()),
            ),
        ),
    )


def counter(kind: str) -> str:
    """Name the counter of a kind; a bare protocol's name is a keyword of nft, which could not read its own listing."""
    return f"refused_{kind}"


def agents_set(level: int) -> str:
    """Name the set of selected cgroups of one level."""
    return f"agents_{level}"


def _levels(facts: Facts) -> list[int]:
    return sorted({cgroup.level for cgroup in facts.agents})


def _sets(facts: Facts) -> Iterator[Set]:
    for level in _levels(facts):
        elements = frozenset(_host_order(cgroup.id, 8) for cgroup in facts.agents if cgroup.level == level)
        yield Set(name=agents_set(level), key=KeyType.CGROUP, elements=elements)
    yield Set(name=USERS_SET, key=KeyType.USER, elements=frozenset(_host_order(user, 4) for user in facts.users))
    yield Set(name=METADATA4_SET, key=KeyType.IPV4, elements=frozenset(METADATA4))
    yield Set(name=METADATA6_SET, key=KeyType.IPV6, elements=frozenset(METADATA6))


def _base(name: str, kind: str, priority: int, target: str, facts: Facts) -> Chain:
    """Give a base chain: capd's own passes, what is selected is sent to `target`, everybody else is left alone."""
    rules: list[Rule] = []
    if facts.enforcer_cgroup is not None:
        rules.append((*_own(facts.enforcer_user, facts.enforcer_cgroup), End(verdict=Verdict.ACCEPT)))
    jump = End(verdict=Verdict.JUMP, chain=target)
    rules += [(LoadCgroup(level=level), InSet(name=agents_set(level)), jump) for level in _levels(facts)]
    rules.append((LoadMeta(key=Meta.USER), InSet(name=USERS_SET), jump))
    return Chain(name=name, hook=Hook(kind=kind, priority=priority), rules=tuple(rules))


def _own(user: int, cgroup: CgroupAt) -> Rule:
    return (
        LoadMeta(key=Meta.USER),
        Compare(value=_host_order(user, 4)),
        LoadCgroup(level=cgroup.level),
        Compare(value=_host_order(cgroup.id, 8)),
    )


def _forbidden(facts: Facts) -> Iterator[Rule]:
    if facts.metadata == "judge":
        return
    link_local = (LoadHeader(header=Header.NETWORK, offset=16, length=2), Compare(value=METADATA_PREFIX))
    listed4 = (LoadHeader(header=Header.NETWORK, offset=16, length=4), InSet(name=METADATA4_SET))
    listed6 = (LoadHeader(header=Header.NETWORK, offset=24, length=16), InSet(name=METADATA6_SET))
    for family, match in ((socket.AF_INET, link_local), (socket.AF_INET, listed4), (socket.AF_INET6, listed6)):
        for tail in _refusals(facts, "metadata"):
            yield (*_family(family), *match, *tail)


def _redirected(facts: Facts) -> Iterator[Rule]:
    if facts.mode == "enforce":
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            yield (*_transport(protocol), *_to_port(DNS_PORT), Redirect(port=facts.resolver_port))
    yield (*_transport(socket.IPPROTO_TCP), Redirect(port=facts.proxy_port))


def _listeners(facts: Facts) -> list[tuple[int, int]]:
    """Give protocol and port of what selected sockets are redirected to."""
    wanted = [(socket.IPPROTO_TCP, facts.proxy_port)]
    if facts.mode == "enforce":
        wanted += [(socket.IPPROTO_TCP, facts.resolver_port), (socket.IPPROTO_UDP, facts.resolver_port)]
    return wanted


def _judged(facts: Facts) -> Iterator[Rule]:
    for protocol, port in _listeners(facts):
        for loopback in (_loopback4(), _loopback6()):
            yield (*loopback, *_transport(protocol), *_to_port(port), *_was_redirected(), End(verdict=Verdict.ACCEPT))
    yield _answer_to_this_host()
    yield (*_transport(socket.IPPROTO_TCP), Count(name=counter("tcp")), _refuse(facts, Refusal.TCP_RESET))
    for name, protocols in (("udp", [socket.IPPROTO_UDP]), ("icmp", [socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6])):
        for protocol in protocols:
            yield (*_transport(protocol), Count(name=counter(name)), _refuse(facts, Refusal.PROHIBITED))
    yield (Count(name=counter("other")), _refuse(facts, Refusal.PROHIBITED))


def _leaving() -> Iterator[Rule]:
    """Everybody's packets come by here: nearly all end with the first rule, or match none."""
    yield (*_by_loopback(), End(verdict=Verdict.ACCEPT))
    for loopback in (_loopback4(), _loopback6()):
        yield (*loopback, End(verdict=Verdict.JUMP, chain=ASTRAY))


def _astray(facts: Facts) -> Iterator[Rule]:
    """Drop what was redirected: nothing for these addresses is ever meant for a network."""
    if facts.mode != "enforce":
        return
    for protocol, port in _listeners(facts):
        name = "tcp" if protocol == socket.IPPROTO_TCP else "udp"
        drop = (Count(name=counter(name)), End(verdict=Verdict.DROP))
        yield (*_transport(protocol), *_to_port(port), *_was_redirected(), *drop)


def _refusals(facts: Facts, kind: str) -> Iterator[Rule]:
    """Refuse whatever it is: TCP with a reset, so that the agent's call fails at once."""
    yield (*_transport(socket.IPPROTO_TCP), Count(name=counter(kind)), _refuse(facts, Refusal.TCP_RESET))
    yield (Count(name=counter(kind)), _refuse(facts, Refusal.PROHIBITED))


def _refuse(facts: Facts, refusal: Refusal) -> Expression:
    """End a rule: refuse, or where that is only observed let the packet go on to the next base chain."""
    return Reject(refusal=refusal) if facts.mode == "enforce" else End(verdict=Verdict.ACCEPT)


def _transport(protocol: int) -> Rule:
    return LoadMeta(key=Meta.TRANSPORT), Compare(value=bytes([protocol]))


def _family(family: int) -> Rule:
    return LoadMeta(key=Meta.FAMILY), Compare(value=bytes([family]))


def _to_port(port: int) -> Rule:
    return LoadHeader(header=Header.TRANSPORT, offset=2, length=2), Compare(value=port.to_bytes(2, "big"))


def _loopback4() -> Rule:
    address = IPv4Address("127.0.0.1").packed
    return *_family(socket.AF_INET), LoadHeader(header=Header.NETWORK, offset=16, length=4), Compare(value=address)


def _loopback6() -> Rule:
    address = IPv6Address("::1").packed
    return *_family(socket.AF_INET6), LoadHeader(header=Header.NETWORK, offset=24, length=16), Compare(value=address)


def _was_redirected() -> Rule:
    """A connection whose destination was changed; an agent that connects to the proxy's port by itself has none such."""
    bits = _host_order(DESTINATION_CHANGED, 4)
    return LoadConntrack(key=Conntrack.STATUS), Mask(bits=bits), Compare(value=bytes(4), equal=False)


def _by_loopback() -> Rule:
    return LoadMeta(key=Meta.OUT_INTERFACE), Compare(value=_host_order(LOOPBACK_INDEX, 4))


def _answer_to_this_host() -> Rule:
    """What a run's own server answers, by loopback: to the proxy that was let through to it, or to another program here."""
    return (
        *_by_loopback(),
        *_transport(socket.IPPROTO_TCP),
        LoadConntrack(key=Conntrack.DIRECTION),
        Compare(value=REPLY),
        End(verdict=Verdict.ACCEPT),
    )


def _host_order(value: int, length: int) -> bytes:
    return value.to_bytes(length, sys.byteorder)
