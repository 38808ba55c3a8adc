"""Removing an object from a bucket for good: all of its versions, and only when nothing protects it.

What lives here: whether it may be removed, and removing it. What must not: why.
"""

from __future__ import annotations

from capd.recording.bucket import Bucket


def locked(bucket: Bucket, key: str, now_ns: int) -> bool:
    """Tell whether the bucket itself forbids the removal of an object, by retention or by its legal hold.

    Raises:
        BucketError: it could not be asked.
    """
    signed = bucket.signed
    if signed is None:
        return False
    retention = signed.retention(key)
    return (retention is not None and retention.until_ns > now_ns) or signed.held(key)


def remove(bucket: Bucket, key: str) -> None:
    """Remove an object with all its versions, also those that somebody deleted before and the bucket kept; none is fine.

    Raises:
        BucketError: it could not be removed.
    """
    signed = bucket.signed
    versions = [version.name for version in signed.versions(key, deleted=True)] if signed is not None else []
    if signed is None or versions in ([], ["null"]):
        bucket.delete(key)
        return
    for version in versions:
        signed.delete_version(key, version)
