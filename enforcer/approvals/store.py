"""The store of approvals: entries that are on disk before anything follows from them.

What lives here: the file (docs/approvals.md), checksums, syncs, writing it anew; bodies beside it. What must not: what
entries mean.

One writer. `append` returns when the entries would survive a power cut, else raises and they are not there: what a failed call
may have left is cut off before anything else is written. Bodies hold what agents said in clear, for whoever has to decide; each
is removed with the end of its request.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgpack

from capd.enforcer.approvals import limits
from capd.enforcer.approvals.action_hash import KEY_BYTES
from capd.enforcer.approvals.entry import Entry
from capd.enforcer.approvals.errors import ApprovalsDamagedError, ApprovalsUnwritableError
from capd.recording.durable import read_regular, replace_content, sync_directory, write_whole
from capd.recording.errors import on_disk

MAGIC: Final = b"capdapr1"
ENTRY_BYTES_MAX: Final = 256 * 1024
"""What is shown of a request, its votes, and room."""
STORE_BYTES_READ_MAX: Final = limits.STORE_BYTES_MAX + (limits.ENDED_MAX + limits.PENDING_MAX) * ENTRY_BYTES_MAX
FILE: Final = "requests.log"
KEY: Final = "fingerprint.key"
LINK_KEY: Final = "link.key"
BODIES: Final = "body-"
EXACT: Final = "exact-"
_HEADER_BYTES: Final = 8
_MODE: Final = 0o600


def frame(entry: Entry) -> bytes:
    """Give an entry as it stands in the file: length and CRC-32, little-endian, then msgpack."""
    content: bytes = msgpack.packb(entry)
    assert len(content) <= ENTRY_BYTES_MAX
    return len(content).to_bytes(4, "little") + zlib.crc32(content).to_bytes(4, "little") + content


def read_frames(content: bytes) -> tuple[list[dict[str, Any]], int, str]:
    """Read a file's content.

    Returns:
        The entries up to the first damage, where they end, and what is wrong there; "" when they end with the content.
    """
    if not content.startswith(MAGIC):
        return [], 0, "it does not begin as a store of approvals does"
    entries: list[dict[str, Any]] = []
    at = len(MAGIC)
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        body = content[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        if length > ENTRY_BYTES_MAX or len(content) - at < _HEADER_BYTES + length:
            return entries, at, "an entry is not whole"
        if zlib.crc32(body) != int.from_bytes(content[at + 4 : at + _HEADER_BYTES], "little"):
            return entries, at, "an entry has another checksum"
        try:
            entry = msgpack.unpackb(body)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            return entries, at, "an entry is none"
        entries.append(entry)
        at += _HEADER_BYTES + length
    return entries, at, ""


class Store:
    """The files of one host's approvals. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Open a directory that exists and belongs to this process alone."""
        self._directory = directory
        self.path = directory / FILE
        self._descriptor = -1
        self._size = 0

    def read(self) -> tuple[list[dict[str, Any]], ApprovalsDamagedError | None]:
        """Give what is there, and what is wrong behind it.

        Raises:
            StateDirectoryError: it cannot be read.
        """
        if not self.path.exists():
            return [], None
        with on_disk("read", self.path):
            content = read_regular(self.path, STORE_BYTES_READ_MAX)
        entries, at, wrong = read_frames(content)
        return entries, ApprovalsDamagedError(self.path, at, wrong) if wrong else None

    def key(self, name: str, made: bytes) -> bytes:
        """Give a key by the name of its file; `made` becomes it when there is none that can be used: all is asked anew then.

        Raises:
            StateDirectoryError: it can be neither read nor written.
        """
        path = self._directory / name
        with on_disk("read", path):
            found = read_regular(path, KEY_BYTES) if path.exists() else b""
        if len(found) == KEY_BYTES:
            return found
        with on_disk("write", path):
            replace_content(path, made, mode=0o400)
        return made

    @property
    def large(self) -> bool:
        """Whether it is time to write it anew."""
        return self._size > limits.STORE_BYTES_MAX

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Replace all content, in one step.

        Raises:
            ApprovalsUnwritableError: the old content is untouched.
        """
        content = MAGIC + b"".join(map(frame, entries))
        self.close()
        try:
            replace_content(self.path, content, mode=_MODE)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ApprovalsUnwritableError(self.path, error) from error
        self._size = len(content)

    def set_aside(self) -> None:
        """Keep a damaged file under another name, for whoever wants to know; a former one goes.

        Raises:
            StateDirectoryError: it cannot be renamed.
        """
        with on_disk("rename", self.path):
            self.path.rename(self._directory / f"{FILE}.damaged")
            sync_directory(self._directory)

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries; they are on the disk when this returns.

        Raises:
            ApprovalsUnwritableError: none of them is there.
        """
        content = b"".join(map(frame, entries))
        try:
            if self._descriptor < 0:
                raise OSError(5, "an earlier write failed")
            write_whole(self._descriptor, [content], self._size)
            os.fdatasync(self._descriptor)
        except OSError as error:
            # After a failed sync nobody knows what the disk has (fsync(2)): only a new file will do (`broken`).
            self.close()
            raise ApprovalsUnwritableError(self.path, error) from error
        self._size += len(content)

    @property
    def broken(self) -> bool:
        """Whether only writing it anew helps."""
        return self._descriptor < 0

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    # -- bodies ----------------------------------------------------------------------------------------------------------------

    def put_body(self, request: str, body: bytes) -> None:
        """Keep a body while its request lasts; it is on the disk when this returns.

        Raises:
            ApprovalsUnwritableError: it is not.
        """
        self._put(self._directory / f"{BODIES}{request}", body)

    def put_exact(self, request: str, facts: Mapping[str, object]) -> None:
        """Keep facts as they are beside a body, as long; arguments as of `put_body`.

        Raises:
            ApprovalsUnwritableError: they are not on the disk.
        """
        self._put(self._directory / f"{EXACT}{request}", msgpack.packb(facts))

    def _put(self, path: Path, content: bytes) -> None:
        try:
            replace_content(path, content, mode=_MODE)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise ApprovalsUnwritableError(path, error) from error

    def body(self, request: str) -> bytes | None:
        """Give a body; None: it is not there."""
        try:
            return read_regular(self._directory / f"{BODIES}{request}", limits.BODY_BYTES_MAX)
        except OSError:
            return None

    def exact(self, request: str) -> dict[str, object]:
        """Give the facts beside a body; none: they are not there."""
        try:
            found = msgpack.unpackb(read_regular(self._directory / f"{EXACT}{request}", limits.SHOWN_BYTES_MAX))
        except (OSError, ValueError, msgpack.UnpackException):
            return {}
        return found if isinstance(found, dict) else {}

    def drop_bodies(self, kept: Iterable[str]) -> int:
        """Remove the bodies of all requests but these, and what is beside them; give how many could not be removed."""
        names = {f"{kind}{request}" for request in kept for kind in (BODIES, EXACT)}
        left = 0
        for path in self._directory.iterdir():
            if path.name.startswith((BODIES, EXACT)) and path.name not in names:
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    left += 1
        return left
