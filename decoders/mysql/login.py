"""How a connection begins: the packets with which client and server agree on what they can, and who the client is.

What lives here: reading them (protocol pages "HandshakeV10", "HandshakeResponse41", "COM_CHANGE_USER"). What must not: their
order, messages.

Proofs and scrambles are kept apart from everything that is shown: of them only their place is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from capd.decoders.mysql.collations import codec
from capd.decoders.mysql.wire import EXTENDED_SHIFT, Capability, Fields, MalformedError

VERSION: Final = 10
SSL_REQUEST_BYTES: Final = 32
_FIRST_SCRAMBLE_BYTES: Final = 8
_SECOND_SCRAMBLE_BYTES_MIN: Final = 13
_FILLER_BYTES: Final = 19
_EXTENDED_BYTES: Final = 4
_MARIADB_RESERVED_BYTES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What the server says first.

    Attributes:
        version: of the server, in its own words.
        thread: number of the connection.
        scramble: what proofs are about.
        capabilities: MariaDB's extended ones above the others.
        collation: its number, the lower byte of it.
        status: of the session.
        plugin: name of the way to authenticate; "": none told.
        proof: where in the packet's payload the scramble is, from its first byte to its last.
    """

    version: str
    thread: int
    scramble: bytes = field(repr=False)
    capabilities: int
    collation: int
    status: int
    plugin: str
    proof: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What the client answers, or says with COM_CHANGE_USER.

    Attributes:
        capabilities: MariaDB's extended ones above the others; of COM_CHANGE_USER 0.
        packet_bytes_max: the longest that it wants.
        collation: its number.
        user: who it wants to be.
        response: its proof.
        database: None: none.
        plugin: name of the way in which it proves itself; "": not told.
        attributes: what it tells of itself.
        proof: where in the packet's payload the proof is.
    """

    capabilities: int
    packet_bytes_max: int
    collation: int
    user: str
    response: bytes = field(repr=False)
    database: str | None
    plugin: str
    attributes: tuple[tuple[str, str], ...]
    proof: tuple[int, int]


def greeting(body: bytes) -> Greeting:
    """Read the server's first packet.

    Raises:
        MalformedError: it is none.
    """
    fields = Fields(body)
    if fields.byte() != VERSION:
        raise MalformedError("not of version 10")
    version = fields.until_nul().decode("latin-1")
    thread = fields.number(4)
    begin = fields.at
    scramble = fields.raw(_FIRST_SCRAMBLE_BYTES)
    end = fields.at
    fields.raw(1)
    capabilities = fields.number(2)
    collation = status = length = 0
    plugin = ""
    if fields.left:
        collation, status = fields.byte(), fields.number(2)
        capabilities |= fields.number(2) << 16
        length = fields.byte()
        fields.raw(_MARIADB_RESERVED_BYTES)
        extended = fields.number(_EXTENDED_BYTES)
        if not capabilities & Capability.LONG_PASSWORD:
            capabilities |= extended << EXTENDED_SHIFT
    if capabilities & Capability.SECURE_CONNECTION and fields.left:
        second = fields.raw(max(_SECOND_SCRAMBLE_BYTES_MIN, length - _FIRST_SCRAMBLE_BYTES))
        scramble, end = scramble + second.removesuffix(b"\0"), fields.at
    if capabilities & Capability.PLUGIN_AUTH and fields.left:
        plugin = fields.rest().removesuffix(b"\0").decode("latin-1")
    fields.end()
    return Greeting(
        version=version,
        thread=thread,
        scramble=scramble,
        capabilities=capabilities,
        collation=collation,
        status=status,
        plugin=plugin,
        proof=(begin, end),
    )


def client_capabilities(fields: Fields) -> tuple[int, int, int]:
    """Read what an SSLRequest and a HandshakeResponse begin with: capabilities, longest packet, collation."""
    capabilities = fields.number(4)
    if not capabilities & Capability.PROTOCOL_41:
        raise MalformedError("the protocol before MySQL 4.1")
    packet_bytes_max, collation = fields.number(4), fields.byte()
    fields.raw(_FILLER_BYTES)
    extended = fields.number(_EXTENDED_BYTES)
    if not capabilities & Capability.LONG_PASSWORD:
        capabilities |= extended << EXTENDED_SHIFT
    return capabilities, packet_bytes_max, collation


def login(body: bytes) -> Login:
    """Read a HandshakeResponse.

    Raises:
        MalformedError: it is none.
    """
    fields = Fields(body)
    capabilities, packet_bytes_max, collation = client_capabilities(fields)
    fields.encoding = codec(collation)
    user = fields.until_nul()
    begin = fields.at
    if capabilities & Capability.PLUGIN_AUTH_LENENC:
        response = fields.piece()
    elif capabilities & Capability.SECURE_CONNECTION:
        response = fields.raw(fields.byte())
    else:
        response = fields.until_nul()
    proof = (begin, fields.at)
    database = plugin = b""
    if capabilities & Capability.CONNECT_WITH_DB and fields.left:
        database = fields.until_nul()
    if capabilities & Capability.PLUGIN_AUTH and fields.left:
        plugin = fields.until_nul()
    attributes = _attributes(fields) if capabilities & Capability.CONNECT_ATTRS and fields.left else ()
    if capabilities & Capability.ZSTD and fields.left:
        fields.raw(1)
    fields.end()
    return Login(
        capabilities=capabilities,
        packet_bytes_max=packet_bytes_max,
        collation=collation,
        user=_word(user, fields),
        response=response,
        database=_word(database, fields) or None,
        plugin=_word(plugin, fields),
        attributes=attributes,
        proof=proof,
    )


def change_user(body: bytes, capabilities: int, encoding: str) -> Login:
    """Read a COM_CHANGE_USER, of which the first byte is the command.

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body, encoding)
    fields.byte()
    user = fields.until_nul()
    begin = fields.at
    response = fields.raw(fields.byte()) if capabilities & Capability.SECURE_CONNECTION else fields.until_nul()
    proof = (begin, fields.at)
    database = fields.until_nul()
    collation, plugin = 0, b""
    attributes: tuple[tuple[str, str], ...] = ()
    if fields.left:
        collation = fields.number(2)
    if capabilities & Capability.PLUGIN_AUTH and fields.left:
        plugin = fields.until_nul()
    if capabilities & Capability.CONNECT_ATTRS and fields.left:
        attributes = _attributes(fields)
    fields.end()
    return Login(
        capabilities=0,
        packet_bytes_max=0,
        collation=collation,
        user=_word(user, fields),
        response=response,
        database=_word(database, fields) or None,
        plugin=_word(plugin, fields),
        attributes=attributes,
        proof=proof,
    )


def _attributes(fields: Fields) -> tuple[tuple[str, str], ...]:
    inner = Fields(fields.piece(), fields.encoding)
    found: list[tuple[str, str]] = []
    while inner.left:
        name = inner.string()
        found.append((name, inner.string()))
    return tuple(found)


def _word(raw: bytes, fields: Fields) -> str:
    return raw.decode(fields.encoding, "backslashreplace")
