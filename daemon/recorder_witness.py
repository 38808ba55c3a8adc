"""The recorder's second witness: reads the decision log beside the journal, and keeps its place.

What lives here: when the log is read, what is remembered, the status. What must not: matching and comparing (witness/), the
recorder's own loop.

The recorder goes the way of the journal again after its death; the log's way is not part of that, for the two come side by side
as they happen to. So what was written because of it is named in the same flush, by keys, in a marker of the host. A later
recorder begins at the remembered places with the remembered books, reads the log again from there, and passes over what has a
key: nothing is lost, nothing is there twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

import msgpack

from capd.daemon import drained, said_key
from capd.daemon.assembly.typed import read
from capd.daemon.masking.levels import Level
from capd.daemon.witness import verdicts
from capd.daemon.witness.files import DecisionFiles, Places
from capd.daemon.witness.state import Books
from capd.daemon.witness.witness import Witness
from capd.recording.durable import replace_content
from capd.recording.journal import Position
from capd.recording.record import Record

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

VERSION: Final = 1
DUE_SECONDS: Final = 0.5
"""How often all connections are looked through."""
KEYS_MAX: Final = 4_096
"""In one marker: a record is bounded."""


@dataclass(slots=True, kw_only=True)
class _Saved:
    """What is remembered.

    Attributes:
        version: of this form.
        enforced: whether runs were forced then.
        places: how far the log was read.
        books: what was known.
    """

    version: int
    enforced: bool
    books: Books
    places: Places = field(default_factory=Places)


class RecorderWitness:
    """Reads the log while the recorder reads the journal."""

    def __init__(
        self,
        configuration: Configuration,
        host: UUID,
        saved: bytes,
        recorded: Iterable[str],
        *,
        level: Callable[[UUID], Level | None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Go on from what was remembered.

        Args:
            configuration: of this instance.
            host: its id.
            saved: as `save` gave it; anything else: begin at the beginning.
            recorded: keys that are in the recording since then.
            level: says how much of an open session is recorded.
            clock: wall time in nanoseconds.
        """
        self._host, self._clock = host, clock
        self._done_file = configuration.decisions_done_file
        self._active = configuration.enforcement.mode != "off"
        self._enforced = configuration.enforcement.mode == "enforce"
        before = _restored(saved)
        if before is None:
            before = _Saved(version=VERSION, enforced=self._enforced, books=Books(since_ns=clock()))
        elif self._enforced and not before.enforced:
            before.books.since_ns = clock()
        self._files = DecisionFiles(configuration.decisions_dir, configuration.quarantine_dir, before.places)
        self._witness = Witness(
            host,
            before.books,
            enforced=self._enforced,
            recorded=recorded,
            level=level,
            said_key=partial(said_key.find, configuration.decisions_dir),
            helpers=(*configuration.enforcement.helpers, f"{configuration.runtime_dir}/*"),
        )
        self._drained_file, self._seen_ns = configuration.drained_file, 0
        self._due_at = 0.0
        self._done: list[str] = []

    @property
    def changed(self) -> bool:
        """Whether there is something to remember."""
        return self._witness.changed

    @property
    def alone(self) -> set[UUID]:
        """Give the open sessions that only the enforcer told of."""
        return self._witness.alone()

    def observe(self, records: list[Record]) -> list[Record]:
        """Take records before masking; give them as they are."""
        if self._active:
            self._witness.observe(records)
        return records

    def watch(self, records: list[Record]) -> list[Record]:
        """Take records as they are to be stored; give them with the verdicts in their places."""
        if not self._active:
            return records
        return [*self._listened(), *self._witness.watch(records), *self._keys()]

    def watch_again(self, records: Sequence[Record]) -> None:
        """Take records that are stored already."""
        if self._active:
            self._witness.watch_again(records)

    def listen(self, position: Position, monotonic: float) -> list[Record]:
        """Give what the log has to add by now.

        Args:
            position: up to which the journal was taken.
            monotonic: time that never goes back, in seconds.
        """
        if not self._active:
            return []
        heard_ns = self._clock()
        found = self._listened()
        if monotonic >= self._due_at and not self._files.behind:
            self._due_at = monotonic + DUE_SECONDS
            self._seen_ns = drained.told(self._drained_file).read_ns(position) or self._seen_ns
            # A word of later than now is of before the clock went back: the daemon's next one, in a second, is of this clock.
            self._witness.due(heard_ns=heard_ns, seen_ns=self._seen_ns if self._seen_ns <= heard_ns else 0)
            found += self._witness.ready()
        return [*found, *self._keys()]

    def _listened(self) -> list[Record]:
        now_ns = self._clock()
        for key, body in self._files.read(now_ns):
            self._lose(now_ns)
            self._witness.take(key, body, now_ns)
        self._lose(now_ns)
        return self._witness.ready()

    def _lose(self, now_ns: int) -> None:
        for writer in self._files.lost():
            self._witness.lose(writer, "a part of the decision log cannot be read any more", now_ns)

    def _keys(self) -> list[Record]:
        keys, now_ns = self._witness.written(), self._clock()
        parts = [keys[start : start + KEYS_MAX] for start in range(0, len(keys), KEYS_MAX)]
        return [verdicts.witnessed(self._host, part, now_ns) for part in parts]

    def save(self) -> bytes:
        """Give everything that has to be remembered."""
        saved = _Saved(version=VERSION, enforced=self._enforced, books=self._witness.books, places=self._files.places)
        return cast("bytes", msgpack.packb(saved, default=_plain, unicode_errors="surrogateescape"))

    def remembered(self) -> None:
        """What `save` gave is on disk: say which files nobody needs any more."""
        self._witness.remembered()
        done = self._files.done()
        if done != self._done:
            with suppress(OSError):  # the files stay a while longer
                replace_content(self._done_file, json.dumps(done).encode(), mode=0o644, sync=False)
                self._done = done

    def status(self) -> dict[str, object]:
        """Give the part of the recorder's status."""
        books, files = self._witness.books, self._files.places.counts
        return {
            "enforced": self._enforced,
            "flows": len(books.flows),
            "connections": len(books.seen),
            **asdict(books.counts),
            "log": asdict(files),
        }


def _restored(saved: bytes) -> _Saved | None:
    try:
        found = cast(
            "_Saved",
            read(_Saved, msgpack.unpackb(saved, strict_map_key=False, use_list=False, unicode_errors="surrogateescape")),
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return found if found.version == VERSION else None


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, set):
        return list(value)
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    raise TypeError(f"the witness cannot remember a {type(value).__name__}")
