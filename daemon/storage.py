"""Is there room to record? A state machine over what is free, with memory: ok, low, critical, out.

What lives here: the states, their thresholds, when one follows another, in words for people. What must not: asking the file
system, the reserve file, what is done about a state (storage_keeping.py), clocks.

A state becomes worse at once, and better only when a tenth more is free than its threshold, so that a directory that breathes
around a threshold does not switch agents on and off. What the reserve holds counts as free, as long as it is to be held:
giving it up makes nothing better.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

RECOVERY_NUMERATOR: Final = 11
RECOVERY_DENOMINATOR: Final = 10
MIB: Final = 1 << 20


class State(IntEnum):
    """How it stands; a larger one is worse."""

    OK = 0
    LOW = 1
    """Everything goes on, and the operator is told."""
    CRITICAL = 2
    """What is open is recorded on; the configured action keeps more from coming."""
    OUT = 3
    """Nothing is recorded; the reserve is given up to close what is open."""

    @property
    def word(self) -> str:
        """Give its name as people and programs read it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is.

    Attributes:
        free_bytes: that an unprivileged process may still write.
        free_inodes: files that may still be made; None on a file system that does not count them.
        reserve_held: bytes that the reserve file holds.
    """

    free_bytes: int
    free_inodes: int | None
    reserve_held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Below either of these a state begins."""

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where the states begin.

    Attributes:
        low, critical, out: of each state.
        reserve_bytes: what the reserve file should hold.
    """

    low: Threshold
    critical: Threshold
    out: Threshold
    reserve_bytes: int

    def of(self, state: State) -> Threshold:
        """Give where a state other than ok begins; a worse one never begins above a better one."""
        below = {
            State.LOW: (self.low, self.critical, self.out),
            State.CRITICAL: (self.critical, self.out),
            State.OUT: (self.out,),
        }
        return Threshold(bytes=max(one.bytes for one in below[state]), inodes=max(one.inodes for one in below[state]))


def usable_bytes(room: Room, thresholds: Thresholds) -> int:
    """Give what may be written before the reserve is touched: what is missing of the reserve has to be put back first."""
    return room.free_bytes + min(room.reserve_held - thresholds.reserve_bytes, 0)


def following(state: State, room: Room, thresholds: Thresholds) -> State:
    """Give the state that follows, at what there is now."""
    worst = State.OK
    for candidate in (State.LOW, State.CRITICAL, State.OUT):
        threshold = thresholds.of(candidate)
        wanted_bytes, wanted_inodes = threshold.bytes, threshold.inodes
        if candidate <= state:
            wanted_bytes = wanted_bytes * RECOVERY_NUMERATOR // RECOVERY_DENOMINATOR
            wanted_inodes = wanted_inodes * RECOVERY_NUMERATOR // RECOVERY_DENOMINATOR
        few = room.free_inodes is not None and room.free_inodes < wanted_inodes
        if usable_bytes(room, thresholds) < wanted_bytes or few:
            worst = candidate
    return worst


def described(state: State, room: Room, thresholds: Thresholds) -> str:
    """Say in one phrase how much there is and where the state begins that is reached, or the first one."""
    threshold = thresholds.of(max(state, State.LOW))
    inodes = room.free_inodes
    if inodes is not None and inodes * RECOVERY_DENOMINATOR < threshold.inodes * RECOVERY_NUMERATOR:
        return f"{inodes} files can still be made, {max(state, State.LOW).word} is below {threshold.inodes}"
    usable = max(usable_bytes(room, thresholds), 0)
    return f"{usable // MIB} MiB free, {max(state, State.LOW).word} is below {threshold.bytes // MIB} MiB"
