"""A request's body as the text that rules look at.

What lives here: whether it can be read, so that words which are in it are found. What must not: rules, how much of it is held.

What cannot be read, or not to its end, is not known: a rule that stops for a word counts then, and none that allows for one
does (policy/matcher.py). Servers tell UTF-16 and UTF-32 of JSON by its zeros (RFC 4627 3), whatever the head says; the zeros of
gRPC are those of its frames, between which text is what it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from capd.enforcer.proxy.question import Body

_OF_ASCII: Final = re.compile(r"utf-?8|(?:us-)?ascii|iso-8859-[0-9]{1,2}|latin-?[0-9]|windows-125[0-9]")
"""Charsets in which ASCII is what it is; what is beyond it must be UTF-8 to be read."""
_GRPC: Final = "application/grpc"
_GRPC_PREFIX: Final = struct.Struct("!?I")
"""Of a message: whether it is packed, and its length (gRPC's PROTOCOL-HTTP2)."""
Fields = Iterable[tuple[str, str]]


def body_text(body: Body, fields: Fields) -> str | None:
    """Give a body as text; None: there is more of it, or servers may read something else in it.

    Args:
        body: what was read of it.
        fields: of its request.
    """
    if not body.complete or (body.content and not _is_plain(body.content, fields)):
        return None
    return body.content.decode("utf-8", "surrogateescape")


def _is_plain(content: bytes, fields: Fields) -> bool:
    said = [(name.lower(), value.lower()) for name, value in fields]
    coded = any(name == "content-encoding" and value != "identity" for name, value in said)
    kinds = [value for name, value in said if name == "content-type"]
    if coded or not all(_OF_ASCII.fullmatch(charset) for kind in kinds for charset in _charsets(kind)):
        return False
    return b"\0" not in content or (all(kind.startswith(_GRPC) for kind in kinds) and bool(kinds) and _is_grpc(content))


def _charsets(kind: str) -> list[str]:
    parameters = [parameter.partition("=") for parameter in kind.split(";")[1:]]
    return [value.strip(" \t\"'") for name, _, value in parameters if name.strip(" \t").rstrip("*") == "charset"]


def _is_grpc(content: bytes) -> bool:
    """Say whether all of it is messages that are not packed."""
    at = 0
    while at + _GRPC_PREFIX.size <= len(content):
        packed, length = _GRPC_PREFIX.unpack_from(content, at)
        if packed:
            return False
        at += _GRPC_PREFIX.size + length
    return at == len(content)
