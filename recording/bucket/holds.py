"""Legal holds: objects in the bucket that keep recordings from being deleted.

What lives here: their form (docs/formats/bucket.md), placing, listing and releasing them. What must not: deleting, segments.

A hold is one object and its release another one beside it, for nothing in a bucket is changed or removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.errors import BucketError, ObjectMissingError

FOLDER: Final = "holds/"
VERSION: Final = 1
HOLD_BYTES_MAX: Final = 1 << 20
_HOLD: Final = re.compile(r"holds/([0-9a-f-]{36})\.(hold|released)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One hold. It holds what fits all of what it names; of what it does not name, everything fits.

    Attributes:
        id: its name.
        reason: why, in words.
        placed_by: who placed it, as the system knew them.
        placed_ns: when.
        hosts, sessions, runs: whose recordings; sessions and runs are one list: what fits either fits.
        from_ns, until_ns: recordings of this time: not before, and before; None: no limit.
        released: who released it, when (ns) and why; None while it holds.
    """

    id: UUID
    reason: str
    placed_by: str
    placed_ns: int
    hosts: frozenset[UUID] = frozenset()
    sessions: frozenset[UUID] = frozenset()
    runs: frozenset[UUID] = frozenset()
    from_ns: int | None = None
    until_ns: int | None = None
    released: tuple[str, int, str] | None = None

    def covers(
        self, host: UUID, members: Collection[UUID] | None, first_ns: int, last_ns: int, *, runs_known: bool = True
    ) -> bool:
        """Tell whether it holds a segment.

        Args:
            host: who recorded it.
            members: ids of its sessions, of their runs, and of other runs that it has records of; None: not known, and so any.
            first_ns: time of its earliest record.
            last_ns: time of its latest record.
            runs_known: whether the runs of all its sessions are among the members; else any may be one.
        """
        if self.hosts and host not in self.hosts:
            return False
        named = self.sessions | self.runs
        unnamed = members is not None and named.isdisjoint(members) and (runs_known or not self.runs)
        if named and unnamed:
            return False
        early = self.until_ns is None or first_ns < self.until_ns
        return early and (self.from_ns is None or last_ns >= self.from_ns)

    def to_json(self) -> dict[str, object]:
        """Give the public form."""
        released = self.released
        return {
            "hold": str(self.id),
            "reason": self.reason,
            "placed_by": self.placed_by,
            "placed_ns": self.placed_ns,
            "hosts": sorted(map(str, self.hosts)),
            "sessions": sorted(map(str, self.sessions)),
            "runs": sorted(map(str, self.runs)),
            "from_ns": self.from_ns,
            "until_ns": self.until_ns,
            "released": None if released is None else {"by": released[0], "ns": released[1], "reason": released[2]},
        }

    @property
    def key(self) -> str:
        """Its name in the bucket."""
        return f"{FOLDER}{self.id}.hold"


def place(bucket: Bucket, hold: Hold) -> None:
    """Write a hold into the bucket; it counts from then on.

    Raises:
        BucketError: it could not be written, and does not count.
    """
    content = json.dumps({"version": VERSION, **hold.to_json()}, indent=1).encode() + b"\n"
    if bucket.create(hold.key, content) is Outcome.EXISTS_DIFFERENT:
        raise BucketError(f"{bucket}: there is another hold {hold.id}")


def release(bucket: Bucket, hold: UUID, *, by: str, now_ns: int, reason: str) -> bool:
    """Write into the bucket that a hold is over; False: it was already.

    Raises:
        ObjectMissingError: there is no such hold.
        BucketError: it could not be written, and goes on holding.
    """
    bucket.size(f"{FOLDER}{hold}.hold")
    content = json.dumps({"version": VERSION, "by": by, "ns": now_ns, "reason": reason}, indent=1).encode() + b"\n"
    return bucket.create(f"{FOLDER}{hold}.released", content) is Outcome.CREATED


def names(bucket: Bucket) -> frozenset[str]:
    """Give what is there of holds and releases, which never change: as long as this is the same, all holds are.

    Raises:
        BucketError: the bucket failed.
    """
    return frozenset(entry.key for entry in bucket.list(FOLDER))


def read(bucket: Bucket) -> list[Hold]:
    """Give all holds, released ones too, the latest last.

    Raises:
        BucketError: they cannot be read, or one cannot be understood: then nothing may be deleted.
    """
    found = {match: entry for entry in bucket.list(FOLDER) if (match := _HOLD.fullmatch(entry.key))}
    released = {match[1] for match in found if match[2] == "released"}
    holds = []
    for match, entry in found.items():
        if match[2] == "hold":
            over = _object(bucket, f"{FOLDER}{match[1]}.released") if match[1] in released else None
            holds.append(_hold(bucket, _object(bucket, entry.key), over, entry.key))
    return sorted(holds, key=lambda hold: (hold.placed_ns, hold.id))


def _object(bucket: Bucket, key: str) -> dict[str, object]:
    try:
        found = json.loads(bucket.read(key, 0, HOLD_BYTES_MAX))
    except ObjectMissingError:
        raise
    except (ValueError, RecursionError) as error:
        raise BucketError(f"{bucket}: {key} is no hold") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise BucketError(f"{bucket}: {key} is no hold, or one of a later capd")
    return found


def _hold(bucket: Bucket, found: dict[str, object], over: dict[str, object] | None, key: str) -> Hold:
    try:
        return Hold(
            id=UUID(str(found["hold"])),
            reason=str(found["reason"]),
            placed_by=str(found["placed_by"]),
            placed_ns=_number(found["placed_ns"]) or 0,
            hosts=_ids(found["hosts"]),
            sessions=_ids(found["sessions"]),
            runs=_ids(found["runs"]),
            from_ns=_number(found["from_ns"]),
            until_ns=_number(found["until_ns"]),
            released=None if over is None else (str(over["by"]), _number(over["ns"]) or 0, str(over["reason"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BucketError(f"{bucket}: {key} is no hold") from error


def _ids(value: object) -> frozenset[UUID]:
    if not isinstance(value, Iterable):
        raise TypeError("no list")
    return frozenset(UUID(str(item)) for item in value)


def _number(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError("no number")
    return value
