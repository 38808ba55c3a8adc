"""The handshake of WebSocket: what a request and an answer must say for the connection to become one.

What lives here: RFC 6455 section 4, as far as it tells a WebSocket from something that only looks like one. What must not:
frames, the policy.

Extensions are left out of what the target is offered: there is one in use, permessage-deflate, and what it packs could not be
looked at as it goes by. An answer that agrees on one all the same is none.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final

KEY: Final = "sec-websocket-key"
EXTENSIONS: Final = "sec-websocket-extensions"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_VERSION: Final = "13"
_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Named = Mapping[str, Sequence[str]]
"""Values by name in lower case."""


class HandshakeError(ValueError):
    """It is no handshake of WebSocket."""


def check_request(method: str, named: Named, *, body: bool) -> None:
    """Look at a request that wants to become a WebSocket (RFC 6455 4.2.1).

    Raises:
        HandshakeError: it cannot.
    """
    if method != "GET" or body:
        raise HandshakeError("a WebSocket begins with a GET without a body")
    keys = [value.strip(" \t") for value in named.get(KEY, ())]
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise HandshakeError("a WebSocket begins with a Sec-WebSocket-Key of 16 bytes")
    if [value.strip(" \t") for value in named.get("sec-websocket-version", ())] != [_VERSION]:
        raise HandshakeError("Sec-WebSocket-Version is not 13")


def check_answer(key: str, named: Named) -> None:
    """Look at the answer 101 (RFC 6455 4.1).

    Args:
        key: of the request.
        named: fields of the answer.

    Raises:
        HandshakeError: the target did not understand what it was asked.
    """
    if [value.strip(" \t").lower() for value in named.get("upgrade", ())] != ["websocket"]:
        raise HandshakeError("the target changes to something else than WebSocket")
    if [value.strip(" \t") for value in named.get("sec-websocket-accept", ())] != [accept(key)]:
        raise HandshakeError("the target's Sec-WebSocket-Accept does not fit what it was asked")
    if any(value.strip(" \t") for value in named.get(EXTENSIONS, ())):
        raise HandshakeError("the target agrees on an extension that it was not offered")


def accept(key: str) -> str:
    """Give the proof that a server has read a key (RFC 6455 4.2.2)."""
    return b64encode(sha1(key.encode("ascii") + _SALT, usedforsecurity=False).digest()).decode("ascii")
