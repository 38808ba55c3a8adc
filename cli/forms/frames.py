"""Packets and blocks of a pcapng file: IP, TCP and UDP headers with their checksums, as bytes.

What lives here: layouts (RFC 791, 8200, 9293, 768; draft-ietf-opsawg-pcapng). What must not: records, what is said when.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

Address = IPv4Address | IPv6Address

LINKTYPE_RAW: Final = 101
"""Packets begin with the IP header; its version says which."""
SNAPLEN: Final = 0
"""No limit."""
NANOSECONDS: Final = 9
TCP: Final = 6
UDP: Final = 17
TTL: Final = 64
WINDOW: Final = 65_535
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
OPT_END: Final = 0
OPT_COMMENT: Final = 1
OPT_USER_APPLICATION: Final = 4
OPT_NAME: Final = 2
OPT_RESOLUTION: Final = 9
OPTION_BYTES_MAX: Final = 60_000
"""An option's length has two bytes; a comment is cut below that."""
UDP_BYTES_MAX: Final = 65_535 - 40 - 8
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_UDP: Final = struct.Struct("!HHHH")
_IPV4_SUM_AT: Final = 10
_TCP_SUM_AT: Final = 16
_UDP_SUM_AT: Final = 6
_SUM_MAX: Final = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a conversation: an address, of the same family as the other's, and a port."""

    address: Address
    port: int


def checksum(data: bytes) -> int:
    """Give the Internet checksum (RFC 1071): the sum of 16-bit words in ones' complement is the number modulo 65,535."""
    padded = data if len(data) % 2 == 0 else data + b"\0"
    total = int.from_bytes(padded, "big")
    folded = total % _SUM_MAX
    return _SUM_MAX - (folded if folded or not total else _SUM_MAX)


def tcp_packet(source: End, target: End, *, sequence: int, acknowledged: int, flags: int, payload: bytes = b"") -> bytes:
    """Give a packet of TCP; numbers are taken modulo 2^32."""
    header = bytearray(
        _TCP.pack(source.port, target.port, sequence % (1 << 32), acknowledged % (1 << 32), 5 << 4, flags, WINDOW, 0, 0)
    )
    segment = bytes(header) + payload
    struct.pack_into("!H", header, _TCP_SUM_AT, checksum(_pseudo(source, target, TCP, len(segment)) + segment))
    return _ip(source, target, TCP, bytes(header) + payload)


def udp_packet(source: End, target: End, payload: bytes) -> bytes:
    """Give a packet of UDP; of a payload that fits in none, its beginning."""
    payload = payload[:UDP_BYTES_MAX]
    header = bytearray(_UDP.pack(source.port, target.port, _UDP.size + len(payload), 0))
    datagram = bytes(header) + payload
    # A sum of 0 says that there is none (RFC 768).
    found = checksum(_pseudo(source, target, UDP, len(datagram)) + datagram) or _SUM_MAX
    struct.pack_into("!H", header, _UDP_SUM_AT, found)
    return _ip(source, target, UDP, bytes(header) + payload)


def _pseudo(source: End, target: End, protocol: int, length: int) -> bytes:
    packed = source.address.packed + target.address.packed
    return packed + (struct.pack("!BBH", 0, protocol, length) if len(packed) == 8 else struct.pack("!II", length, protocol))  # noqa: PLR2004 - two IPv4 addresses


def _ip(source: End, target: End, protocol: int, content: bytes) -> bytes:
    if isinstance(source.address, IPv6Address):
        head = _IPV6.pack(6 << 28, len(content), protocol, TTL, source.address.packed, target.address.packed)
        return head + content
    whole = _IPV4.size + len(content)
    header = bytearray(_IPV4.pack(0x45, 0, whole, 0, 0x4000, TTL, protocol, 0, source.address.packed, target.address.packed))
    struct.pack_into("!H", header, _IPV4_SUM_AT, checksum(bytes(header)))
    return bytes(header) + content


def section(application: str, comment: str) -> bytes:
    """Give the block that begins a file."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(0x0A0D0D0A, body + _options((OPT_COMMENT, comment.encode()), (OPT_USER_APPLICATION, application.encode())))


def interface(name: str) -> bytes:
    """Give the block that describes where the packets were seen: times in nanoseconds, no Ethernet."""
    body = struct.pack("<HHI", LINKTYPE_RAW, 0, SNAPLEN)
    return _block(1, body + _options((OPT_NAME, name.encode()), (OPT_RESOLUTION, bytes([NANOSECONDS]))))


def packet_block(time_ns: int, packet: bytes, comment: str = "") -> bytes:
    """Give the block of a packet; times that it cannot hold are given as the nearest that it can."""
    time_ns = min(max(time_ns, 0), (1 << 64) - 1)
    body = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(packet), len(packet)) + _padded(packet)
    return _block(6, body + (_options((OPT_COMMENT, comment.encode())) if comment else b""))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    packed = [
        struct.pack("<HH", code, len(value[:OPTION_BYTES_MAX])) + _padded(value[:OPTION_BYTES_MAX]) for code, value in options
    ]
    return b"".join(packed) + struct.pack("<HH", OPT_END, 0)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
