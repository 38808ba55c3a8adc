"""Decisions that wait for the messages that they are about: which are written now. Pure rules.

What lives here: how many may wait, and for how long their place is known. What must not: records, the books.
"""

from __future__ import annotations

from typing import Final

from capd.daemon.witness import statements
from capd.daemon.witness.state import Pending, Seen

PENDING_MAX: Final = 4_096
"""Decisions of one connection that wait for their messages: what one says while the recorder reads on."""
PENDING_FEW: Final = 256
"""The same where all connections together have PENDING_ALL_MAX; clients that pipeline stop below."""
PENDING_ALL_MAX: Final = 16_384


def part(pending: list[Pending], seen: Seen | None, *, others: int) -> tuple[list[Pending], list[Pending], bool]:
    """Part decisions of one connection into those to write and those that wait.

    Args:
        pending: all of them, in order.
        seen: the connection, as the probes told of it; None: nothing is waited for.
        others: how many wait on all connections together, these among them.

    Returns:
        what is written, what waits, and whether one is written whose message is unknown, because too many waited.
    """
    surplus = len(pending) - (PENDING_MAX if others <= PENDING_ALL_MAX else PENDING_FEW)
    written: list[Pending] = []
    waiting: list[Pending] = []
    astray = False
    for place, one in enumerate(pending):
        if seen is None or not statements.waits(one, seen):
            written.append(one)
        elif place < surplus:
            written.append(one)
            astray = astray or one.exchange is None
        elif one.statement:  # those behind it are about later ones
            return written, [*waiting, *pending[place:]], astray
        else:
            waiting.append(one)
    return written, waiting, astray
