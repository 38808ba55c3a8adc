"""What the shipper says of itself.

What lives here: the shape of its status (docs/operations.md). What must not: gathering, judging (health.py), the file.
"""

from __future__ import annotations

from typing import Final

from capd.daemon.shipper_local import Memory
from capd.daemon.shipper_pace import DiskTrend
from capd.daemon.shipping import TROUBLES_SHOWN, Progress
from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import BucketError
from capd.recording.bucket.signed import ObjectLock

NS_PER_SECOND: Final = 1_000_000_000
Json = dict[str, object]


def describe(
    progress: Progress,
    *,
    bucket: Bucket,
    memory: Memory,
    trend: DiskTrend,
    reserve_bytes: int,
    object_lock: ObjectLock | BucketError | None,
    now: float,
) -> Json:
    """Give the status but for what is of the process.

    Args:
        progress: where the work stands.
        bucket: where to, and what was asked of it.
        memory: what was shipped and released in all.
        trend: of the disk.
        reserve_bytes: the disk counts as full when only this is free.
        object_lock: of the bucket; why it is not known; or None: not asked, or there is no such thing.
        now: wall time.
    """
    waiting = progress.waiting
    oldest = min((item.created_ns for item in waiting), default=None)
    until_full = trend.seconds_until(reserve_bytes)
    return {
        "bucket": str(bucket),
        "backlog": {"segments": len(waiting), "bytes": sum(item.size for item in waiting)},
        "oldest_unshipped_ns": oldest,
        "oldest_unshipped_seconds": None if oldest is None else round(max(0.0, now - oldest / NS_PER_SECOND), 1),
        "moving": _moving(progress.moving, now),
        "through": memory.through,
        "settled": memory.settled,
        "shipped": {"segments": progress.segments, "bytes": progress.bytes, "found": progress.found},
        "last_success": progress.last_success,
        "errors": progress.errors,
        "last_error": _error(progress, now),
        "conflicts": sorted({*progress.conflicts.values(), *progress.companions})[:TROUBLES_SHOWN],
        "unshippable": [reason for _, reason in sorted(progress.unshippable.items())[:TROUBLES_SHOWN]],
        "local": {
            "segments": progress.local_segments,
            "bytes": progress.local_bytes,
            "released_segments": memory.released,
            "released_bytes": memory.released_bytes,
        },
        "disk": {"fills_bytes_per_second": _rounded(trend.bytes_per_second()), "seconds_until_full": _rounded(until_full)},
        "object_lock": _lock(object_lock),
        "requests": bucket.counters.requests,
    }


def _moving(moving: tuple[str, int, float] | None, now: float) -> Json | None:
    if moving is None:
        return None
    key, size, since = moving
    return {"key": key, "bytes": size, "seconds": round(max(0.0, now - since), 1)}


def _error(progress: Progress, now: float) -> Json | None:
    if progress.error is None:
        return None
    hint = str(getattr(progress.error, "hint", ""))
    since = progress.failing_since or progress.error_time
    return {
        "message": str(progress.error),
        "hint": hint,
        "seconds": round(max(0.0, now - progress.error_time), 1),
        "failing_seconds": round(max(0.0, now - since), 1),
    }


def _lock(found: ObjectLock | BucketError | None) -> Json | None:
    match found:
        case None:
            return None
        case ObjectLock():
            return {"enabled": found.enabled, "mode": found.mode, "days": found.days, "unknown": None}
        case _:
            return {"enabled": None, "mode": None, "days": None, "unknown": str(found)}


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
