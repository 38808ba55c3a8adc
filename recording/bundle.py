"""A bundle: what a session or run takes to be read and proved somewhere else, laid out like a state directory.

What lives here: its manifest (docs/export.md), writing files into it, holding files against it. What must not: which files
belong in it, what a person is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import UUID

from capd.recording.archive import MANIFEST
from capd.recording.durable import open_regular, read_regular
from capd.recording.errors import CapdError, ExitStatus, on_disk
from capd.recording.record import Value

VERSION: Final = 1
VERSION_KEY: Final = "capd_bundle"
MANIFEST_BYTES_MAX: Final = 64 << 20
FILES_MAX: Final = 1_000_000
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""For whoever exported it: it may hold what agents said in clear."""
READ_BYTES: Final = 1 << 20


class BundleError(CapdError):
    """A bundle's manifest cannot be read, so that nothing can be held against it."""

    exit_status = ExitStatus.CORRUPT
    hint = "export it again; `capd verify BUNDLE/segments` checks the evidence in it without the manifest"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One file, as the manifest has it: its path from the bundle's directory, and what it holds."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself. Nobody signed it: what the host signed are the segments.

    Attributes:
        sessions, runs: of whom it is.
        segments: numbers of the segments in it: all that hold anything of them, except the missing.
        missing: numbers of those that could not be had.
        files: all of it but the manifest.
    """

    sessions: Sequence[UUID]
    runs: Sequence[UUID]
    segments: Sequence[int]
    missing: Sequence[int]
    files: Sequence[Listed]


@dataclass(slots=True)
class BundleWriter:
    """Writes files into a directory and remembers what they hold.

    Attributes:
        directory: where to; it exists and is empty.
        files: what was written.
    """

    directory: Path
    files: list[Listed] = field(default_factory=list)

    def add(self, name: str, parts: Iterable[bytes]) -> Path:
        """Write a file; when the parts end with an error, there is none.

        Raises:
            OSError: it cannot be written.
        """
        path = self.directory / name
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        digest, size = sha256(), 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
                    digest.update(part)
                    size += len(part)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.files.append(Listed(path=name, size=size, sha256=digest.hexdigest()))
        return path

    def finish(self, about: Mapping[str, Value]) -> None:
        """Write the manifest, with what else it says.

        Raises:
            OSError: it cannot be written.
        """
        files = [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in self.files]
        content = json.dumps({VERSION_KEY: VERSION, **about, "files": files}, indent=1).encode("ascii") + b"\n"
        self.add(MANIFEST, [content])
        self.files.pop()


def read_manifest(directory: Path) -> Manifest | None:
    """Give a bundle's manifest; None where there is none, so that the directory is no bundle.

    Raises:
        BundleError: there is one, and it cannot be understood.
    """
    path = directory / MANIFEST
    with on_disk("read", directory):
        if not path.is_file():
            return None
    try:
        with on_disk("read", path):
            told = json.loads(read_regular(path, MANIFEST_BYTES_MAX))
        if not isinstance(told, dict) or VERSION_KEY not in told:
            return None
        if told[VERSION_KEY] != VERSION:
            raise BundleError(path, f"a bundle of version {told[VERSION_KEY]!r}; this capd reads version {VERSION}")
        files = [Listed(path=_inside(one["path"]), size=int(one["size"]), sha256=str(one["sha256"])) for one in told["files"]]
        return Manifest(
            sessions=[UUID(one) for one in told["sessions"]],
            runs=[UUID(one) for one in told["runs"]],
            segments=[int(one) for one in told["segments"]],
            missing=[int(one) for one in told["missing_segments"]],
            files=files,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(path, "it is no manifest of a bundle") from error


def _inside(path: object) -> str:
    """Give a path of the manifest, if it stays in the bundle."""
    if not isinstance(path, str) or not path or "\\" in path:
        raise ValueError(path)
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(path)
    return path


def differences(directory: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Give the files that are not as the manifest has them, each with what is wrong; those that it does not have as well."""
    known = {one.path for one in manifest.files} | {MANIFEST}
    for one in manifest.files:
        path = directory / one.path
        try:
            digest, size = _digest(path)
        except FileNotFoundError:
            yield one.path, "is missing"
            continue
        except OSError as error:
            yield one.path, f"cannot be read: {error.strerror or error}"
            continue
        if (digest, size) != (one.sha256, one.size):
            yield one.path, "is another one than the manifest names"
    with on_disk("read", directory):
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if name not in known and (path.is_symlink() or not path.is_dir()):
                yield name, "is not in the manifest"


def _digest(path: Path) -> tuple[str, int]:
    digest, size = sha256(), 0
    with os.fdopen(open_regular(path), "rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
            size += len(part)
    return digest.hexdigest(), size
