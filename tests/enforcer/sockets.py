"""WebSocket around the proxy's core: a handshake as clients make it, and its answer.

What lives here: bytes. What must not: what is expected.
"""

from __future__ import annotations

from capd.enforcer.proxy.websocket.handshake import accept

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""Of RFC 6455 1.2."""
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
    + accept(KEY).encode()
    + b"\r\n\r\n"
)
