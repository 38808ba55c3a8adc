"""Encryption of the journal: raw capture, unmasked, must be readable for the recorder and for nobody who finds the disk.

What lives here: the keys, their file, AES-256-GCM over a payload. What must not: block layouts, where the file is (the daemon).

One key serves from one start of the host to the next. The file holds the newest last, and a few before it, because the journal
may hold what was captured under them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.recording.durable import replace_content
from capd.recording.errors import on_disk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = NONCE_BYTES + TAG_BYTES
"""What encryption adds to a payload: a random nonce before it, the tag after it."""
KEYS_KEPT: Final = 4
KEY_MODE: Final = 0o640
_ID_DOMAIN: Final = b"capd journal key\0"


class UnknownKeyError(Exception):
    """The key is not here (any more)."""

    def __init__(self, key: int) -> None:
        super().__init__(f"it is encrypted with key {key:08x}, which is gone: it was only in memory, or was removed")


class AlteredError(Exception):
    """The bytes are not those that were encrypted, or stood elsewhere."""

    def __init__(self) -> None:
        super().__init__("it does not decrypt")


class JournalKey:
    """One key."""

    def __init__(self, boot: UUID, raw: bytes) -> None:
        """Take the key and the start of the host that it was made in."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - readers of segments need none of it

        self.boot = boot
        self.raw = raw
        self.id = int.from_bytes(sha256(_ID_DOMAIN + raw).digest()[:4], "little") or 1
        """Its name, 32 bits; never 0, which stands for none."""
        self._cipher: AESGCM = AESGCM(raw)
        self._buffer = bytearray()

    def encrypt(self, payload: bytes | memoryview, bound: bytes) -> memoryview:
        """Give nonce, ciphertext and tag; they stay as they are until the next call.

        Args:
            payload: what to hide.
            bound: what must stand with it, unhidden.
        """
        size = len(payload) + OVERHEAD_BYTES
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        whole = memoryview(self._buffer)[:size]
        nonce = os.urandom(NONCE_BYTES)
        whole[:NONCE_BYTES] = nonce
        self._cipher.encrypt_into(nonce, payload, bound, whole[NONCE_BYTES:])
        return whole

    def decrypt(self, stored: bytes | memoryview, bound: bytes) -> bytes:
        """Give the payload.

        Raises:
            AlteredError: it is not what was encrypted.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        view = memoryview(stored)
        try:
            return self._cipher.decrypt(bytes(view[:NONCE_BYTES]), view[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError) as error:
            raise AlteredError from error


class JournalKeys:
    """The keys of files; read again when one is asked for that was not there."""

    def __init__(self, *paths: Path) -> None:
        """Take the files, the one that is to be first: a writer that goes by an earlier configuration has them in another."""
        self._paths = paths
        self._keys: dict[int, JournalKey] = {}

    def key(self, identity: int) -> JournalKey:
        """Give a key by its id.

        Raises:
            UnknownKeyError: it is not there.
            StateDirectoryError: a file cannot be read.
        """
        if identity not in self._keys:
            self._keys |= {key.id: key for path in self._paths for key in read_keys(path)}
        if identity not in self._keys:
            raise UnknownKeyError(identity)
        return self._keys[identity]

    def newest(self) -> JournalKey | None:
        """Give the key that is used now; None when there is none.

        Raises:
            StateDirectoryError: the file cannot be read.
        """
        found = next(filter(None, map(read_keys, self._paths)), None)
        return self._keys.setdefault(found[-1].id, found[-1]) if found else None


def read_keys(path: Path) -> list[JournalKey]:
    """Give the keys in a file, the newest last; none when it is missing. Lines that are no key are passed over.

    Raises:
        StateDirectoryError: it cannot be read.
    """
    with on_disk("read the journal's keys", path):
        try:
            lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
    keys = []
    for line in lines:
        try:
            boot, raw = line.split()
            keys.append(JournalKey(UUID(boot), bytes.fromhex(raw)))
        except ValueError:
            continue
    return keys


def renew(path: Path, other: Path, *, boot: UUID, group: int | None) -> JournalKey:
    """See to it that there is a key of this start of the host, and give it.

    Args:
        path: where the keys are to be.
        other: where they may be from before the configuration changed: they are taken over, and the file is removed.
        boot: this start of the host.
        group: group that may read: the recorder's.

    Raises:
        StateDirectoryError: a file cannot be read, written or removed.
    """
    keys = [*read_keys(other), *read_keys(path)]
    if not keys or keys[-1].boot != boot:
        keys.append(JournalKey(boot, os.urandom(KEY_BYTES)))
    _write(path, keys[-KEYS_KEPT:], group)
    with on_disk("remove", other):
        other.unlink(missing_ok=True)
    return keys[-1]


def _write(path: Path, keys: Sequence[JournalKey], group: int | None) -> None:
    text = "".join(f"{key.boot} {key.raw.hex()}\n" for key in keys)
    with on_disk("write the journal's keys", path):
        replace_content(path, text.encode("ascii"), mode=KEY_MODE, group=group)
