"""Which key of a host signed from which number on: one that another had followed by then says nothing any more.

What lives here: the order of keys, as what they signed shows it. What must not: signatures, which keys are trusted (keys.py).

A rotation is not dated: the old key signs that the new one follows it, and the recorder takes that at its next start. The first
segment that the new key signed dates it: nobody but an owner of a copy of the old key goes back to that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping

from capd.recording.keys import PublicKey


class KeyOrder:
    """Follows who signed what is numbered, in the order of its numbers."""

    def __init__(
        self, keys: Mapping[bytes, PublicKey], roots: Collection[bytes], what: str, *, seen: tuple[int, bytes] | None = None
    ) -> None:
        """Begin before the first.

        Args:
            keys: those that are trusted, by id.
            roots: ids of those that are trusted for themselves.
            what: is numbered, in words.
            seen: a number, and who had signed that, as a verifier remembers.
        """
        self._keys = keys
        self._roots = roots
        self._what = what
        self._seen = seen if seen is not None and seen[1] in keys else None
        self._since: list[tuple[int, bytes]] = []
        """From which number on which key signed."""

    def take(self, number: int, key: bytes) -> str | None:
        """Note who signed a number, which is not below those before; give what is wrong with that, in words."""
        if self._seen is not None and number > self._seen[0]:
            seen, self._seen = self._seen, None
            self.take(*seen)
        if self._since and key != self._since[-1][1]:
            first, before = self._since[-1]
            line = self._line(key)
            others = {self._line(one)[-1] for _, one in self._since}
            if before not in line and line[-1] in others:
                return self._words(key, first, before)
        if not self._since or key != self._since[-1][1]:
            self._since.append((number, key))
        return None

    def judge(self, number: int, key: bytes) -> str | None:
        """Give what is wrong with a key having signed something about a number, once all numbers were taken."""
        at = bisect_right(self._since, number, key=lambda since: since[0])
        if not at:
            return None
        first, present = self._since[at - 1]
        line = self._line(key)
        return None if present in line or line[-1] != self._line(present)[-1] else self._words(key, first, present)

    def _line(self, key: bytes) -> list[bytes]:
        """Give a key and those that it followed, down to the one that is trusted for itself."""
        line = [key]
        while line[-1] not in self._roots and (before := self._keys[line[-1]].predecessor) in self._keys and before not in line:
            line.append(before)
        return line

    def _words(self, key: bytes, first: int, present: bytes) -> str:
        return (
            f"signed with key {key.hex()}, although key {present.hex()} signed {self._what} {first} and was not followed by it"
        )
