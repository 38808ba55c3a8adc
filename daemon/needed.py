"""Which segments the recorder would read again if it died now: their local copies stay, whatever the limits say.

What lives here: the file that says it. What must not: what is read in them (recorder_resumption.py, recorder_history.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from capd.recording.durable import read_regular, replace_content

NAME: Final = "needed"
BYTES_MAX: Final = 32


def say_needed(directory: Path, sequence: int) -> None:
    """Write down the number of the first segment that is needed; those before it are not any more.

    Args:
        directory: the recorder's own.
        sequence: of the segment.

    Raises:
        OSError: it cannot be written; then more is kept than needed.
    """
    replace_content(directory / NAME, b"%d\n" % sequence, mode=0o644)


def needed_from(directory: Path) -> int:
    """Give the number of the first segment that is needed; 0, all of them, where nothing says it."""
    try:
        return int(read_regular(directory / NAME, BYTES_MAX))
    except (OSError, ValueError):
        return 0
