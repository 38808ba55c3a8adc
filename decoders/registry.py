"""Which protocols can be decoded.

What lives here: the table of names. What must not: any knowledge of a protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.http1 import Http1Decoder
from capd.decoders.http2 import Http2Decoder
from capd.decoders.message import Decoder
from capd.decoders.mysql import MysqlDecoder
from capd.decoders.postgresql import PostgresqlDecoder
from capd.decoders.redis import RedisDecoder
from capd.decoders.websocket import WebsocketDecoder

_DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = {
    "http1": Http1Decoder,
    "http2": Http2Decoder,
    "mysql": MysqlDecoder,
    "postgresql": PostgresqlDecoder,
    "redis": RedisDecoder,
}


def decoder_for(protocol: str, agreed: str = "") -> Decoder | None:
    """A fresh decoder for a name that `detect` gives, or None: the protocol is kept raw and labelled.

    Args:
        protocol: its name.
        agreed: of WebSocket, which extensions the handshake agreed on.
    """
    if protocol == "websocket":
        return WebsocketDecoder(agreed)
    make = _DECODERS.get(protocol)
    return None if make is None else make()


def decodable() -> frozenset[str]:
    """The names that `decoder_for` knows."""
    return frozenset({*_DECODERS, "websocket"})
