"""Looking for words in the files of something that is at work.

What lives here: that. What must not: what is looked for.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def content(path: Path) -> bytes:
    """Give what is in a file; nothing, if it was removed or renamed since it was listed."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
