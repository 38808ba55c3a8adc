"""What a DNS query comes to: an answer at once, or a lookup and then an answer. Bytes in, bytes out.

What lives here: the decisions. What must not: sockets, clocks, randomness, policy: they come in.

- A name that no rule could allow does not exist (NXDOMAIN), and is looked up nowhere: a name is a message to whoever serves its
  zone, whatever the answer.
- Only A and AAAA are looked up. All else has no data: HTTPS and SVCB records would bring Encrypted Client Hello and QUIC, TXT
  and NULL carry payload.
- Answers hold addresses of the name that was asked for and nothing else; aliases are followed and left out.
- An address that a name of the network must not give, such as loopback, is left out (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from capd.enforcer.policy import address_range
from capd.enforcer.resolver.binding import Address
from capd.enforcer.resolver.bindings import SECONDS_MAX

HEADER_BYTES: Final = 12
QUERY_BYTES_MAX: Final = 1232
"""A question is a name of 255 bytes and some options."""
PLAIN_BYTES_MAX: Final = 512
"""Of an answer over UDP to who does not say otherwise (RFC 1035 section 4.2.1)."""
EDNS_BYTES_MAX: Final = 1232
"""As much as goes everywhere in one packet (DNS flag day 2020)."""
ADDRESSES_MAX: Final = 64
"""Of one name; who has more tells others with the next question."""
ALIASES_MAX: Final = 16
RESPONSE_FLAG: Final = 0x80
"""QR, in the third byte of a message."""
LOOKED_UP: Final = {dns.rdatatype.A, dns.rdatatype.AAAA}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent back; `reason` is why, for the counters: `denied`, `no_data`, `refused`, `malformed`."""

    wire: bytes
    reason: str


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """What is to be asked of an upstream server before there is an answer.

    Attributes:
        name: in lower case, without a dot at its end.
        query: the run's own.
        wire: the question to send, with an id of its own.
    """

    name: str
    query: dns.message.Message
    wire: bytes


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The answer to a lookup.

    Attributes:
        wire: what is sent back.
        addresses: what the name gave, which is to be bound.
        seconds: their time to live as told.
        truncated: whether the upstream's answer was cut, so that it is to be asked over TCP.
        failed: whether the upstream could not say, so that another is to be asked.
    """

    wire: bytes
    addresses: tuple[Address, ...] = ()
    seconds: int = 0
    truncated: bool = False
    failed: bool = False


def receive(wire: bytes, could_allow: Callable[[str], bool], upstream_id: int) -> Answer | Lookup | None:
    """Decide on a query.

    Args:
        wire: the message.
        could_allow: says whether some rule could allow a connection to a name: lower case, no dot at its end.
        upstream_id: a random number of 16 bits for the question to an upstream server.

    Returns:
        None for what must not be answered at all: too short for an id, or itself an answer.
    """
    if len(wire) < HEADER_BYTES or wire[2] & RESPONSE_FLAG:
        return None
    query = _parsed(wire)
    if query is None or query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return Answer(wire=_bare(wire, dns.rcode.FORMERR), reason="malformed")
    question = query.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return Answer(wire=_answer(query, dns.rcode.REFUSED), reason="refused")
    name = _text(question.name)
    if name is None or not could_allow(name):
        return Answer(wire=_answer(query, dns.rcode.NXDOMAIN), reason="denied")
    if question.rdtype not in LOOKED_UP:
        return Answer(wire=_answer(query, dns.rcode.NOERROR), reason="no_data")
    asked = dns.message.make_query(
        question.name, question.rdtype, use_edns=0, payload=EDNS_BYTES_MAX, id=upstream_id, flags=dns.flags.RD
    )
    return Lookup(name=name, query=query, wire=asked.to_wire())


def complete(
    lookup: Lookup, wire: bytes, may_give: Callable[[str, Address], bool], *, length_max: int | None = None
) -> Resolved | None:
    """Make the answer to a run's query of an upstream server's.

    Args:
        lookup: what was asked.
        wire: what came.
        may_give: says whether a name may give an address.
        length_max: of the answer, in bytes; None: as much as the query allows over UDP.

    Returns:
        None if this is no answer to that question: whoever sent it, it is passed over.
    """
    found = _parsed(wire)
    asked = dns.message.from_wire(lookup.wire)
    if found is None or not asked.is_response(found):
        return None
    if found.flags & dns.flags.TC:
        return Resolved(wire=failed(lookup), truncated=True)
    code = found.rcode()
    if code not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return Resolved(wire=failed(lookup), failed=True)
    given, seconds = _addresses(found, asked.question[0])
    addresses = tuple(address for address in given if may_give(lookup.name, address))[:ADDRESSES_MAX]
    return Resolved(
        wire=_answer(lookup.query, code if not given else dns.rcode.NOERROR, addresses, seconds, length_max),
        addresses=addresses,
        seconds=seconds,
    )


def failed(lookup: Lookup) -> bytes:
    """Give the answer when no upstream server answered: SERVFAIL, which is asked again."""
    return _answer(lookup.query, dns.rcode.SERVFAIL)


def is_ordinary(_name: str, address: Address) -> bool:
    """Say whether a name of the network may give an address: none of this host, of the link, of nobody or of many.

    IPv4 addresses in IPv6's clothes are none that a name has; the client makes them by itself.
    """
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    return not mapped and address_range.is_ordinary(address)


def _parsed(wire: bytes) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError):
        return None


def _text(name: dns.name.Name) -> str | None:
    """Give a name as rules have it; None for one with bytes that no name of a host has, and for the root."""
    raw = [label.lower() for label in name.labels if label]
    plain = all(byte < 0x80 and (chr(byte).isalnum() or byte in b"-_") for label in raw for byte in label)  # noqa: PLR2004 - ASCII
    return b".".join(raw).decode("ascii") if raw and plain else None


def _bare(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """Answer what could not be read: its id, and that it is an answer."""
    return wire[:2] + bytes([RESPONSE_FLAG | wire[2] & 0x79, code]) + bytes(8)


def _answer(
    query: dns.message.Message,
    code: dns.rcode.Rcode,
    addresses: tuple[Address, ...] = (),
    seconds: int = 0,
    length_max: int | None = None,
) -> bytes:
    response = dns.message.make_response(query, recursion_available=True, our_payload=EDNS_BYTES_MAX)
    response.set_rcode(code)
    question = query.question[0]
    if addresses:
        texts = [str(address) for address in addresses]
        response.answer.append(dns.rrset.from_text_list(question.name, seconds, question.rdclass, question.rdtype, texts))
    room = length_max or (min(max(query.payload, PLAIN_BYTES_MAX), EDNS_BYTES_MAX) if query.edns >= 0 else PLAIN_BYTES_MAX)
    wire = response.to_wire(max_size=0xFFFF)
    if len(wire) <= room:
        return wire
    response.answer.clear()
    response.flags |= dns.flags.TC
    return response.to_wire(max_size=0xFFFF)


def _addresses(found: dns.message.Message, question: dns.rrset.RRset) -> tuple[list[Address], int]:
    """Follow aliases from the name that was asked for. Gives the addresses at its end, and the shortest time to live."""
    names, seconds = [question.name], int(SECONDS_MAX)
    for _step in range(ALIASES_MAX):
        alias = _records(found, names[-1], dns.rdatatype.CNAME)
        if alias is None:
            break
        seconds = min(seconds, alias.ttl)
        names.append(alias[0].target)
    last = _records(found, names[-1], question.rdtype)
    if last is None:
        return [], seconds
    return list(_parsed_addresses(last)), min(seconds, last.ttl)


def _records(found: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    internet = (part for part in found.answer if part.rdclass == dns.rdataclass.IN and len(part))
    return next((part for part in internet if part.name == name and part.rdtype == kind), None)


def _parsed_addresses(records: dns.rrset.RRset) -> Iterator[IPv4Address | IPv6Address]:
    for record in records:
        yield ip_address(record.address)
