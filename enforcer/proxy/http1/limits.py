"""How long, and how much, one connection of HTTP/1.1 waits for.

What lives here: numbers. What must not: what follows when one is reached (layer.py). HTTP/2 has some of them too.
"""

from __future__ import annotations

from typing import Final

HEAD_SECONDS: Final = 60.0
"""From the first byte of a request's head to its last; servers in use have 20 to 60."""
LINGER_SECONDS: Final = 2.0
"""How long what a refused client still sends is taken, so that it reads the answer and not a reset (RFC 9112 9.6)."""
LINGER_BYTES_MAX: Final = 1 << 20
DRAIN_BYTES_MAX: Final = 65_536
"""A refused request with no more body than that leaves the connection usable."""
