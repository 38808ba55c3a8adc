"""The listener of links and buttons: HTTP/1.1 on a socket, within limits that no client can stretch.

What lives here: connections, framing (h11's), limits. What must not: what is answered (enforcer/callbacks/site.py), who may
connect (callback_peers.py).

Each connection has one request: persons and Slack send few, and a reverse proxy opens another.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from asyncio.trsock import TransportSocket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import h11

from capd.enforcer.accepting import words_of
from capd.enforcer.callbacks import page
from capd.enforcer.callbacks.pace import Pace
from capd.enforcer.callbacks.site import Asked, Reply

CONNECTIONS_MAX: Final = 64
"""At a time; who comes above is hung up on."""
REQUEST_SECONDS_MAX: Final = 10.0
"""From connecting to the last byte of the request, TLS included; once more for the answer."""
SHUTDOWN_SECONDS_MAX: Final = 1.0
HEAD_BYTES_MAX: Final = 16 * 1024
BODY_BYTES_MAX: Final = 256 * 1024
"""Slack sends the whole message along, with each byte of its texts as up to twelve characters."""
PER_SECOND: Final = 20.0
BURST: Final = 60
"""Of requests of all: behind a reverse proxy all come from one address."""
_HEAD_CHUNK_BYTES: Final = 4 * 1024
"""h11 looks at its limit only where a head is not whole: read in pieces, it can exceed that by no more than one."""
_CHUNK_BYTES: Final = 64 * 1024

Answer = Callable[[Asked], Awaitable[Reply]]
Turn = Callable[[socket.socket], str]


class Listener:
    """Serves one listening socket within a loop."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None, answer: Answer, refusal: Turn) -> None:
        """Take what it works with.

        Args:
            listening: bound, and listening.
            tls: None: HTTP in clear, for a reverse proxy.
            answer: answers a request.
            refusal: says why a connection is turned away, "" when it is not.
        """
        self._listening, self._tls, self._answer, self._refusal = listening, tls, answer, refusal
        self._open = 0
        self._pace = Pace(PER_SECOND, BURST, time.monotonic())
        self.counts: Counter[str] = Counter()
        """`answered`, and what was refused before it was looked at, by why."""

    async def serve(self) -> None:
        """Serve until cancelled."""
        asyncio.get_running_loop().set_exception_handler(self._note)
        unix = self._listening.family == socket.AF_UNIX
        server = await (asyncio.start_unix_server if unix else asyncio.start_server)(
            self._connected,
            sock=self._listening,
            limit=HEAD_BYTES_MAX,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else REQUEST_SECONDS_MAX,
            ssl_shutdown_timeout=None if self._tls is None else SHUTDOWN_SECONDS_MAX,
        )
        async with server:
            await server.serve_forever()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count that nobody could be taken, which asyncio tries again a second later; tell of anything else as usual."""
        error = context.get("exception")
        if isinstance(error, OSError) and isinstance(context.get("socket"), socket.socket | TransportSocket):
            self.counts[words_of(error)] += 1
        else:
            loop.default_exception_handler(context)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            why = self._turned_away(writer)
            if why:
                self.counts[why] += 1
                return
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
                asked, reply = await self._reply(connection, reader, writer)
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                await self._send(connection, writer, reply, only_head=asked is not None and asked.method == "HEAD")
        except TimeoutError:
            self.counts["slow"] += 1
        except (OSError, h11.ProtocolError):
            self.counts["broken"] += 1
        except Exception:  # noqa: BLE001 - the boundary: a defect of ours costs one connection, and is counted
            self.counts["defect"] += 1
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(SHUTDOWN_SECONDS_MAX):
                    await writer.wait_closed()

    def _turned_away(self, writer: asyncio.StreamWriter) -> str:
        if self._open > CONNECTIONS_MAX:
            return "crowded"
        return "agent" if self._refusal(writer.get_extra_info("socket")) else ""

    async def _reply(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Asked | None, Reply]:
        try:
            asked = await _receive(connection, reader, writer)
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            return None, self._refuse("malformed", status, "This is no request")
        if asked is None:
            return None, self._refuse("large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large")
        if not self._pace.take(time.monotonic()):
            return asked, self._refuse("pace", HTTPStatus.TOO_MANY_REQUESTS, "Try again in a moment")
        self.counts["answered"] += 1
        return asked, await self._answer(asked)

    def _refuse(self, why: str, status: HTTPStatus, words: str) -> Reply:
        self.counts[why] += 1
        return Reply(status=status, body=page.told(status.phrase, words))

    async def _send(self, connection: h11.Connection, writer: asyncio.StreamWriter, reply: Reply, *, only_head: bool) -> None:
        body = reply.body.encode()
        fields = [*page.FIELDS, ("Content-Type", page.HTML), ("Content-Length", str(len(body))), ("Connection", "close")]
        if reply.allow:
            fields.append(("Allow", reply.allow))
        if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        head = h11.Response(status_code=reply.status.value, headers=fields, reason=reply.status.phrase.encode())
        events: list[h11.Event] = [head, *([] if only_head else [h11.Data(data=body)]), h11.EndOfMessage()]
        writer.write(b"".join(sent for event in events if (sent := connection.send(event))))
        await writer.drain()


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
    """Take one request; None: its body is too large.

    Raises:
        h11.RemoteProtocolError: it is none.
        OSError: the client left.
    """
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await reader.read(_HEAD_CHUNK_BYTES if request is None else _CHUNK_BYTES)
            if not data and request is None:
                raise ConnectionResetError
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                return None
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return _asked(request, bytes(body))
        else:
            raise ConnectionResetError


def _asked(request: h11.Request, body: bytes) -> Asked:
    fields: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return Asked(method=request.method.decode("latin-1"), target=request.target.decode("latin-1"), fields=fields, body=body)
