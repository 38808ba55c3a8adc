"""Keeping an eye on the room to record: asks the file system, holds the reserve, tells the state.

What lives here: the thin shell around storage.py. What must not: the states' rules, what is done to agents (holding.py), notes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon import storage
from capd.daemon.shipper_pace import DiskTrend
from capd.daemon.storage import Room, State, Thresholds
from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import StateDirectoryError, on_disk

RESERVE_MODE: Final = 0o600
WATCHED_SECONDS_MIN: Final = 300.0
"""Before it is said when the disk will be full: what is made at a start is no trend."""
REFUSALS_MAX: Final = 3
REFUSED_SECONDS: Final = 30.0
"""How long it counts as out when the disk refused a write so many times on end although room was free, as a quota does: trying
again and again would take and give up the reserve each time."""
STATE_BYTES_MAX: Final = 4096

Measure = Callable[[], Room]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The state changed.

    Attributes:
        before, after: the states.
        room: what there was.
    """

    before: State
    after: State
    room: Room


class StorageKeeper:
    """Knows the state. The drain thread calls `look`; others read."""

    def __init__(self, directory: Path, reserve_file: Path, state_file: Path, thresholds: Thresholds) -> None:
        """Begin where an earlier daemon stood, and look for the first time.

        Args:
            directory: on the file system that is filled.
            reserve_file: holds the reserve.
            state_file: tells the recorder the state.
            thresholds: where states begin.

        Raises:
            StateDirectoryError: the file system cannot be asked.
        """
        self._directory = directory
        self._reserve_file = reserve_file
        self._state_file = state_file
        self.thresholds = thresholds
        self.state = read_state(state_file)
        self._trend = DiskTrend(watched_seconds_min=WATCHED_SECONDS_MIN)
        self._refusals = 0
        self._refused_until = 0.0
        self.since_ns: int | None = None
        self.failure: str | None = None
        """Why the file system could not be asked the last time."""
        self.room = self._measure()

    def follow(self, thresholds: Thresholds) -> None:
        """Go by other thresholds from the next look on. May be called by another thread."""
        before, self.thresholds = self.thresholds, thresholds  # first, or a look meanwhile takes the larger one again
        if thresholds.reserve_bytes < before.reserve_bytes:
            self._give_up_reserve()  # which the next look takes anew, as large as it is to be

    def shortage(self) -> str | None:
        """Say why nothing can be written, or None if it can."""
        return self.failure or (f"storage is out: {self.described()}" if self.state is State.OUT else None)

    def facts(self) -> dict[str, object]:
        """Give what `status` shows of it."""
        return {
            "state": self.state.word,
            "since_ns": self.since_ns,
            "described": self.described(),
            "free_bytes": self.room.free_bytes,
            "free_inodes": self.room.free_inodes,
            "reserve_bytes": self.room.reserve_held,
            "fills_bytes_per_second": self._trend.bytes_per_second(),
            "seconds_until_full": self._trend.seconds_until(self.thresholds.out.bytes + self.thresholds.reserve_bytes),
            "thresholds": {
                state.word: {"bytes": self.thresholds.of(state).bytes, "inodes": self.thresholds.of(state).inodes}
                for state in State
                if state is not State.OK
            },
        }

    def described(self) -> str:
        """Say how it stands in one phrase."""
        return storage.described(self.state, self.room, self.thresholds)

    def look(self, *, now: float, wall_ns: int, refused: bool) -> Change | None:
        """Ask anew, and give the change if there is one; the first time also a state that stayed bad.

        To be called about every second. Where asking fails the state stays.

        Args:
            now: monotonic time in seconds.
            wall_ns: wall time.
            refused: whether the disk refused a write since the last call.
        """
        try:
            room = self._measure()
        except StateDirectoryError as error:
            self.failure = str(error)
            return None
        self.failure = None
        self._trend.sample(now, room.free_bytes + room.reserve_held)  # filling the reserve is no trend
        after = storage.following(self.state, room, self.thresholds)
        self._refusals = self._refusals + 1 if refused and after is not State.OUT else 0
        if self._refusals >= REFUSALS_MAX:
            self._refused_until = now + REFUSED_SECONDS
        if now < self._refused_until:
            after = State.OUT
        if after is State.OUT:
            self._give_up_reserve()
        elif after < State.CRITICAL and room.reserve_held < self.thresholds.reserve_bytes:
            self._take_reserve()
        with suppress(StateDirectoryError):
            self.room = self._measure()
        before, self.state = self.state, after
        first, self.since_ns = self.since_ns is None, self.since_ns or wall_ns
        if before is not after:
            self.since_ns = wall_ns
        elif not first:
            return None
        self._tell()
        return Change(before=before, after=after, room=room) if before is not after or after is not State.OK else None

    def _measure(self) -> Room:
        with on_disk("ask for free space in", self._directory):
            found = os.statvfs(self._directory)
        held = 0
        with suppress(OSError):
            held = self._reserve_file.lstat().st_blocks * 512
        return Room(
            free_bytes=found.f_bavail * found.f_frsize,
            free_inodes=found.f_favail if found.f_files else None,
            reserve_held=min(held, self.thresholds.reserve_bytes),
        )

    def _take_reserve(self) -> None:
        """Fill the reserve file; without room for it there is none, and the next look tries again."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with suppress(OSError):
            descriptor = os.open(self._reserve_file, flags, RESERVE_MODE)
            try:
                os.posix_fallocate(descriptor, 0, self.thresholds.reserve_bytes)
            except OSError:
                self._give_up_reserve()
            finally:
                os.close(descriptor)

    def _give_up_reserve(self) -> None:
        with suppress(OSError):
            self._reserve_file.unlink(missing_ok=True)

    def _tell(self) -> None:
        """Tell the recorder. Where that fails it goes on as it was: it only closes what is open a little later."""
        with suppress(OSError):
            replace_content(self._state_file, json.dumps({"state": self.state.word}).encode(), mode=0o644, sync=False)


def read_state(path: Path) -> State:
    """Read what a daemon told last; ok when nothing can be read."""
    try:
        found = json.loads(read_regular(path, STATE_BYTES_MAX))
        return State[str(found["state"]).upper()]
    except (OSError, ValueError, KeyError, TypeError):
        return State.OK
