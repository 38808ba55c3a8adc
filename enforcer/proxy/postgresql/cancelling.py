"""Keys to cancel with: a client gets one of capd's own, and nobody but its run can use it.

What lives here: from the server's key to the client's and back, and which sessions wait for a decision. What must not:
connections.

A CancelRequest comes on a connection of its own, to any worker. So nothing is looked up: the client's key is the server's, with
a mask over it that only the enforcer can make, for one run, one destination and one process of the server. From another run it
leads to a key that no session has. Workers share the secret; it is made anew at each start of the enforcer, whose end cuts all
sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import shake_256
from typing import Final

SECRET_BYTES: Final = 32
_PARTED: Final = b"\0"


class Cancels:
    """Of one worker."""

    def __init__(self, secret: bytes, elsewhere: Callable[[str, bytes, bytes], None] = lambda *_: None) -> None:
        """Take what all workers share, and what tells the others of a session that is none of this one's."""
        self._secret, self.elsewhere = secret, elsewhere
        self._held: dict[tuple[str, bytes, bytes], Callable[[], None]] = {}

    def masked(self, place: str, process: bytes, key: bytes) -> bytes:
        """Give the client's key for the server's, and the other way round.

        Args:
            place: run and destination.
            process: of the server, as BackendKeyData has it.
            key: as long as the server made it.
        """
        drawn = shake_256(b"capd cancel" + self._secret + process + place.encode() + _PARTED).digest(len(key))
        return bytes(one ^ other for one, other in zip(key, drawn, strict=True))

    def hold(self, place: str, process: bytes, key: bytes, wake: Callable[[], None]) -> None:
        """Remember a session that waits for a decision, by its client's key: the server has nothing to cancel then."""
        self._held[place, process, key] = wake

    def forget(self, place: str, process: bytes, key: bytes) -> None:
        """It does not wait any more."""
        self._held.pop((place, process, key), None)

    def interrupt(self, place: str, process: bytes, key: bytes) -> bool:
        """Tell a session of this worker that waits; say whether there was one."""
        wake = self._held.get((place, process, key))
        if wake is None:
            return False
        wake()
        return True
