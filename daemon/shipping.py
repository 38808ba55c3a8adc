"""Bringing sealed segments into the bucket, one after the other, and letting go of local copies that are safe there.

What lives here: one turn of that work, and what is known of its state. What must not: processes, signals, threads, files of the
status (shipper.py); how fast (shipper_pace.py).

Nothing here depends on what an earlier shipper did, but for time: a segment is sent when the bucket has none under its key, and
counts as there when the bucket's own checksum, or what is read back, is that of the local file.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.daemon.companions import Companions
from capd.daemon.shipper_local import Copy, Limits, Memory, Sealed, UnshippableError, look_at, sequences, to_release
from capd.daemon.shipper_pace import Throttle
from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.errors import BucketError, ObjectMissingError
from capd.recording.durable import open_regular, sync_directory
from capd.recording.segment.layout import sealed_path

READ_BYTES: Final = 1 << 20
RELEASE_SECONDS: Final = 30.0
"""How often it is looked for local copies that may go."""
RECHECK_SECONDS: Final = 3600.0
"""How often a segment that the bucket has differently, or that is none, is looked at again."""
TROUBLES_SHOWN: Final = 20


@dataclass(slots=True)
class Progress:
    """Where the work stands. The worker writes it, the status reads it: single values, each whole.

    Attributes:
        waiting: segments that are not known to be in the bucket, by number.
        moving: key, length and start (wall time) of what is being sent or compared; None: nothing.
        segments, bytes: what this process has brought into the bucket.
        found: segments that were there already, with the same content.
        last_success: wall time of the last segment that was found whole in the bucket.
        error: the last failure; None once something succeeded.
        error_time: when.
        failing_since: wall time of the first failure since something succeeded.
        errors: how many so far.
        conflicts: keys under which the bucket has something else, with what.
        companions: of keys and heads, those under which the bucket has something else.
        unshippable: files that are no segments, with why.
        local_segments, local_bytes: sealed segments on this host.
    """

    waiting: Sequence[Sealed] = ()
    moving: tuple[str, int, float] | None = None
    segments: int = 0
    bytes: int = 0
    found: int = 0
    last_success: float | None = None
    error: Exception | None = None
    error_time: float = 0.0
    failing_since: float | None = None
    errors: int = 0
    conflicts: dict[int, str] = field(default_factory=dict)
    companions: set[str] = field(default_factory=set)
    unshippable: dict[int, str] = field(default_factory=dict)
    local_segments: int = 0
    local_bytes: int = 0


class Shipping:
    """The work of one shipper."""

    def __init__(
        self,
        *,
        bucket: Bucket,
        segments: Path,
        memory: Memory,
        companions: Companions,
        limits: Limits,
        hot_ns: Callable[[int], int | None] = lambda _sequence: None,
        needed: Callable[[], int | None] = lambda: None,
        throttle: Throttle,
        pause: Callable[[float], bool],
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what is needed; nothing is asked yet.

        Args:
            bucket: where to.
            segments: directory of the sealed segments.
            memory: what is known to be in the bucket.
            companions: keys and heads.
            limits: how long local copies stay.
            hot_ns: how old the copy of a segment gets by its retention class; None: as the limits say.
            needed: gives the number of the first segment that the recorder may read again; None: it reads none.
            throttle: limit on bytes.
            pause: waits so many seconds; False: the shipper is to end.
            monotonic: time that never goes back.
            clock: wall time.
        """
        self.progress = Progress(companions=companions.conflicts)
        self._bucket, self._segments, self._memory, self._limits = bucket, segments, memory, limits
        self._companions, self._hot_ns, self._needed = companions, hot_ns, needed
        self._throttle, self._pause, self._monotonic, self._clock = throttle, pause, monotonic, clock
        self._known: dict[int, Sealed] = {}
        self._outstanding: deque[int] = deque()
        self._listed: dict[str, dict[str, int]] = {}
        self._troubled_at: dict[int, float] = {}
        self._released_at: float | None = None

    def turn(self) -> bool:
        """Ship everything that waits, then remove local copies that may go.

        Returns:
            Whether anything was shipped; False also when the shipper is to end.

        Raises:
            BucketError: the bucket failed. What was shipped before counts; the next turn goes on.
            OSError: this host's disk failed.
        """
        self._companions.bring_keys()
        waiting = self._look()
        # A recorder that died right after renaming left a name that a power cut takes back: its number would be used again.
        sync_directory(self._segments)
        for number, item in enumerate(waiting):
            self.progress.waiting = waiting[number:]
            if not self._pause(self._throttle.wait(self._monotonic())):
                return False
            self._ship(item)
        self.progress.waiting = ()
        self._companions.bring_heads(lambda: self._pause(0))
        if self._released_at is None or self._monotonic() - self._released_at >= RELEASE_SECONDS:
            self._release()
            self._released_at = self._monotonic()
        return bool(waiting)

    def survey(self) -> None:
        """See what waits, without asking the bucket: for the status while that does not answer.

        Raises:
            OSError: the segments cannot be read.
        """
        self.progress.waiting = self._look()

    # -- what waits ------------------------------------------------------------------------------------------------------------

    def _look(self) -> list[Sealed]:
        local = sequences(self._segments)
        known = self._known
        self._known = {}
        self._outstanding = deque(self._memory.settle(local))
        waiting = []
        unshippable: dict[int, str] = {}
        for sequence in self._outstanding:
            try:
                item = known.get(sequence) or look_at(self._segments, sequence)
            except FileNotFoundError:  # removed since the directory was read
                continue
            except (UnshippableError, OSError) as error:  # one file must not hold up the others
                unshippable[sequence] = str(error)
                continue
            self._known[sequence] = item
            if self._monotonic() - self._troubled_at.get(sequence, -RECHECK_SECONDS) >= RECHECK_SECONDS:
                waiting.append(item)
        troubled = {number: reason for number, reason in self.progress.unshippable.items() if number in self._troubled_at}
        self.progress.unshippable = troubled | unshippable
        return waiting

    # -- one segment -----------------------------------------------------------------------------------------------------------

    def _ship(self, item: Sealed) -> None:
        started, before = self._monotonic(), self._moved()
        self.progress.moving = (item.key, item.size, self._clock())
        try:
            whole = self._bring(item)
        except FileNotFoundError:  # the policy or a person removed it; the next look knows
            return
        except OSError as error:  # of this file: what a bucket raises is none
            self._troubled_at[item.sequence] = self._monotonic()
            self.progress.unshippable[item.sequence] = f"{item.path.name}: {error.strerror or error}"
            return
        finally:
            self.progress.moving = None
            self._throttle.moved(self._moved() - before, started)
        if whole:
            self._memory.confirmed(item.sequence)
            self._known.pop(item.sequence, None)
            self._troubled_at.pop(item.sequence, None)
            self.progress.unshippable.pop(item.sequence, None)
            self.progress.conflicts.pop(item.sequence, None)
            while self._outstanding and self._memory.has(self._outstanding[0]):
                self._outstanding.popleft()
            self._memory.advance(self._outstanding[0] - 1 if self._outstanding else item.sequence)
            self._memory.save()
        else:
            self._troubled_at[item.sequence] = self._monotonic()
            self.progress.conflicts[item.sequence] = item.key
        self.progress.last_success = self._clock()
        succeeded(self.progress)

    def _bring(self, item: Sealed) -> bool:
        """Make sure that the bucket has a segment; False: it has something else under that key."""
        digest = _sha256(item.path)
        if item.key not in self._list(item.key):
            outcome = self._bucket.create(item.key, item.path)
            if outcome is Outcome.EXISTS_DIFFERENT:
                return False
            if outcome is Outcome.CREATED:
                self.progress.segments += 1
                self.progress.bytes += item.size
                return self._bucket.confirm(item.key, item.size, digest)
            self.progress.found += 1
            return True
        try:
            self._bucket.settle(item.key)  # it may be of a shipper that was killed right after creating it
            same = self._bucket.confirm(item.key, item.size, digest)
        except ObjectMissingError:  # it was there when the day was listed
            self._listed.clear()
            raise
        self.progress.found += same
        return same

    def _list(self, key: str) -> dict[str, int]:
        """Give what the bucket had of a day when it was first asked; later creations are seen when they are tried again."""
        folder = key.rpartition("/")[0] + "/"
        if folder not in self._listed:
            self._listed = {name: keys for name, keys in self._listed.items() if name > folder}
            self._listed[folder] = {entry.key: entry.size for entry in self._bucket.list(folder)}
        return self._listed[folder]

    def _moved(self) -> int:
        return self._bucket.counters.bytes_read + self._bucket.counters.bytes_written

    # -- letting go ------------------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        copies = self._copies()
        self.progress.local_segments, self.progress.local_bytes = len(copies), sum(copy.size for copy in copies)
        found = os.statvfs(self._segments)
        free = found.f_bavail * found.f_frsize
        now_ns = int(self._clock() * 1e9)
        shipped, hot_ns = self._memory.has, self._hot_ns
        needed = self._needed()
        for copy in to_release(
            copies, self._limits, shipped=shipped, now_ns=now_ns, free_bytes=free, hot_ns=hot_ns, needed=needed
        ):
            if not self._release_one(copy) or not self._pause(0):
                return

    def _copies(self) -> list[Copy]:
        copies = []
        for sequence in sequences(self._segments):
            with suppress(FileNotFoundError):
                facts = sealed_path(self._segments, sequence).stat()
                copies.append(Copy(sequence=sequence, size=facts.st_size, sealed_ns=facts.st_mtime_ns))
        return copies

    def _release_one(self, copy: Copy) -> bool:
        """Remove a local copy, having seen its object once more; False: it is not there, and so has to be sent again."""
        try:
            item = look_at(self._segments, copy.sequence)
            self._bucket.settle(item.key)  # a request of one that was killed may have been carried out long after that
            there = self._bucket.size(item.key) == item.size
        except ObjectMissingError:
            there = False
        except UnshippableError as error:
            self.progress.unshippable[copy.sequence] = str(error)
            return False
        if not there:
            self._memory.doubt(copy.sequence)
            self._listed.clear()
            return False
        item.path.unlink()
        self._memory.released += 1
        self._memory.released_bytes += item.size
        self._memory.save()
        self.progress.local_segments -= 1
        self.progress.local_bytes -= item.size
        return True


def failed(progress: Progress, error: BucketError | OSError, now: float) -> None:
    """Write a failure down for the status."""
    progress.error, progress.error_time = error, now
    progress.failing_since = progress.failing_since or now
    progress.errors += 1


def succeeded(progress: Progress) -> None:
    """Forget the last failure."""
    progress.error, progress.failing_since = None, None


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.digest()
