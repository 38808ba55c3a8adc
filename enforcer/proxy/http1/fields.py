"""Header fields between two connections: which go across, and how they are written.

What lives here: RFC 9110 section 7.6 (what belongs to one connection only). What must not: what a request or a response means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

Fields = Sequence[tuple[str, str]]
Named = Mapping[str, Sequence[str]]
"""Values by name in lower case."""

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",  # written anew from what was decoded, as is the next
        "transfer-encoding",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
    }
)
"""Of one connection; each side gets its own."""
NEVER_NOMINATED: Final = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "host",
        "location",
        "range",
        "set-cookie",
        "trailer",
        "vary",
        "www-authenticate",
    }
)
"""`Connection: authorization` would have us remove what was judged (RFC 9110 7.6.1 forbids to name these)."""
NEVER_TRAILERS: Final = HOP_BY_HOP | NEVER_NOMINATED | {"expires", "max-forwards", "pragma", "age", "retry-after"}
"""RFC 9110 6.5.1: framing, routing, authentication; a receiver that merges trailers into the head would take them for it."""


NAMES_MAX: Final = 4_096
NAME_CHARACTERS_MAX: Final = 64
"""Names of fields that were looked at are remembered, if they are as short as those in use: agents repeat them."""
_VARIABLE: Final = re.compile(r"[^a-z0-9]")


class NominationError(ValueError):
    """A Connection field names what does not belong to the connection."""


def by_name(fields: Fields) -> Named:
    """Give the values of each field, by its name in lower case."""
    named: dict[str, list[str]] = {}
    for name, value in fields:
        named.setdefault(name.lower(), []).append(value)
    return named


def split(fields: Iterable[Sequence[str]], dropped: frozenset[str]) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """Part fields in one pass.

    Returns:
        Those that are not dropped; and the values of those that are, or that some take for others, by name in lower case.
    """
    kept: list[tuple[str, str]] = []
    named: dict[str, list[str]] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in dropped:
            named.setdefault(lower, []).append(value)
            continue
        kept.append((name, value))
        if _is_disguised(lower):
            named.setdefault(lower, []).append(value)
    return kept, named


def disguised(named: Named) -> list[str]:
    """Give the names that servers with the variables of CGI (RFC 3875 4.1.18) take for another field: `Transfer_Encoding`."""
    return [name for name in named if _is_disguised(name)]


def _is_disguised(name: str) -> bool:
    return (_disguised if len(name) <= NAME_CHARACTERS_MAX else _disguised.__wrapped__)(name)


@lru_cache(maxsize=NAMES_MAX)
def _disguised(name: str) -> bool:
    return name not in NEVER_TRAILERS and _VARIABLE.sub("-", name) in NEVER_TRAILERS


def members(named: Named, name: str) -> list[str]:
    """Give the members of a list field, in lower case."""
    values = named.get(name)
    if values is None:
        return []
    found = (member.strip(" \t").lower() for value in values for member in value.split(","))
    return [member for member in found if member]


def end_to_end(fields: Fields, nominated: Sequence[str], dropped: frozenset[str]) -> list[tuple[str, str]]:
    """Leave out what belongs to one connection.

    Args:
        fields: all of a message.
        nominated: what its Connection field names.
        dropped: what is left out anyway: HOP_BY_HOP, and more.

    Raises:
        NominationError: its Connection field names what everybody needs.
    """
    if nominated:
        wrong = NEVER_NOMINATED.intersection(nominated)
        if wrong:
            raise NominationError(f"the Connection field names {', '.join(sorted(wrong))}")
        dropped = dropped.union(nominated)
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def trailers(fields: Fields) -> list[tuple[str, str]]:
    """Give those trailer fields that may go across."""
    return [(name, value) for name, value in fields if name.lower() not in NEVER_TRAILERS]


def written(start_line: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Write a head."""
    return f"{start_line}\r\n{field_lines(fields)}\r\n".encode("latin-1")


class Lines:
    """Writes field lines; those that it wrote last are not written again."""

    def __init__(self) -> None:
        self._fields: Fields = ()
        self._text = ""

    def text(self, fields: tuple[tuple[str, str], ...]) -> str:
        """Write fields. Known again by being the same object, which nobody can change."""
        if fields is not self._fields:
            self._fields, self._text = fields, field_lines(fields)
        return self._text


def field_lines(fields: Iterable[tuple[str, str]]) -> str:
    """Write field lines."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields])


def chunk(content: bytes) -> bytes:
    """Write a chunk (RFC 9112 7.1); of nothing, nothing: it would be the last one."""
    return b"%x\r\n%b\r\n" % (len(content), content) if content else b""


def last_chunk(fields: Iterable[tuple[str, str]]) -> bytes:
    """Write the last chunk with the trailers."""
    return written("0", fields)
