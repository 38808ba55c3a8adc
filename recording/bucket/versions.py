"""Creating an object once where the server would put a second version over it.

What lives here: the look before a creation and after it. What must not: requests themselves (signed.py).

Before: an object that is there already is found. After: of several who created at the same moment all but the first find an
older version than theirs, remove their own, and so the name keeps the first content. A version that default retention locks
cannot be removed: it stays, as a second one behind the same name, until its time is over.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from capd.recording.bucket.errors import BucketForbiddenError

if TYPE_CHECKING:
    from capd.recording.bucket.signed import SignedRequests


class VersionGuard:
    """Watches over one creation."""

    def __init__(self, requests: SignedRequests, key: str) -> None:
        """Take the key that is to be created."""
        self._requests, self._key = requests, key

    def taken(self) -> bool:
        """Tell whether the name is taken already.

        Raises:
            BucketError: it could not be asked.
        """
        return bool(self._requests.versions(self._key))

    def beaten(self, version: str) -> bool:
        """Tell whether somebody else was first, and then take the version back that was made.

        Raises:
            BucketError: it could not be asked.
        """
        versions = self._requests.versions(self._key)
        if not versions or versions[0] == version:
            return False
        with suppress(BucketForbiddenError):
            self._requests.delete_version(self._key, version)
        return True
