"""What the probes say was lost, until it is told where it belongs: in a session, or in its run.

What lives here: the daemon's loss notes of both forms, summed up. What must not: gaps, records, when a session ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

from capd.daemon.assembly.state import SessionState
from capd.recording.record import Value

SOCKET_LAYER, TLS_LAYER, CONTROL_LAYER = 0, 1, 2
"""In the daemon's loss notes: a socket's stream, a TLS stream, events of the control ring."""
STRANGERS_NS: Final = 5_000_000_000
"""Event time after which a stream that lost something and has no session gets none."""
UNTOLD: Final = "losses_untold"
MAP_FULL: Final = "map_full"
SKIPPED: Final = "programs_skipped"
SHORTFALLS: Final = {
    UNTOLD: "more connections lost bytes than the kernel's table has room for",
    MAP_FULL: "a table of the probes was full",
    SKIPPED: "the kernel did not run a probe",
}
"""Counters of losses of which nobody can say whose they are, and what they mean to those that were there."""

StreamKey = tuple[bool, int, int]
"""Whether a TLS stream, its id, direction."""


class Lost(NamedTuple):
    """Bytes that one direction of a stream lost, and that no session was told of.

    Attributes:
        bytes: how many.
        cause: an `Absence`.
        run: key of the run; 0 when the note did not say.
        since_ns: boot clock of the first note.
    """

    bytes: int
    cause: int
    run: int
    since_ns: int


class RunLosses(NamedTuple):
    """What a run lost that is in no session.

    Attributes:
        control_events: starts and ends of processes and connections that were not told.
        streams: connections of which nothing was recorded.
        bytes: of those.
    """

    control_events: int = 0
    streams: int = 0
    bytes: int = 0


@dataclass(slots=True, kw_only=True)
class LossTable:
    """All that is lost and not told yet, and what has to be remembered of the rest.

    Attributes:
        counters: the probes' own, as last noted.
        streams: by stream and direction.
        runs: what is told of runs so far.
        shortfalls: wall time when a counter of `SHORTFALLS` was last seen to grow.
    """

    counters: dict[str, int] = field(default_factory=dict)
    streams: dict[StreamKey, Lost] = field(default_factory=dict)
    runs: dict[int, RunLosses] = field(default_factory=dict)
    shortfalls: dict[str, int] = field(default_factory=dict)

    def take(self, note: Mapping[str, Value], now_ns: int, wall_ns: int) -> set[int]:
        """Take a note. Gives the runs that lost control events."""
        counters = note.get("counters")
        if isinstance(counters, Mapping):
            found = {str(name): value for name, value in counters.items() if isinstance(value, int)}
            grown = (name for name in SHORTFALLS if found.get(name, 0) > self.counters.get(name, 0))
            self.shortfalls.update(dict.fromkeys(grown, wall_ns))
            self.counters = found
        for stream, layer, direction, total, cause in cast("list[list[int]]", note.get("streams") or []):
            self.streams[layer != SOCKET_LAYER, stream, direction] = Lost(total, cause, 0, now_ns)
        changed = set()
        rows = cast("list[tuple[int, int, int, int, int, int]]", note.get("grown") or [])
        for stream, layer, direction, cause, more, run in rows:
            if layer == CONTROL_LAYER:
                before = self.runs.get(run, RunLosses())
                self.runs[run] = before._replace(control_events=before.control_events + more)
                changed.add(run)
                continue
            key = (layer == TLS_LAYER, stream, direction)
            lost = self.streams.get(key) or Lost(0, cause, run, now_ns)
            self.streams[key] = lost._replace(bytes=lost.bytes + more, cause=cause)
        return changed

    def claim(self, key: StreamKey) -> Lost | None:
        """Give what a stream lost, once, to the session that it belongs to."""
        return self.streams.pop(key, None)

    def strangers(self, known: Callable[[StreamKey], bool], now_ns: int | None, run: int | None) -> set[int]:
        """Give up streams that have no session after so long, and count them to their runs.

        Args:
            known: whether a stream has a session.
            now_ns: boot clock; None to wait no longer.
            run: only of this one; None for all.

        Returns:
            The runs that lost more than was told before.
        """
        due = [
            key
            for key, lost in self.streams.items()
            if (now_ns is None or lost.since_ns + STRANGERS_NS <= now_ns) and run in (None, lost.run)
        ]
        gone = [key for key in due if not known(key)]
        changed: dict[int, set[tuple[bool, int]]] = {}
        for key in gone:
            lost = self.streams.pop(key)
            before = self.runs.get(lost.run, RunLosses())
            other = key[:2] not in changed.setdefault(lost.run, set())
            changed[lost.run].add(key[:2])
            self.runs[lost.run] = before._replace(streams=before.streams + other, bytes=before.bytes + lost.bytes)
        return set(changed)

    def reasons(self, state: SessionState, *, untold: bool) -> list[str]:
        """Give why a session may lack something that nothing in it shows.

        Args:
            state: a session that ends.
            untold: nothing told its beginning, or its end.
        """
        found = []
        control = self.runs.get(state.run, RunLosses()).control_events
        if untold and (control or (not self.runs and self.counters.get("control_lost"))):
            found.append("its beginning or end was lost")
        for name, when_ns in self.shortfalls.items():
            counted_elsewhere = state.transport == "tcp" and not state.encrypted and name != UNTOLD
            if state.started_ns <= when_ns and not counted_elsewhere:
                found.append(SHORTFALLS[name])
        return found

    def restarted(self) -> None:
        """Other probes count now: what theirs will say has nothing to do with what was said before."""
        self.streams.clear()
        self.counters = {}
