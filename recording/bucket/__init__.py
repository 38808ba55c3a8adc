"""A bucket: where the recording survives its host.

What lives here: `Bucket`: what the rest of capd does with one. What must not: what is kept in it (layout.py), the kinds of
buckets (local.py, remote.py), policy.

All calls block until they are done or have failed; every failure is a BucketError, whose `transient` says whether waiting
helps. Nothing in a bucket is ever overwritten.
"""

from __future__ import annotations

import builtins
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from capd.recording.bucket.errors import BucketCredentialsError, BucketUrlError
from capd.recording.bucket.local import LocalStore
from capd.recording.bucket.location import Kind, Location, Options, parse, with_environment
from capd.recording.bucket.store import Entry, Source, Store

if TYPE_CHECKING:
    from capd.recording.bucket.signed import SignedRequests
    from capd.recording.bucket.versions import VersionGuard

READ_BYTES: Final = 8 << 20
"""How much of an object is in memory while it is checked."""
KEY_BYTES_MAX: Final = 1024
"""S3's limit, the lowest of all."""

__all__ = ["Bucket", "Counters", "Entry", "Kind", "Location", "Options", "Outcome"]


class Outcome(Enum):
    """What `create` found."""

    CREATED = "created"
    EXISTS_SAME = "exists-same"
    """An object of that name with the same content was there: an earlier try, or another shipper."""
    EXISTS_DIFFERENT = "exists-different"
    """An object of that name with other content was there, and still is."""


@dataclass(slots=True)
class Counters:
    """What was asked of a bucket so far.

    Attributes:
        requests: calls; a list counts once, however many pages it has.
        bytes_read: payload that came back.
        bytes_written: payload of the objects created.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Bucket:
    """One bucket, or one prefix of it."""

    def __init__(self, location: Location, store: Store, options: Options, signed: SignedRequests | None) -> None:
        """Take the parts; `open` makes them. `signed`: for what only S3 has; None elsewhere, and without static credentials."""
        self.location = location
        self.options = options
        self.counters = Counters()
        self.signed = signed
        self._store = store
        self._keeps_checksums = True
        self._guarded: bool | None = None

    @classmethod
    def open(cls, url: str, options: Options | None = None, environment: Mapping[str, str] | None = None) -> Self:
        """Give the bucket at a URL; nothing is asked of it yet.

        Args:
            url: `s3://`, `az://`, `gs://`, `file:///` or a directory's path.
            options: how it is reached.
            environment: where the standard variables are looked up; None: the process's. Credentials are always the process's.

        Raises:
            BucketUrlError: this is no URL of a bucket.
            BucketError: the options cannot be used.
        """
        location = parse(url)
        if location.kind is Kind.LOCAL:
            return cls(location, LocalStore(location.directory), options or Options(), None)
        # Late: who only has a directory, or no bucket at all, needs neither HTTP nor TLS.
        from capd.recording.bucket.remote import RemoteStore  # noqa: PLC0415 - see above
        from capd.recording.bucket.signed import SignedRequests  # noqa: PLC0415 - see above

        variables = os.environ if environment is None else environment
        filled = with_environment(options or Options(), location.kind, variables)
        signed = None
        if location.kind is Kind.S3:
            with suppress(BucketCredentialsError):
                signed = SignedRequests(location, filled, variables)
        return cls(location, RemoteStore(location, filled), filled, signed)

    def __str__(self) -> str:
        """Give the URL."""
        return str(self.location)

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        """Give the objects whose key starts with the prefix, by key. None is an empty list.

        Raises:
            BucketError: it cannot be read.
        """
        self.counters.requests += 1
        return sorted(self._store.list(prefix), key=lambda entry: entry.key)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        """Give the names of the folders in a folder, sorted: for `host=a/` such as `date=2026-11-21`, `keys`.

        Args:
            prefix: "" or a folder with its slash at the end.

        Raises:
            BucketError: it cannot be read.
        """
        assert not prefix or prefix.endswith("/")
        self.counters.requests += 1
        return sorted(self._store.folders(prefix))

    def size(self, key: str) -> int:
        """Give an object's length in bytes.

        Raises:
            ObjectMissingError: there is none.
            BucketError: it cannot be read.
        """
        self.counters.requests += 1
        return self._store.size(_checked(key))

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Give a range of an object: less than `length` where the object ends, nothing behind its end.

        Args:
            key: of the object.
            offset: first byte.
            length: how many; None: up to the end, for one more request.

        Raises:
            ObjectMissingError: there is none.
            BucketError: it cannot be read.
        """
        if length is None:
            length = max(0, self.size(key) - offset)
        self.counters.requests += 1
        data = self._store.read(_checked(key), offset, length)
        self.counters.bytes_read += len(data)
        return data

    def create(self, key: str, content: bytes | Path) -> Outcome:
        """Create an object, unless there is one of that name; that is compared.

        An object appears whole or not at all. After an error it may or may not be there: calling again tells.

        Args:
            key: its name.
            content: bytes, or a file that nobody changes any more.

        Raises:
            BucketError: it could not be created or compared.
            OSError: the file cannot be read.
        """
        source = Source(content)
        self.counters.requests += 1
        guard = self._guard(key)
        version = None if guard is not None and guard.taken() else self._store.create(_checked(key), source)
        if version is not None:
            self.counters.bytes_written += source.size
            if guard is None or not guard.beaten(version):
                return Outcome.CREATED
        same = self.holds(key, source.size, source.sha256())
        return Outcome.EXISTS_SAME if same else Outcome.EXISTS_DIFFERENT

    def settle(self, key: str) -> None:
        """Remove copies of an object that its creators left behind it, because they were ended too early to look.

        Raises:
            BucketError: it could not be asked.
        """
        if (guard := self._guard(_checked(key))) is not None:
            self.counters.requests += 1
            guard.taken()

    def _guard(self, key: str) -> VersionGuard | None:
        """Give what keeps a name from being taken twice where the server may not."""
        if self.signed is None:
            return None
        if self._guarded is None:
            self._guarded = self.signed.overwrites()
        from capd.recording.bucket.versions import VersionGuard  # noqa: PLC0415 - see `open`

        return VersionGuard(self.signed, key) if self._guarded else None

    def holds(self, key: str, size: int, sha256: bytes) -> bool:
        """Tell whether an object has this content, by reading it back.

        Raises:
            ObjectMissingError: there is none.
            BucketError: it cannot be read.
        """
        digest, offset = hashlib.sha256(), 0
        while offset <= size:  # one byte is asked for behind the end: it must not be there
            wanted = min(READ_BYTES, size + 1 - offset)
            part = self.read(key, offset, wanted)
            digest.update(part)
            offset += len(part)
            if len(part) < wanted:
                break
        return offset == size and digest.digest() == sha256

    def confirm(self, key: str, size: int, sha256: bytes) -> bool:
        """Tell whether an object has this content, by the server's own SHA-256 where it kept one, else by reading it back.

        Raises:
            ObjectMissingError: there is none.
            BucketError: it cannot be read.
        """
        if self.signed is not None and self._keeps_checksums:
            self.counters.requests += 1
            found = self.signed.stored(_checked(key))
            if found.sha256 is not None:
                return (found.size, found.sha256) == (size, sha256)
            self._keeps_checksums = False  # the server takes them and forgets them, as Ceph before 20 does
        return self.holds(key, size, sha256)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there. A bucket with versions keeps the old one behind a marker.

        Raises:
            BucketError: it could not be removed.
        """
        self.counters.requests += 1
        self._store.delete(_checked(key))


def _checked(key: str) -> str:
    """Give a key back if no kind of bucket reads it otherwise than it stands there.

    Raises:
        BucketUrlError: it leaves the bucket, or is no name.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") for part in parts) or "\\" in key or not key.isprintable():
        raise BucketUrlError(f"{key!r} is no name for an object")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise BucketUrlError(f"a key of {len(key)} characters is too long")
    return key
