"""Creating an object once where the server would put a second version over it.

What lives here: the look before a creation and after it. What must not: requests themselves (signed.py).

Before: an object that is there already is found. After: of several who created at the same moment all but the first find an
older version than theirs, remove their own, and so the name keeps the first content. Who is ended between the two leaves a copy
of the first version behind it: whoever looks at the name next removes that. A version that default retention locks cannot be
removed: it stays, as a second one behind the same name, until its time is over.
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
        """Tell whether the name is taken already; of its first version, copies that others left behind are removed.

        Raises:
            BucketError: it could not be asked.
        """
        versions = self._requests.versions(self._key)
        for later in versions[1:]:
            if later.content == versions[0].content:
                self._remove(later.name)
        return bool(versions)

    def beaten(self, version: str) -> bool:
        """Tell whether somebody else was first, and then take the version back that was made.

        Raises:
            BucketError: it could not be asked.
        """
        versions = self._requests.versions(self._key)
        if not versions or versions[0].name == version:
            return False
        self._remove(version)
        return True

    def _remove(self, version: str) -> None:
        with suppress(BucketForbiddenError):
            self._requests.delete_version(self._key, version)
