"""Netlink attributes: length, type, payload, padded to four bytes (RFC 3549 section 2.2; include/uapi/linux/netlink.h).

What lives here: writing and walking them. What must not: what any of them means.

Why not pyroute2's: it can express neither the level of `socket cgroupv2` nor a set of cgroups or users, has one transaction for
each call, and costs a root process 13 MB; what remains of it are these thirty lines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_HEADER: Final = struct.Struct("=HH")
ALIGNMENT: Final = 4
NESTED: Final = 0x8000
TYPE_MASK: Final = 0x3FFF
LENGTH_MAX: Final = 0xFFFF


def attribute(kind: int, payload: bytes) -> bytes:
    """Write one attribute.

    Args:
        kind: its type, with `NESTED` when its payload is attributes.
        payload: at most 65,531 bytes.
    """
    length = _HEADER.size + len(payload)
    assert length <= LENGTH_MAX
    return _HEADER.pack(length, kind) + payload + bytes(-length % ALIGNMENT)


def nested(kind: int, *children: bytes) -> bytes:
    """Write an attribute that is made of attributes."""
    return attribute(kind | NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """Write a name: ASCII, ended by a zero."""
    return attribute(kind, value.encode("ascii") + b"\0")


def number(kind: int, value: int) -> bytes:
    """Write a 32 bit number as nf_tables wants them: big endian."""
    return attribute(kind, value.to_bytes(4, "big"))


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the attributes in `data` as (type, payload); what is cut short ends the walk."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, position)
        if not _HEADER.size <= length <= len(data) - position:
            return
        yield kind & TYPE_MASK, data[position + _HEADER.size : position + length]
        position += length + -length % ALIGNMENT


def by_kind(data: bytes) -> dict[int, bytes]:
    """Give the attributes in `data` by type; of one that comes twice, the last."""
    return dict(walk(data))
