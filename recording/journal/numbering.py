"""Numbers of journal files that are never used again, whatever a power cut takes.

What lives here: reserving them, a range at each start. What must not: blocks.

A journal's files are not synced, so their names may be lost; if numbers were given twice, the recorder would take new blocks
for those that it has recorded already.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.recording.durable import read_regular, replace_content

RESERVATION: Final = "next"
"""File beside the journal's: decimal, the number that the next start begins with."""
RANGE: Final = 1_000_000_000
"""Files of one start: at the least size petabytes."""
NUMBERS_MAX: Final = 10**16
"""A name has so many digits as this."""
_BYTES_MAX: Final = 32


def reserved(directory: Path) -> int:
    """Give the number that the next start begins with; 0 when nothing says it."""
    try:
        text = read_regular(directory / RESERVATION, _BYTES_MAX).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() and int(text) < NUMBERS_MAX else 0


def reserve(directory: Path, first: int, *, group: int | None) -> int:
    """Give the number of this start's first file, and see to it that the next start begins far behind.

    Args:
        directory: of the journal.
        first: it is no lower than this.
        group: group that may read the reservation: the recorder's.
    """
    number = max(first, reserved(directory))
    with suppress(OSError):  # no room: then only a power cut can bring numbers back
        replace_content(directory / RESERVATION, b"%d\n" % (number + RANGE), group=group)
    return number
