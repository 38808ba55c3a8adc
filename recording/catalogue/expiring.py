"""Taking out of a bucket's catalogue what is told only of segments that expired.

What lives here: which files are made anew or removed, and in what order. What must not: which segments expire, when it is done.

Nothing is changed in a file: one that lacks what expired is created beside it, named by how many segments of its range have
gone (docs/formats/catalogue.md), and then the old one is removed. The table that decides comes last, so that whoever finds its
file finds the others. Whoever dies anywhere is finished by the next one, and two at a time do no harm: what they create has the
same name, and a file that the other has removed is nobody's work any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import pyarrow as pa

from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import ObjectMissingError
from capd.recording.bucket.holds import Hold
from capd.recording.bucket.removal import locked, remove
from capd.recording.catalogue.layout import Part, host_prefix, newest, parse_key
from capd.recording.catalogue.schema import DECIDER, TABLES, pack_table, range_of, read_table

OWNERS: Final = {"sessions": "session", "runs": "run"}
"""Tables whose rows are of several segments, with the column that names what a row is of."""


@dataclass(slots=True)
class Removed:
    """What was done.

    Attributes:
        created, removed: files.
        locked: files that stay for now because the bucket protects them.
        held: segments whose rows stay because of a legal hold.
    """

    created: int = 0
    removed: int = 0
    locked: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What goes of one range: numbers of segments, and the members of those that stay and of those that go."""

    gone: frozenset[int]
    members: Mapping[str, Sequence[int]]
    lost: Mapping[str, Sequence[int]]


class CatalogueExpiry:
    """Takes out of one host's catalogue what expired."""

    def __init__(
        self,
        bucket: Bucket,
        host: UUID,
        *,
        expired: Callable[[int], bool],
        remains: Callable[[UUID], bool],
        holds: Sequence[Hold],
        now_ns: int,
    ) -> None:
        """Take what is known; nothing is asked yet.

        Args:
            bucket: where the catalogue is.
            host: whose.
            expired: whether a segment of it expired, as a record of deletion says.
            remains: whether something of a session or run is still there.
            holds: active ones: what they cover stays.
            now_ns: wall time.
        """
        self.done = Removed()
        self._bucket, self._host, self._expired, self._remains = bucket, host, expired, remains
        self._holds, self._now_ns = holds, now_ns

    def turn(self, days: Iterable[date]) -> Removed:
        """Go through the files of some days.

        Raises:
            BucketError: the bucket failed; the next turn goes on.
        """
        for day in days:
            parts = newest(self._parts(DECIDER, day))
            for part in parts:
                try:
                    self._attend(part)
                except ObjectMissingError:
                    continue  # another one is at it
            if parts:
                self._tidy(day)
        return self.done

    def _parts(self, table: str, day: date) -> list[Part]:
        entries = self._bucket.list(host_prefix(table, day, self._host))
        return [part for entry in entries if (part := parse_key(entry.key, entry.size)) is not None]

    def _attend(self, part: Part) -> None:
        """Make the files of a range anew, if more of it expired than they know."""
        decider = self._read(part)
        rows = decider.select(["sequence", "first_ns", "last_ns", "sessions"]).to_pylist()
        runs = self._runs_in(part) if any(hold.runs for hold in self._holds) else {}
        gone = {row["sequence"] for row in rows if self._expired(row["sequence"]) and not self._is_held(row, runs)}
        if not gone and rows:
            return
        left = [row for row in rows if row["sequence"] not in gone]
        change = _Change(gone=frozenset(gone), members=_members(left), lost=_members(row for row in rows if row not in left))
        following = replace(part, gone=part.gone + len(gone), size=0)
        first, last = range_of(decider.schema.metadata or {})
        kept = {}
        for table in TABLES:
            content = decider if table == DECIDER else self._read_if_there(replace(part, table=table))
            if content is not None:
                kept[table] = self._without(table, content, change)
        if not gone and any(kept[table].num_rows for table in OWNERS if table in kept):
            return
        if not left and not any(kept[table].num_rows for table in OWNERS if table in kept):
            kept = {}  # nobody needs to be told of it any more
        elif not left:
            kept = {table: kept[table] for table in (*OWNERS, DECIDER) if table in kept}
        for table in sorted(kept, key=DECIDER.__eq__):
            self._bucket.create(replace(following, table=table).key, pack_table(kept[table], first=first, last=last))
            self.done.created += 1
        if not kept:
            for table in sorted(TABLES, key=DECIDER.__eq__):
                self._remove([there for there in self._parts(table, part.day) if there.first == part.first])

    def _is_held(self, row: Mapping[str, Any], runs: Mapping[str, str | None]) -> bool:
        """Tell whether a segment is held; `runs`: of the sessions in its range."""
        named = row["sessions"] or ()
        of_sessions = {runs[identity] for identity in named if identity in runs}
        members = {UUID(identity) for identity in (*named, *of_sessions) if identity is not None}
        about = members, row["first_ns"] or 0, row["last_ns"] or 1 << 63
        held = any(hold.covers(self._host, *about, runs_known=None not in of_sessions) for hold in self._holds)
        self.done.held += held
        return held

    def _runs_in(self, part: Part) -> dict[str, str | None]:
        """Give the run of each session in a range; None: it is not known."""
        content = self._read_if_there(replace(part, table="sessions"))
        rows = [] if content is None else content.select(["session", "run"]).to_pylist()
        return {row["session"]: row["run"] for row in rows}

    def _without(self, table: str, content: pa.Table, change: _Change) -> pa.Table:
        """Give the rows of a table that are not only of segments that have gone."""
        if table in OWNERS:
            return self._owners(table, content, change)
        mask = [number not in change.gone for number in content.column("sequence").to_pylist()]
        return content.filter(pa.array(mask, pa.bool_()))

    def _owners(self, table: str, content: pa.Table, change: _Change) -> pa.Table:
        """Give rows of sessions or runs, with what of them has gone.

        One that is in no segment of the range any more keeps its id and those numbers, if something of it is elsewhere.
        """
        schema, name = TABLES[table], OWNERS[table]
        rows: list[dict[str, Any]] = []
        for row in content.to_pylist():
            identity = row[name]
            expired = sorted({*(row.get("expired") or ()), *change.lost.get(identity, ())}) or None
            if identity in change.members:
                there = [number for number in row.get("sequences") or () if number not in change.gone]
                rows.append({**row, "expired": expired, "sequences": there})
            elif identity is not None and self._remains(UUID(identity)):
                rows.append({name: identity, "expired": expired})
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
        return pa.Table.from_arrays(columns, schema=schema)

    def _tidy(self, day: date) -> None:
        """Remove files that newer ones took the place of, and those that belong to no range any more."""
        ranges = {part.first: part.gone for part in newest(self._parts(DECIDER, day))}
        for table in sorted(TABLES, key=DECIDER.__eq__):
            for first, together in groupby(sorted(self._parts(table, day)), attrgetter("first")):
                parts = list(together)
                known = ranges.get(first)
                # Without a newer one in its place a file stays only where its range has rows of that table.
                replaced = [part for part in parts if part.gone < (known or 0)] if known is not None else parts
                self._remove(replaced)

    def _remove(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if locked(self._bucket, part.key, self._now_ns):
                self.done.locked += 1
            else:
                remove(self._bucket, part.key)
                self.done.removed += 1

    def _read(self, part: Part) -> pa.Table:
        return read_table(self._bucket.read(part.key), part.key)

    def _read_if_there(self, part: Part) -> pa.Table | None:
        """Read the file of another table, of whichever expiry; None when a dead cataloguer left none."""
        found = [there for there in self._parts(part.table, part.day) if there.first == part.first]
        return self._read(max(found)) if found else None


def _members(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Give the sessions and runs of some segments, with the numbers of those that hold them."""
    found: dict[str, list[int]] = {}
    for row in rows:
        for identity in row["sessions"] or ():
            found.setdefault(identity, []).append(row["sequence"])
    return found
