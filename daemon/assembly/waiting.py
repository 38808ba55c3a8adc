"""What waits for data that is still on its way, and how long.

What lives here: which sessions and runs wait, how far the data ring was drained, the rules of patience. What must not: what is
done when the waiting is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from capd.daemon.assembly.session import Session

PATIENCE_CYCLES: Final = 16
PATIENCE_NS: Final = 2_000_000_000
"""Cycles and time after which data that has not come will not come, though no later data was seen: the daemon takes up to 16
MiB of the data ring in a turn, so this many turns empty a ring of 256 MiB; a larger one is emptied in this time."""
DRAINED_FORM: Final = 2
"""From this form of the notes on the daemon says when the data ring was drained."""
FAREWELL_NS: Final = 200_000_000
"""Event time that a TLS stream has to end after its socket did: a garbage collector may free it later."""


@dataclass(slots=True, kw_only=True)
class Waiting:
    """What is not concluded.

    Attributes:
        form: of the daemon's notes.
        cycle: number of the drain cycle.
        now_ns: boot clock of the cycle.
        drained_ns: boot clock: the data ring was drained up to here.
        sessions: keys of sessions that wait, and since which cycle.
        runs: runs that end: their time on the boot clock.
    """

    form: int = 1
    cycle: int = 0
    now_ns: int = 0
    drained_ns: int = 0
    sessions: dict[int, int] = field(default_factory=dict)
    runs: dict[int, int] = field(default_factory=dict)

    def add(self, key: int) -> None:
        """Let a session wait."""
        self.sessions.setdefault(key, self.cycle)

    def drained(self, time_ns: int) -> None:
        """Take the daemon's word that the rings were drained up to a time."""
        if self.form >= DRAINED_FORM:
            self.drained_ns = max(self.drained_ns, time_ns)

    @property
    def told_ns(self) -> int:
        """Boot clock: all that was said up to here is there; in form 1, where nobody says that, it would be by now."""
        return self.drained_ns if self.form >= DRAINED_FORM else max(self.drained_ns, self.now_ns - PATIENCE_NS)

    def owed(self, session: Session) -> bool:
        """Say whether the daemon has yet to tell that all was drained which was before an end of this session."""
        return self.form >= DRAINED_FORM and session.ending and session.waits_ns > self.drained_ns

    def over(self, key: int, session: Session, *, force: bool) -> bool:
        """Say whether a session has what it waited for, or will not get it.

        Args:
            key: the session's.
            session: one that waits.
            force: nothing more comes, but for what the daemon owes.
        """
        if session.reached():
            return True
        if self.owed(session):
            return False
        if force:
            return True
        if self.form >= DRAINED_FORM and session.ending:
            return session.closing is None or session.said_farewell or self.now_ns >= session.waits_ns + FAREWELL_NS
        return self._vain(session.waits_ns, self.sessions[key])

    def run_over(self, key: int) -> bool:
        """Say whether all that a run did is there."""
        return self._vain(self.runs[key], self.cycle - PATIENCE_CYCLES)

    def _vain(self, waits_ns: int, since: int) -> bool:
        """Say whether what was waited for would have come by now."""
        patient = self.cycle - since < PATIENCE_CYCLES or self.now_ns < waits_ns + PATIENCE_NS
        return waits_ns <= self.drained_ns or not patient
