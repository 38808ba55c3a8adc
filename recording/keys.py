"""The host's key: signs what a host recorded, and lets anybody check it who has the public half.

What lives here: making, keeping, naming and rotating the Ed25519 key, checking signatures. What must not: what is signed.

A key is named by the first half of the SHA-256 of its public bytes. A new key is signed by the one before it, so that whoever
trusts the first key of a host trusts them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.recording.durable import DIRECTORY_MODE, open_regular, replace_content
from capd.recording.errors import HostKeyError, NotReadableError, on_disk
from capd.recording.segment.trailer import KEY_ID_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE_FILE: Final = "host.key"
PUBLIC_SUFFIX: Final = ".pub"
PRIVATE_MODE: Final = 0o640
PUBLIC_MODE: Final = 0o644
KEY_FILE_BYTES_MAX: Final = 16 << 10
SUCCESSION_DOMAIN: Final = b"capd key succession 1\0"
_SUCCESSOR_OF: Final = "Successor-Of: "
_SIGNED: Final = "Signed: "
"""Lines before the PEM block, where readers of PEM pass over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """The public half of a host's key, and who vouches for it.

    Attributes:
        raw: its 32 bytes.
        predecessor: id of the key before it; empty for a host's first.
        signature: of `succession_message` by the predecessor; empty for a host's first.
    """

    raw: bytes
    predecessor: bytes = b""
    signature: bytes = b""

    @property
    def id(self) -> bytes:
        """Its name: KEY_ID_BYTES."""
        return key_id(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether it made a signature."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only who verifies needs it

        try:
            _public(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_text(self) -> bytes:
        """Give the file: the lines of a succession, if there is one, then PEM as OpenSSL writes it."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only the daemon writes keys

        pem = _public(self.raw).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        if not self.predecessor:
            return pem
        return f"{_SUCCESSOR_OF}{self.predecessor.hex()}\n{_SIGNED}{self.signature.hex()}\n".encode() + pem

    @classmethod
    def from_text(cls, data: bytes, source: str) -> PublicKey:
        """Read such a file.

        Raises:
            HostKeyError: it is none.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

        try:
            found = serialization.load_pem_public_key(data)
            told = dict[str, bytes]()
            for line in data.decode("ascii").partition("-----BEGIN")[0].splitlines():
                for start in (_SUCCESSOR_OF, _SIGNED):
                    if line.startswith(start):
                        told[start] = bytes.fromhex(line.removeprefix(start))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise HostKeyError(source, "it is no public key") from error
        if not isinstance(found, Ed25519PublicKey):
            raise HostKeyError(source, "it is no Ed25519 key")
        return cls(raw=found.public_bytes_raw(), predecessor=told.get(_SUCCESSOR_OF, b""), signature=told.get(_SIGNED, b""))


class HostKey:
    """The private half."""

    def __init__(self, private: Ed25519PrivateKey, public: PublicKey) -> None:
        self._private = private
        self.public = public

    @property
    def key_id(self) -> bytes:
        """Its name."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """Give the Ed25519 signature of a message."""
        return self._private.sign(message)

    @classmethod
    def new(cls, host: UUID | None = None, predecessor: HostKey | None = None) -> HostKey:
        """Make a key: a host's first, for which nobody vouches, or one that follows another and is signed by it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes_raw()
        if host is None or predecessor is None:
            return cls(private, PublicKey(raw=raw))
        signature = predecessor.sign(succession_message(host, predecessor.key_id, raw))
        return cls(private, PublicKey(raw=raw, predecessor=predecessor.key_id, signature=signature))

    def save(self, directory: Path, *, group: int | None = None) -> None:
        """Write both halves; the public one first, so that no signature is ever seen before its key.

        Args:
            directory: made if it is missing (0750).
            group: group that may read the private half: the recorder's.

        Raises:
            StateDirectoryError: they cannot be written.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with on_disk("write the host's key to", directory):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            replace_content(directory / public_name(self.key_id), self.public.to_text(), mode=PUBLIC_MODE)
            replace_content(directory / PRIVATE_FILE, pem, mode=PRIVATE_MODE, group=group)

    @classmethod
    def load(cls, directory: Path) -> HostKey:
        """Read both halves.

        Raises:
            HostKeyError: they are missing or not keys.
            StateDirectoryError: they cannot be read.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

        path = directory / PRIVATE_FILE
        try:
            private = serialization.load_pem_private_key(_content(path), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise HostKeyError(str(path), "it is no private key") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise HostKeyError(str(path), "it is no Ed25519 key")
        raw = private.public_key().public_bytes_raw()
        path = directory / public_name(key_id(raw))
        public = PublicKey.from_text(_content(path), str(path))
        if public.raw != raw:
            raise HostKeyError(str(path), "it is another key than its name says")
        return cls(private, public)


def key_id(raw: bytes) -> bytes:
    """Give the name of a public key."""
    return sha256(raw).digest()[:KEY_ID_BYTES]


def public_name(identity: bytes) -> str:
    """Give the file name of a public key."""
    return f"{identity.hex()}{PUBLIC_SUFFIX}"


def succession_message(host: UUID, predecessor: bytes, raw: bytes) -> bytes:
    """Give what the old key signs of a new one."""
    return SUCCESSION_DOMAIN + host.bytes + predecessor + raw


def ensure(directory: Path, *, group: int | None = None) -> HostKey:
    """Give this host's key; the first start makes it.

    Raises:
        HostKeyError: there is one, and it is damaged: it is not replaced, because what it signed would become unknown.
        StateDirectoryError: it cannot be read or written.
    """
    path = directory / PRIVATE_FILE
    if not path.exists():
        HostKey.new().save(directory, group=group)
    elif group is not None:
        with on_disk("give the host's key to the recorder's group", path):
            os.chown(path, -1, group)
    return HostKey.load(directory)


def rotate(directory: Path, host: UUID) -> bytes:
    """Make the key that follows this host's present one, and give its id. Old public keys stay: old segments need them.

    Raises:
        HostKeyError: there is no usable key to sign the new one with.
        StateDirectoryError: it cannot be read or written.
    """
    with on_disk("read the host's key", directory / PRIVATE_FILE):
        group = (directory / PRIVATE_FILE).stat().st_gid
    following = HostKey.new(host, HostKey.load(directory))
    following.save(directory, group=group)
    return following.key_id


def present(directory: Path) -> bytes | None:
    """Give the id of the key that signs now; None to who may not see it.

    Raises:
        HostKeyError: there is none.
        StateDirectoryError: it cannot be read.
    """
    try:
        return HostKey.load(directory).key_id
    except NotReadableError:
        return None


def public_keys(directory: Path) -> list[PublicKey]:
    """Give the public keys in a directory.

    Raises:
        HostKeyError: a file is none.
        StateDirectoryError: one cannot be read.
    """
    with on_disk("read", directory):
        paths = sorted(path for path in directory.iterdir() if path.suffix == PUBLIC_SUFFIX)
    return [read_public(path) for path in paths]


def succession(keys: Iterable[PublicKey]) -> list[PublicKey]:
    """Put keys in the order in which they followed each other, as they say themselves."""
    waiting = {key.id: key for key in keys}
    ordered: list[PublicKey] = []
    done: set[bytes] = set()
    while waiting:
        ready = [key for key in waiting.values() if key.predecessor in done or key.predecessor not in waiting]
        for key in ready or list(waiting.values()):
            ordered.append(waiting.pop(key.id))
            done.add(key.id)
    return ordered


def trusted(keys: Iterable[PublicKey], host: UUID, roots: Iterable[bytes]) -> dict[bytes, PublicKey]:
    """Give the keys that a host's trusted ones lead to: they and all that they vouch for, by id.

    Args:
        keys: all that were found.
        host: whose they are said to be.
        roots: ids of those that are trusted for themselves.
    """
    known = {key.id: key for key in keys}
    good = {root: known[root] for root in roots if root in known}
    waiting = [key for key in known.values() if key.predecessor]
    while True:
        vouched = [
            key
            for key in waiting
            if key.id not in good
            and key.predecessor in good
            and good[key.predecessor].verifies(key.signature, succession_message(host, key.predecessor, key.raw))
        ]
        if not vouched:
            return good
        good |= {key.id: key for key in vouched}


def read_public(path: Path) -> PublicKey:
    """Read the file of a public key.

    Raises:
        HostKeyError: it is missing, or none.
        StateDirectoryError: it cannot be read.
    """
    return PublicKey.from_text(_content(path), str(path))


def _public(raw: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    return Ed25519PublicKey.from_public_bytes(raw)


def _content(path: Path) -> bytes:
    with on_disk("read the host's key", path):
        try:
            descriptor = open_regular(path)
        except FileNotFoundError as error:
            raise HostKeyError(str(path), "it is not there") from error
        try:
            return os.read(descriptor, KEY_FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
