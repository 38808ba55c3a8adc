"""Where an exchange is.

What lives here: the stages. What must not: going from one to the next (layer.py).
"""

from __future__ import annotations

from enum import Enum, auto


class Stage(Enum):
    """Where the exchange is."""

    IDLE = auto()
    JUDGED = auto()
    """A verdict is waited for."""
    COLLECTING = auto()
    """So is the body, which the verdict needs."""
    DIALLING = auto()
    OPEN = auto()
    DRAINING = auto()
    """Refused and answered; the rest of its body is passed over."""
    LINGERING = auto()
    """Everything is said; the client has a moment to read it."""
