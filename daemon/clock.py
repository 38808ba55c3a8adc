"""Whether this host's clock is kept right: times in the record are only as good as it is.

What lives here: asking the kernel. What must not: setting anything, judging.

Source: adjtimex(2), linux/timex.h.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

STA_UNSYNC: Final = 0x40
TIMEX_BYTES: Final = 256
"""struct timex has 208; the kernel writes no more."""
MAXIMUM_ERROR_OFFSET, STATUS_OFFSET = 24, 40
"""Of `maxerror`, a long in us, and of `status`, an int, on 64-bit machines."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def facts() -> dict[str, object]:
    """Give the part of the status.

    Returns:
        `synchronised` (None: the kernel does not say), and `error_seconds`, how far off it may be, where it is.
    """
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)  # modes is 0: nothing is set
    if _LIBC.adjtimex(buffer) < 0:
        return {"synchronised": None, "error_seconds": None}
    (error_us,) = struct.unpack_from("@q", buffer, MAXIMUM_ERROR_OFFSET)
    (status,) = struct.unpack_from("@i", buffer, STATUS_OFFSET)
    if status & STA_UNSYNC:
        return {"synchronised": False, "error_seconds": None}
    return {"synchronised": True, "error_seconds": error_us / 1_000_000}
