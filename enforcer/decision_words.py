"""What enforcer and recorder must do alike with text, so that what one wrote of a request the other finds again.

What lives here: how much of a text the decision log has, and the hash of a statement. What must not: entries (proxy/entry.py),
nor imports of the proxy: the recorder, which decides nothing, would keep it in memory.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

TEXT_CHARACTERS_MAX: Final = 1_024
"""Of what an agent, a target or an operator chose."""


def said_sha256(text: str | None) -> bytes | None:
    """Give the hash by which enforcer and recorder know a statement; None: its text is not ASCII, which both read alike."""
    return sha256(text.encode("ascii")).digest() if text is not None and text.isascii() else None
