"""The ClientHello: the name that a client asks for, the protocols and versions that it offers.

Sources: RFC 8446 4.1.2, RFC 6066 3, RFC 7301, RFC 9849. What lives here: one handshake message. What must not: state, keys.
With Encrypted Client Hello the name is the public one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.decoders.message import Direction, ProtocolError
from capd.decoders.tls.records import HEADER_BYTES, RECORD_BYTES_MAX, ContentType, is_client_hello

HELLO_BYTES_MAX: Final = 65_536
"""Longest ClientHello that is read; with post-quantum key shares and GREASE they are below 3 KiB."""

HELLO_RECORDS_MAX: Final = 256
"""Records that one is cut into; honest clients send one or two, and every look at an unfinished one walks over all."""

_HANDSHAKE_HEADER_BYTES: Final = 4
_RANDOM_BYTES: Final = 32
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43
_ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D
_HOST_NAME: Final = 0
_VERSIONS: Final = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client offers.

    Attributes:
        server_name: the name asked for, or None.
        alpn: application protocols, in the client's order.
        versions: versions offered, in the client's order; unknown ones and GREASE left out.
        encrypted: there is an Encrypted Client Hello, whose name may be another. Browsers also send one that means nothing
            (RFC 9849 6.2), which nobody but the server can tell apart.
    """

    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    encrypted: bool = False


class _CutError(Exception):
    """A length goes beyond its field."""


class _Reader:
    """A cursor over the fields of the message."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        """`length` bytes."""
        end = self.at + length
        if end > len(self.data):
            raise _CutError
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, length: int) -> int:
        """A big-endian number of `length` bytes."""
        return int.from_bytes(self.take(length), "big")

    def vector(self, length: int) -> _Reader:
        """A field that begins with its own length, which takes `length` bytes."""
        return _Reader(self.take(self.number(length)))

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self.data)


def hello_bytes(data: bytes) -> bytes | None:
    """Join the handshake message from the records that carry it.

    Returns:
        The body of the ClientHello, or None when more bytes are needed.

    Raises:
        ProtocolError: the bytes are no ClientHello; the offset is that in `data`.
    """
    if is_client_hello(data[: HEADER_BYTES + 1]) is False:
        raise ProtocolError(Direction.REQUEST, 0, "not a ClientHello")
    message = bytearray()
    at = records = 0
    while len(data) - at >= HEADER_BYTES:
        records += 1
        if records > HELLO_RECORDS_MAX:
            raise ProtocolError(Direction.REQUEST, at, f"ClientHello in more than {HELLO_RECORDS_MAX} records")
        length = int.from_bytes(data[at + 3 : at + HEADER_BYTES], "big")
        if data[at] != ContentType.HANDSHAKE or not 0 < length <= RECORD_BYTES_MAX:
            raise ProtocolError(Direction.REQUEST, at, "not a handshake record")
        at += HEADER_BYTES
        message += data[at : at + length]
        at += length
        if len(message) >= _HANDSHAKE_HEADER_BYTES:
            total = _HANDSHAKE_HEADER_BYTES + int.from_bytes(message[1:_HANDSHAKE_HEADER_BYTES], "big")
            if total > HELLO_BYTES_MAX:
                raise ProtocolError(Direction.REQUEST, at, "ClientHello too long")
            if len(message) >= total:
                return bytes(message[_HANDSHAKE_HEADER_BYTES:total])
    return None


def hello_wants(data: bytes) -> int:
    """Give how many bytes there must be before it is worth to look again at what begins like a ClientHello and is not whole."""
    at = 0
    while len(data) - at >= HEADER_BYTES:
        at += HEADER_BYTES + int.from_bytes(data[at + 3 : at + HEADER_BYTES], "big")
    return max(at, len(data) + 1)


def client_hello(data: bytes) -> ClientHello | None:
    """Read the ClientHello at the start of a direction.

    Args:
        data: bytes of the client from the begin of the TLS connection on.

    Returns:
        None when more bytes are needed.

    Raises:
        ProtocolError: the bytes are no ClientHello; the offset is that in `data`.
    """
    body = hello_bytes(data)
    if body is None:
        return None
    try:
        return _read(_Reader(body))
    except _CutError:
        raise ProtocolError(Direction.REQUEST, HEADER_BYTES, "a length in the ClientHello goes beyond its field") from None


def _read(hello: _Reader) -> ClientHello:
    legacy = hello.number(2)
    hello.take(_RANDOM_BYTES)
    hello.vector(1)
    hello.vector(2)
    hello.vector(1)
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = (legacy,)
    encrypted = False
    extensions = hello.vector(2) if hello.more else _Reader(b"")
    while extensions.more:
        kind = extensions.number(2)
        extension = extensions.vector(2)
        if kind == _SERVER_NAME and extension.more:
            server_name = _name(extension)
        elif kind == _ALPN:
            alpn = _protocols(extension.vector(2))
        elif kind == _SUPPORTED_VERSIONS:
            offered = extension.vector(1)
            versions = tuple(offered.number(2) for _ in range(len(offered.data) // 2))
        elif kind == _ENCRYPTED_CLIENT_HELLO:
            encrypted = True
    named = tuple(_VERSIONS[version] for version in versions if version in _VERSIONS)
    return ClientHello(server_name=server_name, alpn=alpn, versions=named, encrypted=encrypted)


def _name(extension: _Reader) -> str | None:
    names = extension.vector(2)
    while names.more:
        kind = names.number(1)
        name = names.vector(2).data
        if kind == _HOST_NAME:
            return name.decode("ascii", "backslashreplace")
    return None


def _protocols(offered: _Reader) -> tuple[str, ...]:
    protocols = []
    while offered.more:
        protocols.append(offered.vector(1).data.decode("ascii", "backslashreplace"))
    return tuple(protocols)
