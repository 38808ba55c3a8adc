"""The key by which enforcer and recorder digest what agents say: made by the one, read by the other.

What lives here: its file, beside the decision log, which both can read and nobody else. What must not: digests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from capd.recording.durable import read_regular, replace_content
from capd.recording.stream_digest import KEY_BYTES

NAME: Final = "said.key"


def make(directory: Path, random: Callable[[int], bytes]) -> bytes:
    """Give the key, and make it if there is none.

    Raises:
        OSError: it can be neither read nor written.
    """
    found = find(directory)
    if not found:
        found = random(KEY_BYTES)
        replace_content(directory / NAME, found, mode=0o640)
    return found


def find(directory: Path) -> bytes:
    """Give the key; empty: there is none that can be read."""
    try:
        found = read_regular(directory / NAME, KEY_BYTES + 1)
    except OSError:
        return b""
    return found if len(found) == KEY_BYTES else b""
