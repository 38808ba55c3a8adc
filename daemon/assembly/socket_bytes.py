"""What moved on a session's socket itself, of whatever layer: what another witness of the same socket can be held against.

What lives here: that sum. What must not: comparing (daemon/witness/).
"""

from __future__ import annotations

from capd.daemon.assembly.state import REQUEST, RESPONSE, SessionState
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
