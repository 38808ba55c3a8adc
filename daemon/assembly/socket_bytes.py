"""What moved on a session's socket itself, of whatever layer: what another witness of the same socket can be held against.

What lives here: that sum, and what TCP counted beyond it. What must not: comparing with the enforcer (daemon/witness/).
"""

from __future__ import annotations

from capd.daemon.assembly.state import DIRECTIONS, REQUEST, RESPONSE, SessionState
from capd.daemon.assembly.streams import RESTARTED
from capd.probes.layouts import SocketCloseEvent
from capd.recording.record import Value


def socket_bytes(closing: SocketCloseEvent | str | None, state: SessionState) -> dict[str, Value]:
    """Give the field of a CLOSE record, as the probes and TCP counted; nothing where nobody counted all of it."""
    if not isinstance(closing, SocketCloseEvent) or state.mid_stream or RESTARTED in state.losses:
        return {}
    kernel, seen = closing.kernel or closing.position, closing.position
    request, response = max(kernel[REQUEST], seen[REQUEST]), max(kernel[RESPONSE], seen[RESPONSE])
    return {"socket_bytes": {"request": request, "response": response}}


def unseen(closing: SocketCloseEvent | str | None, state: SessionState) -> list[tuple[int, int]]:
    """Give the directions, and how many bytes, that TCP counted and the probes did not: calls that they do not see."""
    if not isinstance(closing, SocketCloseEvent) or closing.kernel is None or state.mid_stream or RESTARTED in state.losses:
        return []
    missing = [closing.kernel[direction] - closing.position[direction] for direction in DIRECTIONS]
    return [(direction, size) for direction, size in zip(DIRECTIONS, missing, strict=True) if size > 0]
