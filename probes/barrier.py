"""The second layer of forcing: BPF programs on cgroups that drop what is not on its way to capd's own listener.

What lives here: the programs, made without a compiler. What must not: pins (barrier_pins.py), nftables, which this layer is
to be independent of: should the table be gone, nothing leaves; should these programs be gone, the table refuses.

What each sees, measured on Linux 6.18 and by the source (net/ipv4/ip_output.c, net/core/filter.c):

- `create`, at socket(2) of AF_INET and AF_INET6: types and protocols that no rule could judge are not made. Other families
  (AF_PACKET, AF_VSOCK) do not come by here.
- `connect4`, `connect6`, before any NAT: sees the destination that the agent wrote, so that it can refuse cloud metadata alone.
- `send4`, `send6`, at sendto(2) of UDP: everything but DNS fails at once, with a reason the program understands.
- `egress`, after NAT, in any network namespace, whatever made the packet: the one that holds. A redirected packet shows the
  listener as its destination here. In another namespace nothing is redirected, so nothing leaves it.
- `ingress`: what did not come by loopback is not heard.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from capd.probes import bpf_call
from capd.probes.bpf_call import Program
from capd.probes.compiled import MapShape
from capd.probes.instructions import BYTE, CONTEXT, DOUBLE, FRAME, HALF, WORD, Assembly

COUNTED: Final = ("socket", "connect", "send", "tcp", "udp", "other", "ingress")
"""Entries of the counters' map."""
COUNTERS: Final = MapShape(bpf_call.MAP_TYPE_ARRAY, 4, 8, len(COUNTED), 0)
REFUSE, PASS = 0, 1
LOOPBACK_INDEX: Final = 1
DNS_PORT: Final = 53
MPTCP: Final = 262
TCP_ACK: Final = 0x10
IP_VERSION_AND_LENGTH: Final = 0x45
"""The first byte of an IPv4 header without options: others move the ports, and nobody here sends any."""
IP_FRAGMENT: Final = 0x3FFF
IP_BYTES, IP6_BYTES = 20, 40
METADATA_PREFIX: Final = IPv4Address("169.254.0.0").packed[:2]
"""As in the first layer; the addresses that only that one knows do not get out here either unless they are redirected."""
MAPPED_PREFIX: Final = int.from_bytes(bytes.fromhex("0000ffff"), "little")
"""Third word of ::ffff:0:0/96."""

_ADDRESS4, _ADDRESS6, _PORT = 4, 8, 24
"""Offsets in struct bpf_sock_addr."""
_TYPE, _PROTOCOL = 8, 12
"""Offsets in struct bpf_sock."""
_PACKET_PROTOCOL, _PACKET_INTERFACE = 16, 40
"""Offsets in struct __sk_buff."""
_HEADER, _TRANSPORT = -64, -24
"""Where on the stack parts of the packet are put."""
_PACKET, _KIND, _START, _TO_LISTENER = 6, 7, 8, 9
"""Registers that a call leaves alone."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Where capd's enforcer listens, on 127.0.0.1 and ::1."""

    proxy_port: int
    resolver_port: int


def programs(listener: Listener, counters: int, *, metadata: bool) -> tuple[Program, ...]:
    """Give the programs.

    Args:
        listener: what is let through.
        counters: descriptor of a map of the shape COUNTERS.
        metadata: whether the link-local addresses of cloud metadata are refused.
    """
    address = bpf_call.PROG_TYPE_CGROUP_SOCK_ADDR
    packet = bpf_call.PROG_TYPE_CGROUP_SKB
    connect4 = _connecting4(counters) if metadata else _passing()
    connect6 = _connecting6(counters) if metadata else _passing()
    sending = _sending(counters)
    return (
        Program("create", _creating(counters), bpf_call.PROG_TYPE_CGROUP_SOCK, bpf_call.ATTACH_INET_SOCK_CREATE),
        Program("connect4", connect4, address, bpf_call.ATTACH_INET4_CONNECT),
        Program("connect6", connect6, address, bpf_call.ATTACH_INET6_CONNECT),
        Program("send4", sending, address, bpf_call.ATTACH_UDP4_SENDMSG),
        Program("send6", sending, address, bpf_call.ATTACH_UDP6_SENDMSG),
        Program("egress", _leaving(listener, counters), packet, bpf_call.ATTACH_INET_EGRESS),
        Program("ingress", _entering(counters), packet, bpf_call.ATTACH_INET_INGRESS),
    )


def _creating(counters: int) -> bytes:
    """Let TCP and UDP be made, and no raw socket, no ping socket, no SCTP."""
    code = Assembly()
    code.load(WORD, 2, CONTEXT, _TYPE)
    code.load(WORD, 3, CONTEXT, _PROTOCOL)
    code.jump_equal(2, socket.SOCK_STREAM, "stream")
    code.jump_unless(2, socket.SOCK_DGRAM, "refuse")
    code.jump_unless(3, socket.IPPROTO_UDP, "refuse")
    code.give(PASS)
    code.label("stream")
    code.jump_equal(3, socket.IPPROTO_TCP, "pass")
    code.jump_equal(3, MPTCP, "pass")
    code.label("refuse")
    code.count(counters, COUNTED.index("socket"))
    code.give(REFUSE)
    code.label("pass")
    code.give(PASS)
    return code.encode()


def _passing() -> bytes:
    code = Assembly()
    code.give(PASS)
    return code.encode()


def _connecting4(counters: int) -> bytes:
    """Refuse IPv4's link-local addresses."""
    code = Assembly()
    code.load(WORD, 2, CONTEXT, _ADDRESS4)
    _refuse_link_local(code, counters)
    return code.encode()


def _connecting6(counters: int) -> bytes:
    """Refuse IPv4's link-local addresses in IPv6's clothes, which connect4 does not see."""
    code = Assembly()
    code.load(WORD, 3, CONTEXT, _ADDRESS6 + 8)
    code.load(WORD, 2, CONTEXT, _ADDRESS6 + 12)
    code.set_double(4, MAPPED_PREFIX)
    code.jump_unless_same(3, 4, "pass")
    _refuse_link_local(code, counters)
    return code.encode()


def _refuse_link_local(code: Assembly, counters: int) -> None:
    """Judge the IPv4 address in register 2."""
    code.keep_bits(2, 0xFFFF)
    code.jump_unless(2, int.from_bytes(METADATA_PREFIX, "little"), "pass")
    code.count(counters, COUNTED.index("connect"))
    code.give(REFUSE)
    code.label("pass")
    code.give(PASS)


def _sending(counters: int) -> bytes:
    """Let only DNS through, which the first layer redirects."""
    code = Assembly()
    code.load(WORD, 2, CONTEXT, _PORT)
    code.jump_equal(2, socket.htons(DNS_PORT), "pass")
    code.count(counters, COUNTED.index("send"))
    code.give(REFUSE)
    code.label("pass")
    code.give(PASS)
    return code.encode()


def _entering(counters: int) -> bytes:
    code = Assembly()
    code.load(WORD, 2, CONTEXT, _PACKET_INTERFACE)
    code.jump_equal(2, LOOPBACK_INDEX, "pass")
    code.count(counters, COUNTED.index("ingress"))
    code.give(REFUSE)
    code.label("pass")
    code.give(PASS)
    return code.encode()


def _leaving(listener: Listener, counters: int) -> bytes:
    """Let through what goes to the listener, and answers by loopback; see `_tcp`."""
    code = Assembly()
    code.move(_PACKET, CONTEXT)
    code.load(WORD, _KIND, _PACKET, _PACKET_PROTOCOL)
    code.set(_TO_LISTENER, 0)
    code.jump_equal(_KIND, socket.htons(0x0800), "ip4")
    code.jump_equal(_KIND, socket.htons(0x86DD), "ip6")
    code.jump("refuse other")
    _ip4(code)
    _ip6(code)
    code.label("transport")
    code.load_packet(_PACKET, None, _TRANSPORT, 4, "refuse other", register=_START)
    code.load(HALF, 1, FRAME, _TRANSPORT + 2)
    # By loopback's device, not its address alone: whoever is root of a network namespace may route the address elsewhere.
    code.load(WORD, 2, _PACKET, _PACKET_INTERFACE)
    code.jump_equal(_KIND, socket.IPPROTO_UDP, "udp")
    code.jump_unless(_KIND, socket.IPPROTO_TCP, "refuse other")
    code.jump_unless(2, LOOPBACK_INDEX, "refuse tcp")
    _tcp(code, listener)
    code.label("udp")
    code.jump_unless(2, LOOPBACK_INDEX, "refuse udp")
    code.jump_unless(_TO_LISTENER, 1, "refuse udp")
    code.jump_equal(1, socket.htons(listener.resolver_port), "pass")
    for name in ("udp", "tcp", "other"):
        code.label(f"refuse {name}")
        code.count(counters, COUNTED.index(name))
        code.give(REFUSE)
    code.label("pass")
    code.give(PASS)
    return code.encode()


def _ip4(code: Assembly) -> None:
    code.label("ip4")
    code.load_packet(_PACKET, 0, _HEADER, IP_BYTES, "refuse other")
    code.load(BYTE, 1, FRAME, _HEADER)
    code.jump_unless(1, IP_VERSION_AND_LENGTH, "refuse other")
    code.load(HALF, 1, FRAME, _HEADER + 6)
    code.keep_bits(1, socket.htons(IP_FRAGMENT))
    code.jump_unless(1, 0, "refuse other")
    code.set(_START, IP_BYTES)
    code.load(BYTE, _KIND, FRAME, _HEADER + 9)
    code.load(WORD, 1, FRAME, _HEADER + 16)
    code.jump_unless(1, int.from_bytes(IPv4Address("127.0.0.1").packed, "little"), "transport")
    code.set(_TO_LISTENER, 1)
    code.jump("transport")


def _ip6(code: Assembly) -> None:
    """Extension headers are none of TCP and UDP, so what has any is refused."""
    code.label("ip6")
    code.load_packet(_PACKET, 0, _HEADER, IP6_BYTES, "refuse other")
    code.set(_START, IP6_BYTES)
    code.load(BYTE, _KIND, FRAME, _HEADER + 6)
    code.load(DOUBLE, 1, FRAME, _HEADER + 24)
    code.jump_unless(1, 0, "transport")
    code.load(DOUBLE, 1, FRAME, _HEADER + 32)
    code.set_double(2, 1 << 56)
    code.jump_unless_same(1, 2, "transport")
    code.set(_TO_LISTENER, 1)


def _tcp(code: Assembly, listener: Listener) -> None:
    """Let TCP to the listener through, and to others of this host all but the first packet of a connection that the run opens.

    That is what a run's own server answers, to the proxy or to another program here. A connection that the run opened
    cannot have got beyond its first packet, which is the only one without an acknowledgement.
    """
    code.jump_unless(_TO_LISTENER, 1, "answer")
    code.jump_equal(1, socket.htons(listener.proxy_port), "pass")
    code.jump_equal(1, socket.htons(listener.resolver_port), "pass")
    code.label("answer")
    code.add(_START, 13)
    code.load_packet(_PACKET, None, _TRANSPORT, 1, "refuse other", register=_START)
    code.load(BYTE, 1, FRAME, _TRANSPORT)
    code.keep_bits(1, TCP_ACK)
    code.jump_unless(1, 0, "pass")
    code.jump("refuse tcp")
