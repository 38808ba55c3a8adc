"""What one HTTP/2 connection may take of us.

What lives here: the limits, and what they follow from. What must not: who holds them.
"""

from __future__ import annotations

from typing import Final

STREAMS_MAX: Final = 100
"""Open at once, and told to the agent; what clients assume before they know (RFC 9113 6.5.2)."""
FRAME_BYTES_MAX: Final = 16_384
"""Payload of a frame: what everybody must accept, and all that anybody is told (RFC 9113 4.2)."""
HEAD_BYTES_MAX: Final = 65_536
"""A head, unpacked, as RFC 9113 6.5.2 counts it; as much as one of HTTP/1.1 may have."""
BLOCK_BYTES_MAX: Final = 65_536
"""A head as it was packed."""
BLOCK_FRAMES_MAX: Final = 16
"""HEADERS and CONTINUATION of one head: four are enough for the bytes above; empty ones cost work (CVE-2024-27316)."""
TABLE_BYTES_MAX: Final = 4_096
"""What packing remembers, either way: the peer may allow us more, and we would keep it."""
CLIENT_STREAM_BYTES: Final = 65_535
"""Of a request's body that waits: for its verdict, or for the target. Where every connection begins."""
CLIENT_CONNECTION_BYTES: Final = STREAMS_MAX * CLIENT_STREAM_BYTES
"""So that streams that wait never stop the others."""
TARGET_STREAM_BYTES: Final = 524_288
"""Of an answer that its client does not take; what a far target can send in one round trip."""
TARGET_CONNECTION_BYTES: Final = 16 * TARGET_STREAM_BYTES
"""Of all answers of a connection."""
COLLECTED_BYTES_MAX: Final = 4 << 20
"""Bodies of one connection that rules, or persons, look at; what is over that counts as not read in full."""
CLOSED_STREAMS_MAX: Final = 1_024
"""That the library remembers: of one that it forgot, a frame ends the connection. What a peer still sends of a stream is behind
what it read of others by then, of which STREAMS_MAX are open. The library's own 65,536 are 4 MB of each connection."""
TRIES_MAX: Final = 3
"""Of a stream that a person approved, at targets that do not look at it."""
CALM_SECONDS: Final = 10.0
"""The time in which the next two are counted."""
CONTROL_FRAMES_MAX: Final = 1_000
"""Frames that carry nothing: PING, SETTINGS, PRIORITY, empty DATA, unknown ones (CVE-2019-9512 and its like)."""
CONTROL_FRAMES_PER_DATA: Final = 4
"""Further ones for each frame of a body either way: window updates, and the pings with which gRPC measures."""
RESETS_MAX: Final = 400
"""Streams that the agent gives up (CVE-2023-44487): each costs a decision and an entry of the log."""

assert BLOCK_FRAMES_MAX * FRAME_BYTES_MAX >= BLOCK_BYTES_MAX
assert TARGET_CONNECTION_BYTES < 1 << 31 > CLIENT_CONNECTION_BYTES
