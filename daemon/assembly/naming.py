"""What the peer of a session is called, from what the agent itself said to it; and the words for what the probes number.

What lives here: which field of which message holds the name, words of enumerations. What must not: looking names up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capd.decoders.message import JsonValue, Message
from capd.probes.layouts import Library, Tie

NAMING_TYPES: Final = frozenset({"request", "StartupMessage", "HandshakeResponse"})
"""HTTP's request head (Host, RFC 9110, section 7.2); what a client of PostgreSQL or MySQL begins with (database, else user)."""


def peer_name(message: Message) -> str | None:
    """Give the name of the peer that a message tells, or None."""
    if message.type == "request":
        return host_of(message.fields.get("host"))
    if message.type in NAMING_TYPES:
        return _database(message.fields)
    return None


def host_of(value: JsonValue) -> str | None:
    """Give the name in a Host field, without its port; None: there is none."""
    if not isinstance(value, str) or not value:
        return None
    name, _, port = value.rpartition(":")
    return name if name and port.isdecimal() else value


def _database(fields: Mapping[str, JsonValue]) -> str | None:
    inner = fields.get("parameters")
    parameters = inner if isinstance(inner, Mapping) else fields
    name = parameters.get("database") or parameters.get("user")
    return name if isinstance(name, str) else None


def tie_name(tie: int) -> str:
    """Give the word of a `layouts.Tie`."""
    return Tie(tie).name.lower() if tie in Tie.__members__.values() else str(tie)


def library_name(library: int) -> str:
    """Give the word of a `layouts.Library`."""
    return Library(library).name.lower() if library in Library.__members__.values() else str(library)
