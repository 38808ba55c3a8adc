"""Where in a stream the content of a message stands, when frames stand between its parts.

What lives here: reading that from a record. What must not: bytes (window.py), protocols.
"""

from __future__ import annotations

from collections.abc import Sequence

from capd.cli import facts
from capd.cli.facts import Facts


def pieces_of(told: Facts) -> Sequence[tuple[int, int]] | None:
    """Give where in the stream the content of a message is, as position and length; None: framing has to be taken out."""
    fields = facts.mapping(told, "fields")
    if "pieces" not in fields:
        return None
    pairs = [facts.sequence_of(pair) for pair in facts.sequence(fields, "pieces")]
    return sorted((pair[0], pair[1]) for pair in pairs if len(pair) == 2 and all(type(part) is int for part in pair))  # type: ignore[misc]  # noqa: PLR2004 - a pair
