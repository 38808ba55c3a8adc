"""nf_tables messages: a table as one transaction of netlink bytes, and what the kernel tells of a table read back.

What lives here: numbers and layouts of include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. What must not: sockets.

A transaction is all or nothing: the kernel takes every message between begin and end, or none.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from capd.enforcer.forcing.attributes import attribute, by_kind, nested, number, text, walk
from capd.enforcer.forcing.expressions import read_rule, write_rule
from capd.enforcer.forcing.table import KEY_BYTES, Chain, Hook, KeyType, Place, Rule, Set, Table

HEADER: Final = struct.Struct("=IHHII")
_FAMILY_HEADER: Final = struct.Struct(">BBH")

SUBSYSTEM: Final = 10
"""NFNL_SUBSYS_NFTABLES."""
FAMILY_INET: Final = 1
"""NFPROTO_INET: IPv4 and IPv6 in one table."""
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11
NEW_TABLE, GET_TABLE, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN = 3, 4
NEW_RULE, GET_RULE = 6, 7
NEW_SET, GET_SET = 9, 10
NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT = 12, 13, 14
NEW_OBJECT, GET_OBJECT = 18, 19

REQUEST, ACKNOWLEDGE, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800

TABLE_OWNER: Final = 0x2
"""Nobody but the socket that made the table may change it (Linux 5.12)."""
TABLE_PERSIST: Final = 0x4
"""The table stays when that socket is closed (Linux 6.9)."""
OBJECT_COUNTER: Final = 1
BYTE_ORDER_HOST, BYTE_ORDER_BIG = 1, 2
ELEMENTS_PER_MESSAGE: Final = 1000
"""An attribute holds 64 KiB; an element is 16 to 28 bytes."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a transaction or a question."""

    kind: int
    payload: bytes
    flags: int = 0
    family: int = FAMILY_INET
    resource: int = 0

    def encode(self, sequence: int) -> bytes:
        """Give the bytes, numbered."""
        body = _FAMILY_HEADER.pack(self.family, 0, self.resource) + self.payload
        return HEADER.pack(HEADER.size + len(body), self.kind, REQUEST | self.flags, sequence, 0) + body


def transaction(messages: Iterable[Message]) -> list[Message]:
    """Put messages between begin and end."""
    edges = [Message(kind=kind, payload=b"", family=0, resource=SUBSYSTEM) for kind in (BATCH_BEGIN, BATCH_END)]
    return [edges[0], *messages, edges[1]]


def replace(table: Table, *, flags: int, exists: bool) -> list[Message]:
    """Give the transaction after which the table is there exactly so.

    Args:
        table: as it shall be.
        flags: TABLE_OWNER and TABLE_PERSIST, or 0.
        exists: whether one of that name is there and goes in the same moment. Packets meet the old rules or the new ones.
    """
    return transaction([*([delete(table.name)] if exists else []), *_create(table, flags)])


def remove(name: str) -> list[Message]:
    """Give the transaction that takes a table away."""
    return transaction([delete(name)])


def refill(table: Table, names: Iterable[str]) -> list[Message]:
    """Give the transaction that makes these sets hold exactly the table's elements, and leaves all else as it is."""
    wanted = set(names)
    return transaction(
        message
        for found in table.sets
        if found.name in wanted
        for message in (_emptied(table.name, found), *_elements(table.name, found))
    )


def delete(name: str) -> Message:
    """Give the message that deletes a table."""
    return _change(DELETE_TABLE, text(1, name), flags=0)


def ask_table(name: str) -> Message:
    """Ask for one table."""
    return Message(kind=_kind(GET_TABLE), payload=text(1, name), flags=ACKNOWLEDGE)


def ask_all(what: int, name: str) -> Message:
    """Ask for all chains, rules, sets or objects; the kernel gives those of other tables too, in some cases."""
    return Message(kind=_kind(what), payload=text(1, name), flags=DUMP)


def ask_elements(table: str, name: str) -> Message:
    """Ask for the elements of a set."""
    return Message(kind=_kind(GET_ELEMENT), payload=text(1, table) + text(2, name), flags=DUMP)


def _kind(kind: int) -> int:
    return SUBSYSTEM << 8 | kind


def _change(kind: int, payload: bytes, flags: int = CREATE) -> Message:
    return Message(kind=_kind(kind), payload=payload, flags=ACKNOWLEDGE | flags)


def _create(table: Table, flags: int) -> Iterator[Message]:
    yield _change(NEW_TABLE, text(1, table.name) + number(2, flags))
    for counter in table.counters:
        yield _change(NEW_OBJECT, text(1, table.name) + text(2, counter) + number(3, OBJECT_COUNTER) + nested(4))
    for place, found in enumerate(table.sets, 1):
        yield _change(NEW_SET, _set(table.name, found, place))
        yield from _elements(table.name, found)
    for chain in table.chains:
        yield _change(NEW_CHAIN, _chain(table.name, chain))
    for chain in table.chains:
        for rule in chain.rules:
            payload = text(1, table.name) + text(2, chain.name) + nested(4, *write_rule(rule))
            yield _change(NEW_RULE, payload, CREATE | APPEND)


def _set(table: str, found: Set, place: int) -> bytes:
    order = BYTE_ORDER_HOST if found.key in {KeyType.USER, KeyType.CGROUP} else BYTE_ORDER_BIG
    return b"".join(
        (
            text(1, table),
            text(2, found.name),
            number(3, 0),
            number(4, found.key),
            number(5, KEY_BYTES[found.key]),
            number(10, place),  # by which a rule of the same transaction may name it
            attribute(13, struct.pack("=BBI", 0, 4, order)),  # for nft: in which order an element's bytes are
        )
    )


def _elements(table: str, found: Set) -> Iterator[Message]:
    keys = sorted(found.elements)
    for start in range(0, len(keys), ELEMENTS_PER_MESSAGE):
        part = keys[start : start + ELEMENTS_PER_MESSAGE]
        entries = (nested(1, nested(1, attribute(1, key))) for key in part)
        yield _change(NEW_ELEMENT, text(1, table) + text(2, found.name) + nested(3, *entries))


def _emptied(table: str, found: Set) -> Message:
    return _change(DELETE_ELEMENT, text(1, table) + text(2, found.name), flags=0)


def _chain(table: str, chain: Chain) -> bytes:
    start = text(1, table) + text(3, chain.name)
    if chain.hook is None:
        return start
    priority = chain.hook.priority.to_bytes(4, "big", signed=True)
    hook = nested(4, number(1, chain.hook.place), attribute(2, priority))
    return start + hook + number(5, 1) + text(7, chain.hook.kind)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the kernel sent back: the kind without its subsystem, and its attributes."""

    kind: int
    attributes: dict[int, bytes]


def read_table_flags(answer: Answer) -> int:
    """Give the flags of a table."""
    return int.from_bytes(answer.attributes.get(2, b""), "big")


def read_counters(answers: Iterable[Answer], table: str) -> dict[str, int]:
    """Give the packets in each counter of a table."""
    found = {}
    for answer in answers:
        if answer.kind == NEW_OBJECT and _name(answer, 1) == table and int.from_bytes(answer.attributes[3], "big") == 1:
            found[_name(answer, 2)] = int.from_bytes(by_kind(answer.attributes[4]).get(2, b""), "big")
    return found


def read_sets(answers: Iterable[Answer], table: str) -> dict[str, int]:
    """Give the names of a table's sets with nft's number of their type."""
    mine = (answer for answer in answers if answer.kind == NEW_SET and _name(answer, 1) == table)
    return {_name(answer, 2): int.from_bytes(answer.attributes.get(4, b""), "big") for answer in mine}


def read_elements(answers: Iterable[Answer]) -> frozenset[bytes]:
    """Give the elements of the set that was asked for."""
    keys = (
        by_kind(by_kind(entry).get(1, b"")).get(1, b"")
        for answer in answers
        if answer.kind == NEW_ELEMENT
        for _, entry in walk(answer.attributes.get(3, b""))
    )
    return frozenset(keys)


def read_chains(chains: Iterable[Answer], rules: Iterable[Answer], table: str) -> tuple[Chain, ...]:
    """Give the chains of a table with their rules, in the kernel's order."""
    written: dict[str, list[Rule]] = {}
    for answer in rules:
        if answer.kind == NEW_RULE and _name(answer, 1) == table:
            written.setdefault(_name(answer, 2), []).append(read_rule(answer.attributes.get(4, b"")))
    return tuple(
        Chain(name=_name(answer, 3), hook=_hook(answer), rules=tuple(written.get(_name(answer, 3), ())))
        for answer in chains
        if answer.kind == NEW_CHAIN and _name(answer, 1) == table
    )


def _hook(answer: Answer) -> Hook | None:
    raw = answer.attributes.get(4)
    if raw is None:
        return None
    found = by_kind(raw)
    policy = int.from_bytes(answer.attributes.get(5, b""), "big")
    place = int.from_bytes(found.get(1, b""), "big")
    kind = answer.attributes.get(7, b"").rstrip(b"\0").decode("ascii", "replace")
    # Another hook or policy than any plan has is told by a kind that no plan has.
    known = place in set(Place) and policy == 1
    return Hook(
        kind=kind if known else f"{kind} at hook {place} with policy {policy}",
        priority=int.from_bytes(found.get(2, b""), "big", signed=True),
        place=Place(place) if known else Place.OUTPUT,
    )


def _name(answer: Answer, kind: int) -> str:
    return answer.attributes.get(kind, b"").rstrip(b"\0").decode("ascii", "replace")


assert sys.byteorder == "little", "the numbers of attributes' headers are the host's; tested on little endian only"
