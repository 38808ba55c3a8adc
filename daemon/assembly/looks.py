"""What a process looked at and left where it was (MSG_PEEK, SSL_peek): heard, though nothing counts it.

What lives here: up to where each stream was looked at, and what of that was never taken. What must not: records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from capd.daemon.assembly import tls
from capd.daemon.assembly.state import RESPONSE, SessionState
from capd.daemon.assembly.streams import Chunk


def look(state: SessionState, chunk: Chunk) -> bool:
    """Note a look; gives that nothing is waited for."""
    stream = (chunk.tls, chunk.stream)
    state.peeked[stream] = max(state.peeked.get(stream, 0), chunk.position + chunk.length)
    return True


def untaken(state: SessionState, taken: Callable[[bool, int, int], int]) -> Iterator[tuple[bool, int]]:
    """Give the streams of which more was looked at than taken, and how much more.

    The header of a TLS record says nothing: clients look at a byte of an idle connection to learn whether it is over.

    Args:
        state: a session that ends.
        taken: gives how many bytes of a stream (TLS, id, direction) were taken.
    """
    for (tls_stream, stream), seen in state.peeked.items():
        missing = seen - taken(tls_stream, stream, RESPONSE)
        if missing > (tls.RECORD_HEADER_BYTES if state.encrypted and not tls_stream else 0):
            yield tls_stream, missing
