"""What is shipped beside segments: the host's public keys, and its heads.

What lives here: which of them are due, and bringing them. What must not: segments (shipping.py), making them.

A key goes before the first segment that it signs, a head after the segment that it names, so that who verifies the bucket at
any moment finds nothing that is only on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from capd.daemon.shipper_local import Memory
from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.layout import head_key, public_key_key
from capd.recording.durable import read_regular
from capd.recording.evidence.shelf import is_key
from capd.recording.heads import HEAD, Head, MalformedHeadError, head_name, number_of
from capd.recording.keys import KEY_FILE_BYTES_MAX


class Companions:
    """Brings the keys and heads of one host."""

    def __init__(self, bucket: Bucket, memory: Memory, *, host: UUID, keys: Path, heads: Path) -> None:
        """Take the directories; either may be missing."""
        self._bucket, self._memory, self._host = bucket, memory, host
        self._keys, self._heads = keys, heads
        self._keys_there: set[str] = set()
        self.conflicts: set[str] = set()
        """Keys under which the bucket has something else."""

    def bring_keys(self) -> None:
        """Bring every public key that this process has not seen in the bucket.

        Raises:
            BucketError: the bucket failed.
            OSError: a file cannot be read.
        """
        names = {path.name for path in self._keys.iterdir() if is_key(path.name)} if self._keys.is_dir() else set()
        for name in sorted(names - self._keys_there):
            self._create(public_key_key(self._host, name), read_regular(self._keys / name, KEY_FILE_BYTES_MAX))
            self._keys_there.add(name)

    def bring_heads(self, pause: Callable[[], bool]) -> None:
        """Bring the heads whose segments are in the bucket, in order; `pause` says whether to go on.

        Raises:
            BucketError: the bucket failed.
            OSError: a file cannot be read.
        """
        numbers = sorted(number for path in self._heads.iterdir() if (number := number_of(path.name)) is not None)
        for number in numbers:
            if number <= self._memory.head:
                continue
            if not pause():
                return
            data = read_regular(self._heads / head_name(number), HEAD.size)
            try:
                head = Head.parse(data)
            except MalformedHeadError:  # the next one says that it is missing, and `verify` says so
                continue
            if head.sequence and not self._memory.has(head.sequence) and not self._memory.overtook(head.sequence):
                return
            self._create(head_key(head.host, head.written_ns, head_name(number)), data)
            self._memory.head = number
            self._memory.save()

    def _create(self, key: str, content: bytes) -> None:
        if self._bucket.create(key, content) is Outcome.EXISTS_DIFFERENT:
            self.conflicts.add(key)
        else:
            self.conflicts.discard(key)
