"""What masking failed at: each time is a defect of capd, and a session without what was said in it.

What lives here: counting them, the latest in words. What must not: what is done then (session.py, stage.py).
"""

from __future__ import annotations

from traceback import walk_tb
from uuid import UUID


class Failures:
    """Those since this recorder began.

    Attributes:
        count: how many sessions.
        latest: which session, and where in capd; empty: there was none.
        latest_ns: wall time of that.
    """

    def __init__(self) -> None:
        self.count = 0
        self.latest = ""
        self.latest_ns: int | None = None

    def note(self, session: UUID, where: str, time_ns: int) -> None:
        """Count one."""
        self.count += 1
        self.latest, self.latest_ns = f"session {session}: {where}", time_ns

    def status(self) -> dict[str, object]:
        """Give the part of the recorder's status."""
        return {"failed": self.count, "latest": self.latest, "latest_ns": self.latest_ns}


def defect(error: Exception) -> str:
    """Say what failed and where in capd: nothing of what an agent said, which the error's own words may hold."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {frame.f_globals['__name__']}, line {line}"
