"""Packets as capd itself builds them.

What lives here: building. What must not: reading (decoders/mysql), their order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from capd.decoders.mysql.login import Greeting, Login
from capd.decoders.mysql.wire import EXTENDED_SHIFT, PACKET_BYTES_MAX, Capability

DENIED: Final = (1142, "42000")
NOT_LET_IN: Final = (1045, "28000")
NOT_REACHED: Final = (2003, "HY000")
NOT_UNDERSTOOD: Final = (1047, "08S01")
TOO_LONG: Final = (1153, "08S01")
BEYOND: Final = (1226, "42000")
NO_STATEMENT: Final = (1243, "HY000")
PREPARE_AGAIN: Final = (1615, "HY000")
MESSAGE_BYTES_MAX: Final = 512
"""Clients keep as much of an error (MYSQL_ERRMSG_SIZE)."""

KEPT: Final = int(
    1 << 1  # found rows instead of changed ones
    | 1 << 2  # more flags of columns
    | Capability.CONNECT_WITH_DB
    | 1 << 6  # ODBC
    | Capability.PROTOCOL_41
    | 1 << 10  # interactive: another timeout
    | 1 << 13  # transactions
    | 1 << 14  # reserved, and set by many
    | Capability.SECURE_CONNECTION
    | Capability.MULTI_STATEMENTS
    | Capability.MULTI_RESULTS
    | Capability.PS_MULTI_RESULTS
    | Capability.PLUGIN_AUTH
    | Capability.CONNECT_ATTRS
    | Capability.PLUGIN_AUTH_LENENC
    | 1 << 22  # expired passwords
    | Capability.SESSION_TRACK
    | Capability.DEPRECATE_EOF
    | Capability.LONG_PASSWORD
)
"""Capabilities that may be agreed on. Not among them: what hides what is said (COMPRESS, ZSTD), makes the client send files
(LOCAL_FILES), changes how statements are read (IGNORE_SPACE), or is not followed (QUERY_ATTRIBUTES, OPTIONAL_METADATA, a second
factor, MariaDB's extended ones)."""


def packet(sequence: int, body: bytes) -> bytes:
    """Give a packet; one longer than a packet can be is the caller's mistake."""
    assert len(body) < PACKET_BYTES_MAX
    return len(body).to_bytes(3, "little") + bytes([sequence % 256]) + body


def err(sequence: int, error: tuple[int, str], message: str, *, encoding: str = "utf-8") -> bytes:
    """Give an ERR."""
    code, state = error
    text = message.encode(encoding, "replace")[:MESSAGE_BYTES_MAX]
    return packet(sequence, b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + text)


def early_err(sequence: int, error: tuple[int, str], message: str) -> bytes:
    """Give an ERR as it is before the client has said what it can: without a state."""
    return packet(sequence, b"\xff" + struct.pack("<H", error[0]) + message.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX])


def facts_text(message: str, facts: Mapping[str, str]) -> str:
    """Give a message with facts for machines and people behind it, in one line."""
    told = ", ".join(f"{name}={value}" for name, value in facts.items() if value)
    return f"capd: {message} [{told}]" if told else f"capd: {message}"


def ok(sequence: int, status: int) -> bytes:
    """Give an OK."""
    return packet(sequence, b"\0\0\0" + struct.pack("<HH", status, 0))


def greeting(told: Greeting) -> bytes:
    """Give a greeting with what may be agreed on of the server's: its scramble, so that proofs can be passed on."""
    capabilities = told.capabilities & (KEPT | Capability.SSL) | Capability.LONG_PASSWORD
    body = b"\x0a" + told.version.encode("latin-1") + b"\0" + struct.pack("<I", told.thread) + told.scramble[:8] + b"\0"
    body += struct.pack(
        "<HBHHB", capabilities & 0xFFFF, told.collation, told.status, capabilities >> 16, len(told.scramble) + 1
    )
    body += bytes(10) + told.scramble[8:] + b"\0" + told.plugin.encode("latin-1") + b"\0"
    return packet(0, body)


def _head(capabilities: int, packet_bytes_max: int, collation: int) -> bytes:
    return struct.pack("<IIB", capabilities & 0xFFFF_FFFF, packet_bytes_max, collation) + bytes(23)


def ssl_request(login: Login) -> bytes:
    """Give the request for TLS that goes before a login."""
    return packet(1, _head(login.capabilities | Capability.SSL, login.packet_bytes_max, login.collation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Who is signed in, in bytes as the client sent them."""

    user: bytes
    database: bytes | None
    attributes: bytes


def response_bytes_max(capabilities: int) -> int:
    """Say how long a proof can be with the capabilities that are agreed on."""
    return 0xFFFF if capabilities & Capability.PLUGIN_AUTH_LENENC else 0xFF


def login(sequence: int, told: Login, wanted: Wanted, plugin: str, response: bytes) -> bytes:
    """Give a HandshakeResponse; `told` has the capabilities that are agreed on."""
    plain = len(response) <= response_bytes_max(0)
    capabilities = told.capabilities & ~int(Capability.PLUGIN_AUTH_LENENC) if plain else told.capabilities
    attributes = wanted.attributes if capabilities & Capability.CONNECT_ATTRS else b""
    body = _head(capabilities, told.packet_bytes_max, told.collation) + wanted.user + b"\0"
    body += (bytes([len(response)]) if plain else b"\xfc" + len(response).to_bytes(2, "little")) + response
    body += b"" if wanted.database is None else wanted.database + b"\0"
    body += plugin.encode("latin-1") + b"\0" if capabilities & Capability.PLUGIN_AUTH else b""
    return packet(sequence, body + attributes)


def agreed(told: Login, offered: int, *, encrypted: bool) -> Login:
    """Give a login with what both can and may, and with a database only if it names one."""
    capabilities = told.capabilities & offered & KEPT | Capability.LONG_PASSWORD | Capability.PROTOCOL_41
    capabilities |= Capability.SECURE_CONNECTION
    if encrypted:
        capabilities |= Capability.SSL
    capabilities &= ~int(Capability.CONNECT_WITH_DB)
    if told.database is not None:
        capabilities |= Capability.CONNECT_WITH_DB
    assert capabilities >> EXTENDED_SHIFT == 0
    return replace(told, capabilities=int(capabilities))
