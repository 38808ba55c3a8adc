"""Letting recordings go when their time is over, and keeping those that a legal hold names.

What lives here: one pass over what the bucket has of this host. What must not: how long something is kept (retention.py), the
forms of holds and records of deletion (recording/).

Nothing is deleted whose sessions are not known, that a hold covers or that the bucket locks. A signed record of the deletion
lies in the bucket before the first object goes; a pass that dies anywhere is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.daemon.deletion_copies import DeletionCopies
from capd.daemon.retention import DAY_NS, UNKNOWN, Lifetime, Rule, Subject, lifetime
from capd.recording.bucket import Bucket, Entry, Outcome
from capd.recording.bucket.holds import Hold, names, read
from capd.recording.bucket.layout import SegmentKey, deletion_key, host_folder
from capd.recording.bucket.removal import locked, remove
from capd.recording.deletions import RECORD_BYTES_MAX, SEGMENTS_MAX, Deleted, Deletion, MalformedDeletionError
from capd.recording.index import Index
from capd.recording.rows import RunRow, SegmentRow, SessionRow
from capd.recording.segment.layout import FileHeader, MalformedSegmentError, NewerSegmentError, sealed_path
from capd.recording.segment.trailer import Signer, parse_trailer, trailer_bytes

HEADER_BYTES_MAX: Final = 1 << 16


@dataclass(slots=True)
class Expired:
    """What was done so far by this process.

    Attributes:
        segments, bytes: let go.
        holds: how many holds are active.
        held, locked: segments that stayed in the last pass although their time is over, because of a hold or the bucket's lock.
        unreadable: keys of segments that stayed because they cannot be read.
        records: how many records of deletion the recorder and the cataloguer were told of, by this process or before.
    """

    segments: int = 0
    bytes: int = 0
    holds: int = 0
    held: int = 0
    locked: int = 0
    unreadable: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    first_ns: int
    last_ns: int
    lifetime: Lifetime
    members: frozenset[UUID]
    runs_known: bool


class Expiry:
    """Lets go of what is over, for one host."""

    def __init__(
        self,
        *,
        bucket: Bucket,
        host: UUID,
        rules: Sequence[Rule],
        index: Path,
        segments: Path,
        signer: Callable[[], Signer],
        copies: DeletionCopies,
        pause: Callable[[], bool],
    ) -> None:
        """Take what is needed; nothing is asked yet.

        Args:
            bucket: where segments, holds and records of deletion are.
            host: whose segments.
            rules: how long they are kept.
            index: what is known of their sessions.
            segments: where local copies are.
            signer: gives the host's key.
            copies: where the recorder learns of what went.
            pause: whether to go on.
        """
        self.expired = Expired()
        self._bucket, self._host, self._rules = bucket, host, rules
        self._index, self._segments, self._signer, self._pause = index, segments, signer, pause
        self._copies = copies
        self._marks: dict[str, bool] = {}

    def hot_ns(self, index: Index, sequence: int) -> int | None:
        """Give how long a local copy stays; None: as `[local]` says."""
        known = self._known(index, sequence)
        return known.lifetime.hot_ns if known else None

    def turn(self, now_ns: int) -> None:
        """Make one pass.

        Raises:
            BucketError: the bucket failed; the next pass goes on.
            CapdError: the index, the key or a local copy cannot be used.
        """
        self._let_go_of_all(now_ns)
        self.expired.records = self._copies.bring(self._index)

    def _let_go_of_all(self, now_ns: int) -> None:
        before = names(self._bucket)
        holds = read(self._bucket)
        active = [hold for hold in holds if hold.released is None]
        self.expired.holds = len(active)
        self.expired.held = self.expired.locked = self.expired.unreadable = 0
        keeps = [rule.keep_ns for rule in self._rules if rule.keep_ns is not None]
        locks = bool(holds) and self._locks()
        if not keeps and not locks:
            return
        youngest = now_ns - min(keeps) if keeps else 0
        with Index.open(self._index, readonly=True) as index:
            for folder in self._bucket.folders(host_folder(self._host)):
                if not folder.startswith("date=") or (not locks and _day_ns(folder) > youngest):
                    continue
                entries = self._bucket.list(f"{host_folder(self._host)}{folder}/")
                found = [(entry, key) for entry in entries if (key := SegmentKey.parse(entry.key)) is not None]
                if locks:
                    self._mark(index, found, holds)
                over = self._over(index, found, active, now_ns)
                for together in _runs_of(over):
                    if not self._goes_on(before) or not self._let_go(together, now_ns, before):
                        return

    def _goes_on(self, holds: frozenset[str]) -> bool:
        """Tell whether no hold came since these were read: a pass may take hours; the next one goes by what came."""
        return self._pause() and names(self._bucket) == holds

    # -- what is over ----------------------------------------------------------------------------------------------------------

    def _over(
        self, index: Index, found: Iterable[tuple[Entry, SegmentKey]], active: Sequence[Hold], now_ns: int
    ) -> Iterator[tuple[Entry, Deleted]]:
        for entry, key in found:
            known = self._known(index, key.sequence)
            if known is None or known.lifetime.keep_ns is None or known.last_ns + known.lifetime.keep_ns > now_ns:
                continue
            about = known.members, known.first_ns, known.last_ns
            if any(hold.covers(self._host, *about, runs_known=known.runs_known) for hold in active):
                self.expired.held += 1
            elif locked(self._bucket, entry.key, now_ns):  # a record must not say what then cannot be done
                self.expired.locked += 1
            elif (digest := self._digest(entry)) is None:
                self.expired.unreadable += 1
            else:
                yield entry, Deleted(sequence=key.sequence, digest=digest, policy=known.lifetime.policy)

    def _known(self, index: Index, sequence: int) -> _Known | None:
        """Give what the index knows of a segment; None: not enough to let it go."""
        row = index.find_segment(self._host, sequence)
        if row is None or not row.last_ns:
            return None
        found = self._members(index, row)
        if None in found.values():
            return None
        subjects = [_subject(one) for one in found.values()]
        life = lifetime(subjects, self._rules) if subjects else lifetime([_NOBODY], self._rules)
        members, runs_known = _named(found)
        return _Known(first_ns=row.first_ns, last_ns=row.last_ns, lifetime=life, members=members, runs_known=runs_known)

    def _members(self, index: Index, row: SegmentRow) -> dict[UUID, SessionRow | RunRow | None]:
        """Give the sessions and runs that a segment has records of, each with what is known of it."""
        members = [member for member in row.sessions if member != self._host]
        return {member: index.find_session(member) or index.find_run(member) for member in members}

    def _locks(self) -> bool:
        return self._bucket.signed is not None and self._bucket.signed.object_lock().enabled

    def _digest(self, entry: Entry) -> bytes | None:
        try:
            header = FileHeader.parse(self._bucket.read(entry.key, 0, HEADER_BYTES_MAX))
            length = trailer_bytes(header.version)
            return parse_trailer(self._bucket.read(entry.key, max(0, entry.size - length), length), header.version).digest
        except (MalformedSegmentError, NewerSegmentError):
            return None

    # -- letting go ------------------------------------------------------------------------------------------------------------

    def _let_go(self, together: Sequence[tuple[Entry, Deleted]], now_ns: int, holds: frozenset[str]) -> bool:
        """Say that they go, and let them; False: a hold came, and what is left of them stays."""
        deletion = Deletion(host=self._host, written_ns=now_ns, segments=[one for _, one in together]).signed(self._signer())
        key = deletion_key(self._host, deletion.name)
        if self._bucket.create(key, deletion.pack()) is Outcome.EXISTS_DIFFERENT and not self._says(key, deletion):
            self.expired.unreadable += len(together)
            return True
        for number, (entry, one) in enumerate(together):
            if number and not self._goes_on(holds):
                return False
            with suppress(FileNotFoundError):
                sealed_path(self._segments, one.sequence).unlink()
            self._delete(entry.key)
            self.expired.segments += 1
            self.expired.bytes += entry.size
        return True

    def _says(self, key: str, deletion: Deletion) -> bool:
        """Tell whether the record that is there already, of a pass that died, says the same."""
        try:
            there = Deletion.parse(self._bucket.read(key, 0, RECORD_BYTES_MAX))
        except MalformedDeletionError:
            return False
        said = [(one.sequence, one.digest) for one in there.segments]
        return there.host == deletion.host and said == [(one.sequence, one.digest) for one in deletion.segments]

    def _delete(self, key: str) -> None:
        remove(self._bucket, key)

    # -- holds -----------------------------------------------------------------------------------------------------------------

    def _mark(self, index: Index, found: Iterable[tuple[Entry, SegmentKey]], holds: Sequence[Hold]) -> None:
        """Set and take back the bucket's own legal hold, so that nobody else deletes what is held either."""
        signed = self._bucket.signed
        assert signed is not None
        for entry, key in found:
            row = index.find_segment(self._host, key.sequence)
            members, runs_known = _named(self._members(index, row)) if row else (None, False)
            first_ns, last_ns = (row.first_ns, row.last_ns) if row and row.last_ns else (0, 1 << 63)
            about = members, first_ns, last_ns
            covering = [hold for hold in holds if hold.covers(self._host, *about, runs_known=runs_known)]
            wanted = any(hold.released is None for hold in covering)
            if covering and self._marks.get(entry.key) is not wanted:
                if signed.held(entry.key) is not wanted:
                    signed.hold(entry.key, on=wanted)
                self._marks[entry.key] = wanted


_NOBODY: Final = Subject(principals=(), targets=(), labels={})
"""A segment with nothing but what the host says of itself: a rule for everything fits."""


def _named(found: Mapping[UUID, SessionRow | RunRow | None]) -> tuple[frozenset[UUID], bool]:
    """Give all by which a hold may name a segment: its sessions and their runs; and whether all of those are known."""
    sessions = [row for row in found.values() if isinstance(row, SessionRow)]
    runs = {row.run for row in sessions if row.run is not None}
    return frozenset({*found, *runs}), None not in found.values() and all(row.run is not None for row in sessions)


def _subject(row: SessionRow | RunRow | None) -> Subject:
    assert row is not None
    owner = row.run if isinstance(row, SessionRow) else row.host
    if owner is None and row.principal is None and not row.labels:
        return UNKNOWN
    principal: Mapping[str, object] = row.principal or {}
    names = [str(principal[key]) for key in ("name", "uid") if principal.get(key) is not None]
    targets: list[str] = []
    if isinstance(row, SessionRow):
        hosts = [name for name in (row.target.name, row.target.host) if name]
        targets = [*hosts, *(f"{name}:{row.target.port}" for name in hosts)]
    return Subject(principals=names, targets=targets, labels=row.labels)


def _runs_of(over: Iterable[tuple[Entry, Deleted]]) -> Iterator[list[tuple[Entry, Deleted]]]:
    """Put together what follows each other."""
    together: list[tuple[Entry, Deleted]] = []
    for item in over:
        if together and (item[1].sequence != together[-1][1].sequence + 1 or len(together) == SEGMENTS_MAX):
            yield together
            together = []
        together.append(item)
    if together:
        yield together


def _day_ns(folder: str) -> int:
    """Give the beginning of the day that a folder is named after; of another folder the beginning of all days."""
    try:
        day = datetime.fromisoformat(folder.removeprefix("date=")).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(day.timestamp()) * (DAY_NS // 86_400)
