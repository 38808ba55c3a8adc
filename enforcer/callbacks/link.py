"""Signed links: what a person may say once, to one request, until a time.

What lives here: their form and their signature. What must not: whether one was used (the store of approvals knows), HTTP.

A link is `payload.signature`, both in base64url (RFC 4648 section 5, no padding). The payload is a msgpack list, the signature
HMAC-SHA-256 (RFC 2104) over a word that says what is signed, and the payload. The key never leaves the desk.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import astuple, dataclass
from enum import StrEnum
from hashlib import sha256
from typing import ClassVar, Final

import msgpack

from capd.recording.errors import CapdError, ExitStatus

VERSION: Final = 1
KEY_BYTES: Final = 32
TOKEN_CHARACTERS_MAX: Final = 1_024
"""The names in it are bounded by the configuration; what is longer is none of ours."""
ID_LETTERS: Final = 16
"""Of a link's id, in hexadecimal: it is for records, and gives no right."""
_LINK: Final = b"capd-link-1\n"
_CONFIRM: Final = b"capd-confirm-1\n"


class Says(StrEnum):
    """What a link says."""

    APPROVE = "approve"
    DENY = "deny"


class LinkForgedError(CapdError):
    """A link was not made by this capd, or was changed."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "use the link as it was sent; `capd approvals` lists what waits"

    def __init__(self) -> None:
        super().__init__("this link was not made by this capd, or was changed on its way")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one link is good for.

    Attributes:
        request: id of the request.
        action: fingerprint of what is asked.
        says: what.
        webhook: through which it was sent, by name.
        approver: name of the user for whom it speaks; "": of whoever the chat tool says pressed the button.
        until_s: until when, wall time in seconds since 1970.
    """

    request: str
    action: bytes
    says: Says
    webhook: str
    approver: str
    until_s: int

    @property
    def id(self) -> str:
        """Give what records call it."""
        return sha256(_payload(self)).hexdigest()[:ID_LETTERS]


def token(key: bytes, link: Link) -> str:
    """Give a link in the form in which it is sent."""
    payload = _payload(link)
    return f"{_text(payload)}.{_text(_mac(key, _LINK, payload))}"


def read_token(key: bytes, text: str) -> Link:
    """Read a link.

    Raises:
        LinkForgedError: it was not made with this key, or is not exactly what was made.
    """
    payload_text, _, signature_text = text.partition(".")
    payload, signature = _bytes(payload_text), _bytes(signature_text)
    genuine = hmac.compare_digest(_mac(key, _LINK, payload), signature)
    if not genuine or len(text) > TOKEN_CHARACTERS_MAX or text != f"{_text(payload)}.{_text(signature)}":
        raise LinkForgedError
    version, request, action, says, webhook, approver, until_s = msgpack.unpackb(payload)
    if version != VERSION:
        raise LinkForgedError
    return Link(request=request, action=action, says=Says(says), webhook=webhook, approver=approver, until_s=until_s)


def confirmation(key: bytes, link: Link) -> str:
    """Give what the page of a link has in its form: who did not see the page does not know it."""
    return _text(_mac(key, _CONFIRM, _payload(link)))


def confirms(key: bytes, link: Link, given: str) -> bool:
    """Say whether somebody saw the page of a link."""
    return hmac.compare_digest(confirmation(key, link).encode(), given.encode("utf-8", "replace"))


def _payload(link: Link) -> bytes:
    packed: bytes = msgpack.packb([VERSION, *astuple(link)])
    return packed


def _mac(key: bytes, what: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, what + payload, "sha256")


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    """Decode; what is no base64url becomes something that no signature fits."""
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return b""
