"""What a run has had in all, and said in the last minute: counted for all workers together.

What lives here: what is asked of whoever counts, names of what is counted, and the sliding minute. What must not: where it is
kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

KEY_BYTES: Final = 16
MINUTE_SECONDS: Final = 60.0


def key_of(run: str, rule: str, what: str) -> bytes:
    """Name what is counted: of a run, by a rule."""
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (run.encode(), rule.encode(), what.encode()))
    return blake2b(parts, digest_size=KEY_BYTES).digest()


class Totals(Protocol):
    """Counts, across connections and workers."""

    def add(self, key: bytes, amount: int, now: float) -> int | None:
        """Add to a total and give it; None: it cannot be counted."""

    def said(self, key: bytes, most: int, now: float) -> bool:
        """Count one more of a minute, if there may be; False: there may not, or it cannot be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What was counted lately.

    Attributes:
        number: of the current minute of the clock.
        current, before: in it, and in the one before.
    """

    number: int = 0
    current: int = 0
    before: int = 0

    def one_more(self, most: int, now: float) -> Minute | None:
        """Count one; None: there are as many as may be in the last sixty seconds.

        Those of the minute before count by the part of it that is within them, as if they had come evenly.
        """
        number = int(now // MINUTE_SECONDS)
        current = self.current if number == self.number else 0
        before = self.before if number == self.number else self.current if number == self.number + 1 else 0
        part = 1.0 - (now % MINUTE_SECONDS) / MINUTE_SECONDS
        if current + before * part + 1 > most:
            return None
        return Minute(number=number, current=current + 1, before=before)
