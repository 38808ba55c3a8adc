"""A proxy's side of the desk: wait for an answer, or leave.

What lives here: `Holds.hold`, and telling the desk of a policy. What must not: what is held, what follows from an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgpack

from capd.enforcer.approvals.hold import (
    LENGTH_BYTES,
    Answer,
    Hold,
    Outcome,
    hold_message,
    packed,
    read_answer,
)

CONNECT_SECONDS: Final = 5.0
"""The desk is started anew within two seconds; a client that comes in between should not be denied for it."""
CONNECT_AGAIN_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 5.0
"""Beyond the hold's own time: the desk has to answer."""
ANSWER_BYTES_MAX: Final = 65_536


class Holds:
    """Asks the desk. Of one event loop."""

    def __init__(self, path: Path) -> None:
        """Ask the desk that listens at `path`."""
        self._path = path
        self.stopping = False
        """Whether this process is about to end: then nobody left, and what waits goes on waiting."""

    async def hold(self, hold: Hold, waits: Callable[[str], None]) -> Answer:
        """Wait for the last answer. Cancelled, it tells the desk that the client left.

        A desk that is started anew meanwhile finds the same request again by its fingerprint.

        Args:
            hold: what waits.
            waits: is told the id of the request when a person is asked.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + hold.hold_seconds
        while True:
            left = max(int(until - loop.time()), 1)
            try:
                reader, writer = await self._connect()
            except (OSError, TimeoutError) as error:
                return Answer(outcome=Outcome.UNAVAILABLE, reason=f"the desk of approvals does not answer: {error}")
            try:
                async with asyncio.timeout(left + GRACE_SECONDS):
                    return await self._wait(reader, writer, replace(hold, hold_seconds=left), waits)
            except (OSError, EOFError):
                if loop.time() >= until:
                    return Answer(outcome=Outcome.UNAVAILABLE, reason="the desk of approvals went away")
                await asyncio.sleep(CONNECT_AGAIN_SECONDS)
            except (ValueError, KeyError, TypeError) as error:
                return Answer(outcome=Outcome.UNAVAILABLE, reason=f"the desk of approvals was not understood: {error}")

    async def _wait(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold: Hold, waits: Callable[[str], None]
    ) -> Answer:
        """Wait on one connection.

        Raises:
            OSError, EOFError: the desk went away, or (TimeoutError) did not answer.
        """
        try:
            writer.write(packed(hold_message(hold)))
            while (answer := await _answer(reader)).outcome is Outcome.WAITING:
                waits(answer.id)
            return answer
        except asyncio.CancelledError:
            # Beyond the time it is no client's doing; the desk forgets who does not listen.
            if not self.stopping:
                writer.write(packed({"verb": "leave"}))
            raise
        finally:
            writer.close()

    async def change_policy(self, version: str) -> bool:
        """Tell which policy is in force now; False: nobody was there to be told, and a hold of another version is told then."""
        try:
            _reader, writer = await self._connect()
        except (OSError, TimeoutError):
            return False
        writer.write(packed({"verb": "policy", "version": version}))
        writer.close()
        return True

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                try:
                    return await asyncio.open_unix_connection(str(self._path), limit=ANSWER_BYTES_MAX)
                except (FileNotFoundError, ConnectionRefusedError):
                    if self.stopping:  # so does the desk
                        raise
                    await asyncio.sleep(CONNECT_AGAIN_SECONDS)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > ANSWER_BYTES_MAX:
        raise ValueError(f"an answer of {length} bytes")
    return read_answer(msgpack.unpackb(await reader.readexactly(length)))
