"""How long a client of HTTP wants to wait, by its own word: `Prefer: wait=10` (RFC 7240 4.3).

What lives here: reading that. What must not: waiting (approvals), other preferences: those are the target's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

WAIT_SECONDS_MIN: Final = 1
"""So short a wait as that, and a person is asked; what says `wait=0` wants to be told at once."""
_WAIT: Final = re.compile(r'[ \t]*wait[ \t]*=[ \t]*"?([0-9]{1,6})"?[ \t]*(?:;.*)?', re.ASCII | re.IGNORECASE)


def wait_seconds(fields: Iterable[tuple[str, str]]) -> int | None:
    """Give the seconds that a client expects an answer in, None where it does not say; of several its first word counts.

    Args:
        fields: of its request.
    """
    for name, value in fields:
        if name.lower() != "prefer":
            continue
        for one in value.split(","):
            found = _WAIT.fullmatch(one)
            if found is not None:
                return max(int(found[1]), WAIT_SECONDS_MIN)
    return None
