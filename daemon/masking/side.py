"""One direction of a recorded stream on its way through masking: what came, what is judged, which places are masked.

What lives here: the bytes that may still be needed, and looking at them where no decoder says what they are. What must not:
records, protocols.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import cast

from capd.enforcer.masking.place import Place, joined
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import CUT_OFF, Scanner

_Saved = tuple[list[tuple[int, bytes]], Sequence[object] | None, int, int, int, int, bool, list[tuple[int, int, str, str]]]


class Side:
    """One direction of one layer.

    Attributes:
        judged: everything before is judged.
        covered: everything before was told of by a message, or passed over by its decoder.
        raw: whether bytes are looked at as they come, without waiting for a message.
        places: what is masked, in order.
    """

    __slots__ = ("_parts", "_rules", "_scanned", "_scanner", "_sorted", "covered", "end", "judged", "places", "raw")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._parts: list[tuple[int, bytes | bytearray]] = []
        """Bytes that follow each other are one part; the first ones are not copied until more come."""
        self._scanner: Scanner | None = None
        self._scanned = 0
        self._sorted = True
        self.end = 0
        self.judged = 0
        self.covered = 0
        self.raw = False
        self.places: list[Place] = []

    @property
    def waiting(self) -> int:
        """Bytes that are not judged."""
        return self.end - self.judged

    def append(self, position: int, payload: bytes) -> None:
        """Take the bytes at a position, which is that behind the last ones, or behind bytes that are missing."""
        if not self._parts or position != self._parts[-1][0] + len(self._parts[-1][1]):
            if not self._parts and not self.waiting:
                self.judged = max(self.judged, position)
            self._parts.append((position, payload))
        else:
            begin, data = self._parts[-1]
            if not isinstance(data, bytearray):
                data = bytearray(data)
                self._parts[-1] = (begin, data)
            data += payload
        self.end = position + len(payload)

    def parts(self, start: int, end: int) -> list[tuple[int, bytes]]:
        """Give what is there of a span: positions and bytes."""
        found: list[tuple[int, bytes]] = []
        for position, data in self._parts:
            begin, until = max(start - position, 0), min(end - position, len(data))
            if begin < until:
                if begin == 0 and until == len(data) and isinstance(data, bytes):
                    found.append((position, data))
                else:
                    found.append((position + begin, bytes(memoryview(data)[begin:until])))
        return found

    def mask(self, places: Iterable[Place]) -> None:
        """Note places that are masked."""
        before = len(self.places)
        self.places += places
        self._sorted = self._sorted and len(self.places) == before

    def told(self, places: Iterable[Place], decided: int) -> None:
        """Note what a protocol's own mask found, which has judged everything up to a position."""
        self.mask(places)
        self.judged = max(self.judged, min(decided, self.end))

    def hide(self, end: int, kind: str, rule: str) -> None:
        """Mask everything that is not judged up to a position."""
        self.mask(Place(position, position + len(data), kind, rule) for position, data in self.parts(self.judged, end))
        self.judged = max(self.judged, end)

    def scan(self, end: int, *, final: bool) -> None:
        """Look at what is not judged up to a position as it is; without `final` it goes on with what comes behind it."""
        for position, data in self.parts(max(self.judged, self._scanned if self._scanner else 0), end):
            scanner = self._scanner
            if scanner is None:
                scanner = self._scanner = Scanner(self._rules, position)
            elif position > self._scanned:
                self.mask(scanner.gap(position - self._scanned))
            self.mask(scanner.feed(data))
            self._scanned = position + len(data)
        if self._scanner is None:
            self.judged = max(self.judged, end)
            return
        if end < self._scanned:
            # What is behind it was looked at already, or is missing: all of it is judged now, with what is known.
            if self._scanner.waiting:
                self.mask(self._scanner.cut())
            self.judged = max(self.judged, self._scanner.decided)
            return
        if final:
            self.mask(self._scanner.feed(b"", final=True))
            self._scanner = None
            self.judged = max(self.judged, end)
        else:
            self.judged = max(self.judged, self._scanner.decided)

    def lose(self, length: int) -> None:
        """Bytes are missing behind what came: what is not judged is judged without them."""
        self.scan(self.end, final=False)
        scanner = self._scanner = self._scanner or Scanner(self._rules, self.end)
        self.mask(scanner.gap(length))
        self._scanned = self.end + length
        self.end += length
        self.judged = max(self.judged, self.end)

    def cut(self, *, rest_too: bool = False) -> None:
        """Judge everything now, as if bytes were missing behind it.

        Args:
            rest_too: whether what waits, and the rest of its message, is hidden: nobody can say what a part of it is.
        """
        if rest_too:
            self.hide(self.end, "undecided", CUT_OFF)
            self._scanner, self._scanned = Scanner.hiding(self._rules, self.end), self.end
            return
        self.scan(self.end, final=False)
        if self._scanner is not None:
            self.mask(self._scanner.cut())
            self.judged = max(self.judged, self._scanner.decided)

    def stop_scanning(self) -> None:
        """A message begins: what was looked at before has nothing to do with it, and what waits of that gets no rest."""
        if self._scanner is not None:
            self.mask(self._scanner.feed(b"", final=True))
        self._scanner = None

    def overlapping(self, start: int, end: int) -> list[Place]:
        """Give the places that are in a span, cut to it."""
        if not self.places:
            return []
        if not self._sorted:
            self.places = joined(self.places)
            self._sorted = True
        at = max(0, bisect_left(self.places, (start,)) - 1)
        found = []
        while at < len(self.places) and self.places[at].start < end:
            place = self.places[at]
            if place.end > start:
                found.append(place._replace(start=max(place.start, start), end=min(place.end, end)))
            at += 1
        return found

    def save(self) -> list[object]:
        """Give its state as plain values."""
        scanner = None if self._scanner is None else self._scanner.save()
        parts = [[position, bytes(data)] for position, data in self._parts]
        places = [list(place) for place in self.places]
        return [parts, scanner, self._scanned, self.end, self.judged, self.covered, self.raw, places]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        parts, scanner, *rest, raw, places = cast("_Saved", tuple(saved))
        self._parts = [(position, bytearray(data)) for position, data in parts]
        self._scanner = None if scanner is None else Scanner.restored(self._rules, scanner)
        self._scanned, self.end, self.judged, self.covered = rest
        self.raw = raw
        self.places, self._sorted = [Place(*place) for place in places], False

    @property
    def kept(self) -> int:
        """Bytes that are kept."""
        return sum(len(data) for _, data in self._parts)

    def forget(self, position: int) -> None:
        """Let go of everything before a position that is judged."""
        position = min(position, self.judged)
        if self._parts and self._parts[0][0] < position:
            self._parts = [*self.parts(position, self.end)]
        if self.places:
            self.places = [place for place in self.places if place.end > position]
