"""HTTP/2 frames as bytes, for tables of what arrives.

What lives here: one function for each frame. What must not: expectations.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpack import Encoder

from capd.decoders.http2.frames import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, Type

Headers = Sequence[tuple[str, str]]
GET: Headers = ((":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "x.example"))
POST: Headers = ((":method", "POST"), (":scheme", "https"), (":path", "/b?q=1"), (":authority", "x.example"), ("cookie", "a=b"))
OK: Headers = ((":status", "200"), ("content-type", "text/plain"))


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """Give a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """Give a SETTINGS frame; names are `s` and a number."""
    pairs = (int(name[1:]).to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    return frame(Type.SETTINGS, b"".join(pairs))


SETTINGS = settings()
ACKED = frame(Type.SETTINGS, flags=ACK)
OPENING = PREFACE + SETTINGS


def data(stream: int, content: bytes, *, end: bool = False, padding: int | None = None) -> bytes:
    """Give a DATA frame."""
    flags = END_STREAM if end else 0
    if padding is None:
        return frame(Type.DATA, content, flags, stream)
    return frame(Type.DATA, bytes([padding]) + content + bytes(padding), flags | PADDED, stream)


def block(encoder: Encoder, fields: Headers, *, huffman: bool = True) -> bytes:
    """Give a header block."""
    return bytes(encoder.encode(list(fields), huffman=huffman))


def headers(stream: int, fields: bytes, *, end: bool = False, cut: int = 0) -> bytes:
    """Give a header block in a HEADERS frame, and in CONTINUATION frames of `cut` bytes each if that is given."""
    flags = END_STREAM if end else 0
    if not cut:
        return frame(Type.HEADERS, fields, flags | END_HEADERS, stream)
    parts = [fields[at : at + cut] for at in range(0, len(fields), cut)]
    first = frame(Type.HEADERS, parts[0], flags | (END_HEADERS if len(parts) == 1 else 0), stream)
    more = [
        frame(Type.CONTINUATION, part, END_HEADERS if at == len(parts) - 1 else 0, stream)
        for at, part in enumerate(parts[1:], start=1)
    ]
    return b"".join([first, *more])


def literal(*fields: tuple[str, str]) -> bytes:
    """Give a header block of plain literals, which touches no table (RFC 7541 section 6.2.2)."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def grpc(message: bytes, *, compressed: bool = False) -> bytes:
    """Give a message of gRPC with its prefix."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def reset(stream: int, code: int = 8) -> bytes:
    """Give a RST_STREAM frame."""
    return frame(Type.RST_STREAM, code.to_bytes(4, "big"), 0, stream)


def goaway(last: int, code: int = 0, words: bytes = b"") -> bytes:
    """Give a GOAWAY frame."""
    return frame(Type.GOAWAY, last.to_bytes(4, "big") + code.to_bytes(4, "big") + words)
