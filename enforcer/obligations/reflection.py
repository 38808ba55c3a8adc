"""Secrets that come back: hidden in an answer before the agent gets it, as it arrives.

What lives here: looking for all forms of all secrets in a stream and in single texts. What must not: the forms (needle.py).

However a body is cut, the same bytes come out. What may be the beginning of a secret waits for more, and nothing else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from capd.enforcer.masking.place import FILLER
from capd.enforcer.obligations.needle import Needle, needles


class Reflection:
    """What must not come back in one answer, and how often it did."""

    def __init__(self, secrets: Mapping[str, tuple[str, ...]]) -> None:
        """Take secrets, by the name of their credential."""
        self._needles: list[tuple[str, Needle]] = [
            (name, needle) for name, values in secrets.items() for value in values for needle in needles(value)
        ]
        self.found: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._needles)

    def __repr__(self) -> str:
        return f"Reflection({len(self._needles)} forms)"

    def places(self, data: bytes, behind: int = 0) -> list[tuple[int, int]]:
        """Give where secrets are in some bytes; those that end behind an index are counted."""
        found: list[tuple[int, int]] = []
        for name, needle in self._needles:
            at = 0
            while (place := needle.find(data, at)) is not None:
                found.append(place)
                self.found[name] += place[1] > behind
                at = place[0] + 1
        return found

    def first_begun(self, data: bytes) -> int:
        """Give where the first secret begins that more bytes could make whole; without any the data's length."""
        return min((needle.first_begun(data) for _, needle in self._needles), default=len(data))

    def hidden(self, data: bytes) -> bytes:
        """Give a text that is whole with all secrets hidden."""
        shown = bytearray(data)
        for start, end in self.places(data):
            shown[start:end] = FILLER * (end - start)
        return bytes(shown)


class ReflectionFilter:
    """One body."""

    def __init__(self, reflection: Reflection) -> None:
        self._reflection = reflection
        self._pending = b""
        self._given = 0
        """Of what is pending, so many bytes were given, hidden: they may still begin another form of a secret."""

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Take the next bytes and give those that can go on, in all as many as came.

        Args:
            data: the bytes.
            final: whether they are the last.
        """
        before, buffer = len(self._pending), self._pending + data
        shown, given = bytearray(buffer), self._given
        places = sorted(self._reflection.places(buffer, before))
        for start, end in places:
            shown[start:end] = FILLER * (end - start)
        waits = len(buffer) if final else self._reflection.first_begun(buffer)
        upto = max(waits, given)
        for start, end in places:
            upto = end if start <= upto < end else upto
        self._pending, self._given = buffer[waits:], upto - waits
        return bytes(shown[given:upto])
