"""Looking for everything that can be recognised in plain bytes, as they arrive.

What lives here: what has been judged, what waits for more bytes, what goes on being masked. What must not: protocols.

However the bytes are cut, the same places are found: an opening is only judged when so many bytes are behind it that more could
not change it, or when none will come. What waits is bounded by the longest opening; a run that has begun waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from capd.enforcer.masking.identifiers import valid
from capd.enforcer.masking.opening import LOOKAHEADS, OPENING_BYTES_MAX, PEM_BYTES_MAX, PEM_END, QUOTES, RUNS, Opening, Run
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Lookup, Rules

PIECE_BYTES: Final = 65_536
WINDOW_BYTES: Final = 1_024
"""Of pieces in which the prefilter finds something, only the windows in which it does so again are looked at closely."""
BEFORE_BYTES: Final = 16
"""Judged bytes that are kept, because openings look at what is before them."""
_AFTER_GAP: Final = RUNS[Run.BASE64]
TAIL_BYTES_MAX: Final = 64
"""A token, number or name that is cut off is not recognised yet for as many bytes at most."""
CUT_OFF: Final = "cut off"
BEHIND_GAP: Final = "behind bytes that are not kept"


@dataclass(slots=True)
class Going:
    """A run that has begun.

    Attributes:
        run: what it consists of.
        kind, rule: as in `Place`.
        left: for key blocks: bytes until the end is given up.
    """

    run: Run
    kind: str
    rule: str
    left: int = 0


class Scanner:
    """One stream of bytes."""

    __slots__ = ("_before", "_going", "_pending", "_rules", "_torn", "decided")

    def __init__(self, rules: Rules, position: int = 0) -> None:
        self._rules = rules
        self.decided = position
        """Everything before is judged."""
        self._before = b""
        self._pending = b""
        self._going: Going | None = None
        self._torn = 0

    @property
    def waiting(self) -> int:
        """How many bytes wait to be judged."""
        return len(self._pending)

    @property
    def open(self) -> bool:
        """Whether what comes next may be the rest of what came."""
        return bool(self._pending or self._torn) or self._going is not None

    def feed(self, data: bytes, *, final: bool = False) -> list[Place]:
        """Take the next bytes; give the places that are decided now, by their offsets in the stream.

        Args:
            data: the bytes.
            final: whether nothing follows them that belongs to them: the end of a message or of the stream.
        """
        places = self._feed(data, final=final)
        if final:
            self._before, self._going = b"", None
        return places

    def _feed(self, data: bytes, *, final: bool) -> list[Place]:
        buffer = self._before + self._pending + data if self._before or self._pending else data
        base = self.decided - len(self._before)
        at = len(self._before)
        places: list[Place] = []
        if self._torn and at < len(buffer):
            at = self._mend(buffer, at, base, places)
        at = self._scan(buffer, at, base, places, final=final)
        self._before = buffer[max(0, at - BEFORE_BYTES) : at]
        self._pending = buffer[at:]
        self.decided = base + at
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        going = self._going
        run = None if going is None else [going.run.name, going.kind, going.rule, going.left]
        return [self.decided, self._before, self._pending, run, self._torn]

    @classmethod
    def hiding(cls, rules: Rules, position: int) -> Scanner:
        """Give a scanner that masks all that comes, until it is told that nothing follows."""
        scanner = cls(rules, position)
        scanner._going = Going(Run.ALL, "undecided", CUT_OFF)
        return scanner

    @classmethod
    def restored(cls, rules: Rules, saved: Sequence[object]) -> Scanner:
        """Give a scanner as it was saved."""
        decided, before, pending, run, torn = cast("tuple[int, bytes, bytes, list[object] | None, int]", tuple(saved))
        scanner = cls(rules, decided)
        scanner._before, scanner._pending, scanner._torn = before, pending, torn
        if run is not None:
            scanner._going = Going(Run[str(run[0])], str(run[1]), str(run[2]), cast("int", run[3]))
        return scanner

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing here: what waited is judged without them, and masked if it may have been a part of something."""
        places = self.cut()
        self.decided += length
        self._before = b""
        self._torn = OPENING_BYTES_MAX
        return places

    def cut(self) -> list[Place]:
        """Judge what waits now: mask it where it may be the beginning of something, and with it what comes behind it."""
        waited, pending, going = self.decided, self._pending, self._going
        places = self._feed(b"", final=True)
        self._going = going or self._going
        if pending:
            # What is whole was judged; a beginning of something, which is not, is short but for an address, and for an element
            # whose end was not seen.
            address = max(pending.rfind(b"://"), pending.rfind(b":\\/"), pending.lower().rfind(b"%3a%2f%2f"))
            tail = max(0, len(pending) - TAIL_BYTES_MAX)
            first = tail + self._rules.head(pending[tail:])
            if address >= 0 and not pending[address:].split(None, 1)[1:]:
                first = min(first, address)
            element = pending.rfind(b">") + 1
            if element and b"<" not in pending[element:]:
                first = min(first, element)
            first = 0 if going is not None else first
            if going is None and (first < len(pending) or self._going is not None):
                self._torn = OPENING_BYTES_MAX  # with what follows, what began may be something else
            places.append(Place(waited + first, waited + len(pending), "undecided", CUT_OFF))
        return places

    def _mend(self, buffer: bytes, at: int, base: int, places: list[Place]) -> int:
        """Mask what may be the rest of something whose beginning was lost: a name, perhaps, with its value behind the gap."""
        left, self._torn = self._torn, 0
        end = min(at + left, len(buffer))
        self._torn = left - (end - at)
        if not self._torn:
            # What begins within that length may go on behind it.
            end = _AFTER_GAP.match(buffer, end).end()  # type: ignore[union-attr]  # it always matches
        if end > at:
            places.append(Place(base + at, base + end, "undecided", BEHIND_GAP))
        return end

    def _scan(self, buffer: bytes, at: int, base: int, places: list[Place], *, final: bool) -> int:
        """Judge the buffer from an index on; give the index up to which it is judged."""
        if self._going is None and len(buffer) - at <= PIECE_BYTES and not self._rules.may_hold(buffer):
            sure = max(at, len(buffer) - OPENING_BYTES_MAX)
            return len(buffer) if final else sure + self._rules.head(buffer[sure:])
        search = Search(self._rules, buffer, at, final=final)
        while at < len(buffer):
            if self._going is not None:
                at, more = self._go_on(self._going, buffer, at, base, places, final=final)
                if more:
                    return at
                continue
            found = search.next(at)
            if isinstance(found, int):
                return found
            start, end = found.start, found.end
            start = end if found.opening.after else start
            if end > start:
                places.append(Place(base + start, base + end, found.opening.kind, found.rule))
            at = end
            if found.run is not Run.NOTHING:
                self._going = Going(found.run, found.opening.kind, found.rule, PEM_BYTES_MAX)
        return at

    def _go_on(self, going: Going, buffer: bytes, at: int, base: int, places: list[Place], *, final: bool) -> tuple[int, bool]:
        """Mask what belongs to a run; give where it ends, and whether only more bytes will tell how it goes on."""
        end, over = _pem(going, buffer, at, final=final) if going.run is Run.PEM else _plain(going, buffer, at, final=final)
        if end > at:
            places.append(Place(base + at, base + end, going.kind, going.rule))
        if over:
            self._going = None
        return end, not over


def _plain(going: Going, buffer: bytes, at: int, *, final: bool) -> tuple[int, bool]:
    """Give where a run ends, and whether it is over there."""
    end = RUNS[going.run].match(buffer, at).end()  # type: ignore[union-attr]  # it always matches
    ahead = LOOKAHEADS.get(going.run, 0)
    if final or len(buffer) - end > ahead:
        return end, end < len(buffer)
    # Whether it ends here, and at which of the last bytes, may depend on those that follow.
    return max(at, min(end, len(buffer) - ahead)), False


def _pem(going: Going, buffer: bytes, at: int, *, final: bool) -> tuple[int, bool]:
    """The same for a key block, which ends at a line, or after so many bytes."""
    found = buffer.find(PEM_END, at, at + going.left + len(PEM_END))
    last = len(buffer) if final else max(at, len(buffer) - LOOKAHEADS[Run.PEM])
    end = found if found >= 0 else min(last, at + going.left)
    going.left -= end - at
    return end, found >= 0 or going.left <= 0


@dataclass(frozen=True, slots=True)
class Found:
    """An opening that was found, and how its value goes on."""

    opening: Opening
    start: int
    end: int
    rule: str
    run: Run


class Search:
    """The openings of one buffer, in order. Every byte is looked at a bounded number of times, however many there are."""

    __slots__ = (
        "_buffer",
        "_done",
        "_final",
        "_found",
        "_lookups",
        "_low",
        "_lower",
        "_rules",
        "_size",
        "_sure",
        "_window",
        "_windows",
    )

    def __init__(self, rules: Rules, buffer: bytes, at: int, *, final: bool) -> None:
        self._rules = rules
        self._buffer = buffer
        self._final = final
        self._size = len(buffer)
        self._sure = self._size if final else max(at, self._size - OPENING_BYTES_MAX)
        self._windows = self._hit(at)
        self._done = at
        self._lookups: list[Lookup] = []
        """What may be in the present window, and where each is next."""
        self._found: list[Found | None] = []
        self._low = 0
        self._window = self._lower = b""

    def next(self, at: int) -> Found | int:
        """Give the next opening from an index on; or up to where there is certainly none."""
        while self._windows:
            start, until = self._windows[0]
            if at >= until:
                self._windows.pop(0)
                continue
            found = self._search(max(start, at), until)
            if found is None:
                self._windows.pop(0)
                continue
            return found if found.start < self._sure else min(found.start, self._hold(at))
        return self._size if self._final else self._hold(at)

    def _hold(self, at: int) -> int:
        """Give where the bytes begin that could become an opening if more came."""
        sure = max(self._sure, at)
        return sure + self._rules.head(self._buffer[sure:])

    def _hit(self, at: int) -> list[tuple[int, int]]:
        """Give the windows in which there may be an opening: pieces at first, then windows of those that hit."""
        windows: list[tuple[int, int]] = []
        for piece in range(at, self._size, PIECE_BYTES):
            end = min(piece + PIECE_BYTES, self._size)
            if not self._may_hold(piece, end):
                continue
            if end - piece <= WINDOW_BYTES:
                windows.append((piece, end))
                continue
            starts = range(piece, end, WINDOW_BYTES)
            pairs = ((start, min(start + WINDOW_BYTES, end)) for start in starts)
            windows += [pair for pair in pairs if self._may_hold(*pair)]
        return windows

    def _may_hold(self, start: int, end: int) -> bool:
        return self._rules.may_hold(self._buffer[max(0, start - BEFORE_BYTES) : end + OPENING_BYTES_MAX])

    def _search(self, at: int, until: int) -> Found | None:
        """Give the first opening that begins in a window from an index on."""
        if self._done < until:
            self._done = until
            self._open_window(at, until)
        first: Found | None = None
        for number, lookup in enumerate(self._lookups):
            found = self._found[number]
            if found is not None and found.start < at:
                found = self._found[number] = self._find(lookup, at, until)
            if found is not None and (first is None or found.start < first.start):
                first = found
        return first

    def _open_window(self, at: int, until: int) -> None:
        low, end = max(0, at - BEFORE_BYTES), until + OPENING_BYTES_MAX
        window = self._window = self._buffer[low:end]
        self._low, self._lower = low, window.lower()
        self._lookups = [lookup for lookup in self._rules.lookups if lookup.worth_while(window, self._lower)]
        self._found = [self._find(lookup, at, until) for lookup in self._lookups]

    def _find(self, lookup: Lookup, at: int, until: int) -> Found | None:
        low = self._low
        if not lookup.named:
            opening, pattern = lookup.openings[0], lookup.patterns[0]
            end = min(until + OPENING_BYTES_MAX, self._size)
            while (found := pattern.search(self._buffer, at, end)) is not None and found.start() < until:
                if opening.kind != "identifier" or valid(opening.rule, found[0]):
                    return Found(opening, found.start(), found.end(), opening.rule, opening.run)
                at = found.start() + 1
            return None
        match = lookup.search(self._window if lookup.cased else self._lower, at - low, until - low)
        if match is None:
            return None
        opening, found = match
        groups = found.groupdict()
        quote = groups.get("q")
        several = Run.LIST if groups.get("l") else Run.FIELD if groups.get("b") else opening.run
        run = QUOTES.get(quote, Run.TWICE_ESCAPED_QUOTED) if quote else several
        return Found(opening, found.start() + low, found.end() + low, f"{opening.rule} {found['n'].decode().lower()}", run)
