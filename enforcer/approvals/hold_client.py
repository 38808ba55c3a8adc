"""A proxy's side of the desk: wait for an answer, or leave.

What lives here: `Holds.hold`, and telling the desk of a policy. What must not: what is held, what follows from an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
"""The desk is started anew within two; a client that comes in between should not be denied for it."""
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

        Args:
            hold: what waits.
            waits: is told the id of the request when a person is asked.
        """
        deadline = hold.hold_seconds + GRACE_SECONDS
        try:
            reader, writer = await self._connect()
        except (OSError, TimeoutError) as error:
            return Answer(outcome=Outcome.UNAVAILABLE, reason=f"the desk of approvals does not answer: {error}")
        try:
            writer.write(packed(hold_message(hold)))
            async with asyncio.timeout(deadline):
                while True:
                    answer = await _answer(reader)
                    if answer.outcome is not Outcome.WAITING:
                        return answer
                    waits(answer.id)
        except asyncio.CancelledError:
            if not self.stopping:
                writer.write(packed({"verb": "leave"}))
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError, TimeoutError) as error:
            return Answer(outcome=Outcome.UNAVAILABLE, reason=f"the desk of approvals went away: {error}")
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
                    await asyncio.sleep(CONNECT_AGAIN_SECONDS)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > ANSWER_BYTES_MAX:
        raise ValueError(f"an answer of {length} bytes")
    return read_answer(msgpack.unpackb(await reader.readexactly(length)))
