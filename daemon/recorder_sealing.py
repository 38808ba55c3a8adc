"""How the recorder closes what it writes: signed, chained, and encrypted if somebody is to be kept out.

What lives here: the host's key and heads in the recorder's hands, and the keys of encrypted segments that it needs itself. What
must not: formats (recording/), when something is written (recorder.py).

With recipients configured the host cannot read its own past. What it must still be able to read, to go on after its own death
as if nothing had happened, is the segments that open sessions are in, and those since its last snapshot: their keys lie in the
runtime directory, which is memory, and are removed as soon as nothing needs them. A power cut takes them, and with them the
sessions that they were kept for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.age import NoKeys
from capd.recording.durable import replace_content
from capd.recording.errors import on_disk
from capd.recording.heads import HeadLog, newest_head
from capd.recording.segment.cipher import DATA_KEY_BYTES
from capd.recording.segment.layout import FileHeader
from capd.recording.segment.recovery import Recovery
from capd.recording.segment.trailer import Signer
from capd.recording.segment.writer import Sealing

KEY_MODE: Final = 0o600
KEYS_MODE: Final = 0o700
KEYS_KEPT_MAX: Final = 720
"""One hour of segments at the rate of one in five seconds. A decoder of a session that began before finds its place again."""
SUFFIX: Final = ".key"


class KeyRing:
    """The keys of encrypted segments that the recorder may still have to read. Nobody else may read the directory."""

    def __init__(self, directory: Path) -> None:
        """Take a directory on a tmpfs, made when it is first needed."""
        self._directory = directory
        self._nothing = NoKeys()

    def keep(self, header: FileHeader, data_key: bytes) -> None:
        """Remember the key of a segment that is begun.

        Raises:
            StateDirectoryError: it cannot be written.
        """
        path = self._path(header.sequence)
        with on_disk("write", path):
            self._directory.mkdir(mode=KEYS_MODE, exist_ok=True)
            replace_content(path, header.digest + data_key, mode=KEY_MODE, sync=False)

    def data_key(self, header: FileHeader) -> bytes:
        """Give the key of a segment.

        Raises:
            EncryptedError: it is not kept, or is that of another segment of this number.
        """
        try:
            content = self._path(header.sequence).read_bytes()
        except OSError:
            return self._nothing.data_key(header)
        digest, data_key = content[:-DATA_KEY_BYTES], content[-DATA_KEY_BYTES:]
        return data_key if digest == header.digest else self._nothing.data_key(header)

    def forget(self, needed: Iterable[int], newest: int) -> None:
        """Remove the keys of all segments but those that are needed, and of those too that are too old.

        Raises:
            StateDirectoryError: one cannot be removed.
        """
        kept = {sequence for sequence in needed if sequence > newest - KEYS_KEPT_MAX}
        with on_disk("forget keys in", self._directory):
            for path in self._directory.glob(f"*{SUFFIX}") if self._directory.exists() else ():
                if path.stem.isdigit() and int(path.stem) not in kept and int(path.stem) <= newest:
                    path.unlink()

    def _path(self, sequence: int) -> Path:
        return self._directory / f"{sequence:012d}{SUFFIX}"


def after_heads(recovery: Recovery, directory: Path) -> Recovery:
    """Give what recovery found, unless a head knows of a later segment: its number must never be used again.

    The newest sealed segment stays on the host, so this matters only when somebody removed it.

    Raises:
        StateDirectoryError: the segments' directory cannot be read.
    """
    head = newest_head(directory)
    if head is None or head.sequence < recovery.next_sequence:
        return recovery
    return replace(recovery, newest=head.sequence, next_sequence=head.sequence + 1, previous=head.digest)


class Seals:
    """What the recorder signs with, and for whom it encrypts."""

    def __init__(self, *, signer: Signer | None, recipients: Sequence[str], ring: KeyRing) -> None:
        """Take the parts.

        Args:
            signer: the host's key; None leaves segments unsigned and says no heads.
            recipients: who may read; nobody in it: no encryption.
            ring: where the recorder keeps the keys that it still needs.
        """
        self.signer = signer
        self.recipients = tuple(recipients)
        self.ring = ring
        self._heads: HeadLog | None = None
        self._newest = 0

    @property
    def encrypted(self) -> bool:
        """Whether what is said must not be on disk in the clear."""
        return bool(self.recipients)

    @property
    def sealing(self) -> Sealing:
        """What a segment writer needs."""
        return Sealing(signer=self.signer, recipients=self.recipients, keep=self.ring.keep)

    def begin(self, directory: Path, host: UUID, recovery: Recovery) -> None:
        """Go on after what an earlier recorder said.

        Raises:
            StateDirectoryError: the segments' directory cannot be read.
        """
        self._newest = recovery.newest
        self._heads = HeadLog(directory, host=host, signer=self.signer) if self.signer else None

    def sealed(self, sequence: int) -> None:
        """Take note of a sealed segment."""
        self._newest = sequence

    def say_head(self, digest: bytes | None, *, final: bool = False) -> None:
        """Sign how far the recording has come, if it is time.

        Raises:
            StateDirectoryError: it cannot be written; it is said the next time.
        """
        now_ns = time.time_ns()
        if self._heads is not None and (final or self._heads.due(now_ns, self._newest)):
            self._heads.write(now_ns, self._newest, digest, final=final)

    def forget(self, needed: Iterable[int], known: int) -> None:
        """Let go of the keys of segments that nothing here will read again.

        Args:
            needed: segments of which the index says so.
            known: the newest that the index has taken in: of later ones it says nothing, as when the disk is full.

        Raises:
            StateDirectoryError: one cannot be removed.
        """
        if self.encrypted:
            self.ring.forget({*needed, *range(known + 1, self._newest + 1)}, self._newest)
