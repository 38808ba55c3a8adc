"""One message to one webhook: a POST over HTTP/1.1, and what came of it.

What lives here: dialling, framing (h11's), reading a status. What must not: when it is repeated, what is sent.

No redirection is followed: the address is the operator's, and what is sent goes there or nowhere.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

from capd.enforcer.callbacks.address import port_of

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of an answer; its body is not read."""
CHUNK_BYTES: Final = 64 * 1024
REPEATED: Final = frozenset({408, 425, 429})
"""Beside all from 500 on: the receiver asks for another try (RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4)."""
SERVER_ERROR: Final = 500
DIGITS_MAX: Final = 6


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a try.

    Attributes:
        error: why it failed, in words; "": the receiver took it.
        final: whether it is of no use to repeat it.
        pause_seconds: how long the receiver wants to be left alone; None: it does not say.
    """

    error: str = ""
    final: bool = False
    pause_seconds: float | None = None


async def post(url: str, tls: ssl.SSLContext, fields: Sequence[tuple[str, str]], body: bytes, *, seconds: float) -> Outcome:
    """Send a message.

    Args:
        url: where.
        tls: whom to trust, where it is https.
        fields: header fields beside Host and framing.
        body: the message.
        seconds: for all of it.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _post(url, tls, fields, body)
    except TimeoutError:
        return Outcome(error=f"no answer within {seconds:g} s")
    except ssl.SSLCertVerificationError as error:
        return Outcome(error=f"its certificate is not trusted: {error.verify_message}")
    except (OSError, h11.ProtocolError, UnicodeError) as error:
        return Outcome(error=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}")


async def _post(url: str, tls: ssl.SSLContext, fields: Sequence[tuple[str, str]], body: bytes) -> Outcome:
    parts = urlsplit(url)
    secured = parts.scheme == "https"
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    reader, writer = await asyncio.open_connection(
        parts.hostname, port_of(parts), ssl=tls if secured else None, limit=CHUNK_BYTES
    )
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        head = [("Host", parts.netloc), ("Content-Length", str(len(body))), ("Connection", "close"), *fields]
        events: list[h11.Event] = [
            h11.Request(method="POST", target=target, headers=head),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        writer.write(b"".join(sent for event in events if (sent := connection.send(event))))
        await writer.drain()
        return _judge(await _response(connection, reader))
    finally:
        writer.transport.abort()


async def _response(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("it hung up before it had answered")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            return event
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionResetError("it answered something else")


def _judge(response: h11.Response) -> Outcome:
    status = response.status_code
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 15.3
        return Outcome()
    asked = next((value for name, value in response.headers if name == b"retry-after"), b"").decode("latin-1")
    pause = float(asked) if asked.isdecimal() and asked.isascii() and len(asked) <= DIGITS_MAX else None
    final = status < SERVER_ERROR and status not in REPEATED
    return Outcome(error=f"it answered {status}", final=final, pause_seconds=pause)
