"""What the core gives back.

What lives here: the batch. What must not: how it is stored. Rows of the index follow from records, see `recording.projection`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capd.recording.record import Record


@dataclass(slots=True)
class Batch:
    """Records in the order in which they are to be stored."""

    records: list[Record] = field(default_factory=list)
