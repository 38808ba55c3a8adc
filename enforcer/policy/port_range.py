"""Ports as rules name them: `443`, `8000-8999`.

What lives here: reading and covering. What must not: matching of actions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PORT_MAX: Final = 65_535
_FORM: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read one.

        Raises:
            ValueError: it is none; the message says why.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no port; write 443 or 8000-8999")
        first = int(found[1])
        last = int(found[2] or first)
        if not 1 <= first <= last <= PORT_MAX:
            raise ValueError(f"{text!r} is no range of ports between 1 and {PORT_MAX}")
        return cls(first, last)

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def covers(self, other: PortRange) -> bool:
        """Say whether it has all of the other's ports."""
        return self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
