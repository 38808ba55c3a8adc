"""Messages of SCRAM, read and written (RFC 5802 7).

What lives here: attributes, the header of channel binding. What must not: keys, whose turn it is.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sign_in.channel import END_POINT
from capd.enforcer.sign_in.errors import SignInError

MECHANISM: Final = "SCRAM-SHA-256"
MECHANISM_PLUS: Final = "SCRAM-SHA-256-PLUS"
MESSAGE_BYTES_MAX: Final = 4_096
"""Servers' have some hundred."""
NONCE_BYTES_MAX: Final = 1_024
NONCE_BYTES: Final = 18
"""Of chance; as many as PostgreSQL has."""
NOT_SUPPORTED: Final = "n,,"
"""The client cannot bind, or has nothing to bind to."""
NOT_OFFERED: Final = "y,,"
"""The client could, and the server did not offer it: a server that did knows that somebody took it away."""
BOUND: Final = f"p={END_POINT},,"
_NONCE: Final = re.compile(r"[!-+\--~]+")
"""Printable ASCII without a comma."""
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a client says of channel binding, and proves.

    Attributes:
        header: NOT_SUPPORTED, NOT_OFFERED or BOUND.
        data: of BOUND: what is bound to.
    """

    header: str
    data: bytes = b""

    @property
    def proven(self) -> str:
        """What stands in the client's last message."""
        return base64.b64encode(self.header.encode("ascii") + self.data).decode("ascii")


def attributes(message: bytes | str, names: str) -> list[str]:
    """Read a message that begins with some attributes in their order; what stands behind them is left.

    Args:
        message: the message.
        names: one letter of each.

    Returns:
        Their values.

    Raises:
        SignInError: it is another message.
    """
    text = message if isinstance(message, str) else _text(message)
    parts = text.split(",")
    if len(parts) < len(names) or any(not part.startswith(f"{name}=") for part, name in zip(parts, names, strict=False)):
        raise SignInError("what the other side says is no SCRAM")
    return [part[2:] for part in parts[: len(names)]]


def _text(message: bytes) -> str:
    if len(message) > MESSAGE_BYTES_MAX:
        raise SignInError(f"a message of SCRAM has more than {MESSAGE_BYTES_MAX} bytes")
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise SignInError("what the other side says is no SCRAM") from None


def nonce_of(text: str) -> str:
    """Check a nonce."""
    if len(text) > NONCE_BYTES_MAX or _NONCE.fullmatch(text) is None:
        raise SignInError("the other side's nonce is none")
    return text


def number_of(text: str) -> int:
    """Read a number of rounds."""
    if _NUMBER.fullmatch(text) is None:
        raise SignInError("the other side's number of rounds is none")
    return int(text)


def binary(text: str) -> bytes:
    """Read base64 (RFC 4648 4), with nothing else in it."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignInError("what the other side says is no base64") from None


def encoded(data: bytes) -> str:
    """Give base64."""
    return base64.b64encode(data).decode("ascii")


def escaped(name: str) -> str:
    """Give a name as it stands in a message."""
    return name.replace("=", "=3D").replace(",", "=2C")


def joined(parts: Sequence[str]) -> bytes:
    """Give what keys are applied to: the three messages before the last, without the header of the first."""
    return ",".join(parts).encode("utf-8")
