"""How the recorder takes out of its index what expired: it learns of that from signed records that the shipper brought.

What lives here: when that is done, and how much at a time. What must not: which rows go (recording/index_expiry.py), what
expires (expiry.py).

It gets a twentieth of the time while something is recorded, and all of it while nothing is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.deletions import RECORD_BYTES_MAX, Deletion, MalformedDeletionError, range_of
from capd.recording.durable import read_regular
from capd.recording.errors import on_disk
from capd.recording.index import Index
from capd.recording.keys import public_keys

LOOK_SECONDS: Final = 5.0
"""How often it is looked for new records."""
SHARE: Final = 20
"""While something is recorded a step waits this many times as long as the one before it took; overwriting always does."""


class RecorderExpiry:
    """Works records of deletion into the index, a little at each call."""

    def __init__(self, directory: Path, keys: Path, host: UUID, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the places; nothing is read yet.

        Args:
            directory: where the shipper puts copies of the records.
            keys: directory of this host's public keys, in which only root writes.
            host: whose index it is.
            clock: time that never goes back, in seconds.
        """
        self._directory, self._keys, self._host, self._clock = directory, keys, host, clock
        self._index: Index | None = None
        self._looked_at: float | None = None
        self._found: deque[str] = deque()
        self._seen: frozenset[str] = frozenset()
        self._working = self._dirty = self._scrubbing = False
        self._next_at = self._scrub_at = 0.0
        self._scrub_seconds = 0.0
        self.refused: set[str] = set()
        """Names of records that are none, or that no key of this host signed."""

    def attend(self, index: Index, *, idle: bool) -> None:
        """Do a step, if it is time and something is to be done.

        Raises:
            CapdError: a file or the index cannot be used.
        """
        began = self._clock()
        if index is not self._index:
            self._begin(index)
        if not idle and began < self._next_at:
            return
        if self._looked_at is None or began - self._looked_at >= LOOK_SECONDS:
            self._look(index)
            self._looked_at = began
        if self._found:
            self._learn(index, self._found.popleft())
            self._working = True
        elif self._working:
            self._working = index.expiry.step()
            self._dirty = self._dirty or self._working
        elif self._dirty:
            self._dirty = False
            self._scrubbing = True
            if index.let_go():
                index.carry()
            index.leftovers.restart()
        elif self._scrubbing and began >= self._scrub_at:
            self._scrubbing = index.leftovers.waiting
            if self._scrubbing:
                self._scrub(index, began)
        self._next_at = self._clock() + SHARE * (self._clock() - began)

    def _begin(self, index: Index) -> None:
        """Look through an index for what another recorder left to be done, or what it lacks because it was made anew."""
        self._index = index
        self._looked_at = None
        self._found.clear()
        self._seen = frozenset()
        self._working = self._dirty = True
        self._scrubbing = False

    def _scrub(self, index: Index, began: float) -> None:
        """Overwrite a little; after all of it as many times as long is waited as it took, for it looks at the whole file."""
        more = index.leftovers.step()
        self._scrub_seconds += self._clock() - began
        if not more:
            self._scrub_at = self._clock() + SHARE * self._scrub_seconds
            self._scrub_seconds = 0.0

    def _look(self, index: Index) -> None:
        with on_disk("read", self._directory):
            names = frozenset(path.name for path in self._directory.iterdir()) if self._directory.is_dir() else frozenset[str]()
        expiry = index.expiry
        for name in sorted(names - self._seen):
            numbers = range_of(name)
            if numbers is not None and not expiry.knows(self._host, *numbers):
                self._found.append(name)
        self._seen = names

    def _learn(self, index: Index, name: str) -> None:
        path = self._directory / name
        with on_disk("read", path):
            data = read_regular(path, RECORD_BYTES_MAX)
        try:
            deletion = Deletion.parse(data)
        except MalformedDeletionError:
            self.refused.add(name)
            return
        keys = {key.id: key for key in public_keys(self._keys)}
        key = keys.get(deletion.key_id)
        signed = key is not None and key.verifies(deletion.signature, deletion.message)
        if not signed or deletion.host != self._host or deletion.name != name:
            self.refused.add(name)
            return
        index.expiry.learn(deletion)
