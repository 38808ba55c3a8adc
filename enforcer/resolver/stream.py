"""One connection of DNS over TCP (RFC 7766): questions one behind the other, answers as they are ready.

What lives here: lengths, bounds, time-outs. What must not: whose the connection is, what is answered.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from capd.enforcer.resolver.core import HEADER_BYTES, QUERY_BYTES_MAX

IDLE_SECONDS_MAX: Final = 10.0
"""A connection that asks nothing for so long is closed (RFC 7766 section 6.2.3: of the order of seconds)."""
SEND_SECONDS_MAX: Final = 10.0
"""For taking an answer; above all waits of the lookups (service.UPSTREAM_SECONDS_MAX for each server)."""
PIPELINED_MAX: Final = 16
"""Questions of one connection at work; further ones are left in its socket (RFC 7766 section 6.2.1.1)."""
LENGTH: Final = struct.Struct(">H")


class Stream:
    """Serves one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[bytes], Awaitable[bytes | None]],
    ) -> None:
        """Take the connection, and what gives the answer to a question; None: there is none, and the connection is cut."""
        self._reader, self._writer, self._answer = reader, writer, answer
        self._room = asyncio.Semaphore(PIPELINED_MAX)
        self._well_formed = True

    async def serve(self) -> bool:
        """Answer until the client ends, is silent for too long, or says what is no question.

        Returns:
            False when it said that, by a length that no question has.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                while (wire := await self._next()) is not None:
                    await self._room.acquire()
                    tasks.create_task(self._answer_one(wire), name="resolver-stream")
        finally:
            await self._close()
        return self._well_formed

    async def _next(self) -> bytes | None:
        """Read a question; None: there is none any more."""
        try:
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if HEADER_BYTES <= length <= QUERY_BYTES_MAX:
                    return await self._reader.readexactly(length)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None
        self._well_formed = False
        self._writer.transport.abort()
        return None

    async def _answer_one(self, wire: bytes) -> None:
        try:
            answer = await self._answer(wire)
            if answer is None:
                self._writer.transport.abort()
            elif not self._writer.is_closing():
                self._writer.write(LENGTH.pack(len(answer)) + answer)
                async with asyncio.timeout(SEND_SECONDS_MAX):
                    await self._writer.drain()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        finally:
            self._room.release()

    async def _close(self) -> None:
        """Give what was sent some time to be taken, and no more."""
        self._writer.close()
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
