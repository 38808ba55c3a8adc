"""The proxy's side of the keeper: ask for one credential.

What lives here: `Values.value`. What must not: keeping values: each use asks, so that one that was
replaced is used at once.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgpack

from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.keeper import ANSWER_BYTES_MAX, LENGTH, framed
from capd.enforcer.credentials.secret import Secret

ANSWER_SECONDS_MAX: Final = 40.0
"""Beyond the longest that a program may take (30 s): below what clients of HTTP wait."""
AT_ONCE_MAX: Final = 16
"""Questions of one worker; what it asks beyond waits here, and not in a queue that may be full."""


class Values:
    """Asks the keeper that listens at a path. Of one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    async def value(self, name: str) -> Secret:
        """Give the value of a credential.

        Raises:
            CredentialError: it is not to be had.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                async with self._turns:
                    return await self._ask(name)
        except TimeoutError:
            raise CredentialError("the keeper of credentials does not answer") from None
        except (OSError, EOFError) as error:
            raise CredentialError(f"the keeper of credentials does not answer: {type(error).__name__}") from None
        except (ValueError, KeyError, TypeError, msgpack.UnpackException):
            # Whatever it said is not repeated: it may be a value.
            raise CredentialError("the keeper of credentials was not understood") from None

    async def _ask(self, name: str) -> Secret:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            writer.write(framed({"name": name}))
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if length > ANSWER_BYTES_MAX:
                raise ValueError(length)
            found = msgpack.unpackb(await reader.readexactly(length))
        finally:
            writer.close()
        if "value" not in found:
            raise CredentialError(str(found["problem"]), str(found["reason"]))
        return Secret(str(found["value"]))
