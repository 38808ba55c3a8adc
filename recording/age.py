"""Recipients and identities: who can read an encrypted recording.

What lives here: age X25519 recipients (public) and identities (private), wrapping and unwrapping of data keys. What must not:
segments' layout, where keys lie on a host. age's own file format is the key block, so that any age opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.recording.durable import open_regular
from capd.recording.errors import EncryptedError, IdentityFileError, RecipientError, WrongIdentityError, on_disk

if TYPE_CHECKING:
    from pyrage import x25519

    from capd.recording.segment.layout import FileHeader

RECIPIENT_START: Final = "age1"
IDENTITY_START: Final = "AGE-SECRET-KEY-1"
IDENTITY_FILE_BYTES_MAX: Final = 1 << 20
STANZA: Final = b"\n-> X25519 "
KEYS_REMEMBERED_MAX: Final = 4096


def check_recipient(text: str) -> str:
    """Give an age recipient as it is.

    Raises:
        RecipientError: it is none that capd can encrypt to.
    """
    _recipient(text)
    return text


def wrap(data_key: bytes, recipients: Sequence[str]) -> bytes:
    """Give an age file that holds a data key, for each of the recipients.

    Raises:
        RecipientError: one of them is no recipient.
    """
    from pyrage import encrypt  # noqa: PLC0415 - only who encrypts needs it

    return bytes(encrypt(data_key, [_recipient(recipient) for recipient in recipients]))


def recipients_of(key_block: bytes) -> int:
    """Count whom a key block is for. age does not say who they are: nobody who finds the file shall know."""
    return key_block.partition(b"\n---")[0].count(STANZA)


class Identities:
    """Private keys of readers. They open key blocks, each once."""

    def __init__(self, identities: Sequence[x25519.Identity], source: str) -> None:
        """Take identities; the source is named when none of them fits."""
        self._identities = list(identities)
        self._source = source
        self._known: dict[bytes, bytes] = {}

    @classmethod
    def load(cls, path: Path) -> Identities:
        """Read a file as `age-keygen` writes it: one identity a line, comments after `#`.

        Raises:
            IdentityFileError: there is none in it, or something else.
            StateDirectoryError: it cannot be read.
        """
        with on_disk("read the identity file", path):
            descriptor = open_regular(path)
            try:
                data = os.read(descriptor, IDENTITY_FILE_BYTES_MAX)
            finally:
                os.close(descriptor)
        try:
            lines = data.decode("ascii").splitlines()
        except UnicodeDecodeError as error:
            raise IdentityFileError(path, "it is no text") from error
        return cls([_identity(path, number, line.strip()) for number, line in _told(lines)] or _none(path), str(path))

    @property
    def source(self) -> str:
        """Where they are from."""
        return self._source

    def data_key(self, header: FileHeader) -> bytes:
        """Give the key of a segment's frames.

        Raises:
            WrongIdentityError: none of the identities opens its key block.
        """
        from pyrage import DecryptError, decrypt  # noqa: PLC0415 - only who decrypts needs it

        known = self._known.get(header.key_block)
        if known is None:
            try:
                known = decrypt(header.key_block, self._identities)
            except DecryptError as error:
                raise WrongIdentityError(
                    f"segment {header.sequence}", self._source, len(self._identities), recipients_of(header.key_block)
                ) from error
            if len(self._known) < KEYS_REMEMBERED_MAX:
                self._known[header.key_block] = known
        return known


class NoKeys:
    """Knows nothing: reads what is not encrypted."""

    def data_key(self, header: FileHeader) -> bytes:
        """Refuse.

        Raises:
            EncryptedError: always.
        """
        raise EncryptedError(f"segment {header.sequence}", recipients_of(header.key_block))


def _told(lines: Iterable[str]) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]


def _identity(path: Path, number: int, line: str) -> x25519.Identity:
    from pyrage import IdentityError, x25519  # noqa: PLC0415 - as above

    try:
        return x25519.Identity.from_str(line)
    except IdentityError as error:
        hint = "a recipient, which only encrypts" if line.startswith(RECIPIENT_START) else "no age X25519 identity"
        raise IdentityFileError(path, f"line {number} is {hint}") from error


def _none(path: Path) -> list[x25519.Identity]:
    raise IdentityFileError(path, f"there is no line that starts with {IDENTITY_START}")


def _recipient(text: str) -> x25519.Recipient:
    from pyrage import RecipientError as NoRecipientError  # noqa: PLC0415 - as above
    from pyrage import x25519  # noqa: PLC0415 - as above

    try:
        return x25519.Recipient.from_str(text)
    except NoRecipientError as error:
        raise RecipientError(text, secret=text.upper().startswith("AGE-SECRET-KEY-")) from error
