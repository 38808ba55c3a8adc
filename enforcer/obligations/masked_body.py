"""A body in which rules hide something, as it arrives: as text, as JSON, line by line, or event by event.

What lives here: what of it is decided and can go on, filling, counting. What must not: what is looked for (enforcer/masking),
heads (answer.py).

The filler has the length of what it hides, so no length has to be written anew. A number or a word of JSON is replaced by a
`null`, or a `0` where that has no room, and blanks: the text stays JSON. However a body is cut, the same comes out; what waits
is bounded by what masking looks at before it decides, and by the longest event.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from capd.enforcer.masking.json_path import JsonScanner
from capd.enforcer.masking.place import FILLER, Place, joined
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.obligations.obligation import CannotCarryOutError

EVENT_BYTES_MAX: Final = 1 << 20
"""Of one server-sent event, which is held until it is whole; models' are below a few KiB."""
NULL: Final = b"null"
WORD_BYTES_MAX: Final = 64
"""A longer number is hidden as text is, and what it stands in is no JSON any more; doubles have 24 characters."""
_WORD: Final = re.compile(rb"(?:-?[0-9][0-9.eE+-]{0,63}|true|false|null)(?=[\s\]},]|\Z)")
_BEFORE_WORD: Final = re.compile(rb"[^A-Za-z0-9.+-](?=[A-Za-z0-9.+-]*\Z)")
_LAST_WORD: Final = re.compile(rb"[A-Za-z0-9.+-]{1,64}\Z")
_END_OF_EVENT: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_PART: Final = re.compile(rb"[^\n]*\n|[^\n]+")
_DATA: Final = re.compile(rb"(?:\xef\xbb\xbf)?data(?:: ?|\Z)")
"""A field of an event (HTML, "Server-sent events": interpreting an event stream)."""
_BEGINS_JSON: Final = re.compile(rb"[\s\xef\xbb\xbf]*(?:\{|\[\s*[\[{\"])")
"""What goes on in the next event, for a client that puts them together; other data of events is often no JSON at all."""


class Shape(Enum):
    """How a body is cut into what is judged by itself."""

    TEXT = auto()
    JSON = auto()
    LINES = auto()
    """Texts of JSON, one to a line."""
    EVENTS = auto()


class _Judged:
    """Bytes that rules look at, from the beginning of a body or of a part of one."""

    def __init__(self, rules: Sequence[tuple[str, Rules]], counts: Counter[str], *, is_json: bool) -> None:
        self._looks: list[tuple[str, Scanner | JsonScanner]] = [(rule, Scanner(one)) for rule, one in rules]
        paths = [(rule, JsonScanner(one.json_paths)) for rule, one in rules if is_json and one.json_paths]
        self._looks += paths
        self._paths, self._is_json = [one for _, one in paths], is_json
        self._counts, self._ends = counts, dict.fromkeys((rule for rule, _ in rules), -1)
        self._buffer, self._base = bytearray(), 0
        self._found: list[Place] = []

    @property
    def inside(self) -> bool:
        """Whether what came last is inside of a text of JSON, as far as that matters to what is looked for."""
        return any(one.inside for one in self._paths)

    def feed(self, data: bytes, *, final: bool) -> bytes:
        """Take bytes; give those that are decided, masked."""
        self._buffer += data
        for rule, look in self._looks:
            places = joined(look.feed(data, final=final))
            self._count(rule, places)
            self._found += places
        upto = min((look.decided for _, look in self._looks), default=self._base + len(self._buffer))
        if self._is_json and not final:
            # A number is replaced as a whole, so it waits for its end.
            last = _LAST_WORD.search(self._buffer, max(0, upto - self._base - WORD_BYTES_MAX), upto - self._base)
            upto = upto if last is None else self._base + last.start()
        return self._emit(upto)

    def _count(self, rule: str, places: list[Place]) -> None:
        for place in places:
            # A value that goes on where the part before it ended is one place.
            self._counts[rule] += place.start != self._ends[rule]
            self._ends[rule] = place.end

    def _emit(self, upto: int) -> bytes:
        base, self._base = self._base, upto
        said = bytes(self._buffer[: upto - base])
        del self._buffer[: upto - base]
        found, self._found = self._found, [place for place in self._found if place.end > upto]
        if not found:
            return said
        shown = bytearray(said)
        for place in joined(found):
            start, end = max(place.start, base) - base, min(place.end, upto) - base
            word = _word_around(said, start, end) if self._is_json else None
            if word is None:
                shown[start:end] = FILLER * max(end - start, 0)
            else:
                shown[word.start() : word.end()] = _no_value(word.end() - word.start())
        return bytes(shown)


def _word_around(said: bytes, start: int, end: int) -> re.Match[bytes] | None:
    """Give the number or word of JSON that a place is all or a part of; None: there is more in the place, or something else."""
    least = max(0, start - WORD_BYTES_MAX)
    before = _BEFORE_WORD.search(said, least, start)
    found = _WORD.match(said, least if before is None else before.end())
    return found if found is not None and end <= found.end() else None


def _no_value(length: int) -> bytes:
    return NULL.ljust(length) if length >= len(NULL) else b"0".ljust(length)


class MaskedBody:
    """One body."""

    def __init__(self, rules: Sequence[tuple[str, Rules]], shape: Shape, counts: Counter[str]) -> None:
        """Begin.

        Args:
            rules: what is hidden, by the rule of the policy.
            shape: what the head says of it.
            counts: is told how many places were hidden, by rule.
        """
        self._rules, self._shape, self._counts = rules, shape, counts
        self._judged = _Judged(rules, counts, is_json=shape is not Shape.TEXT)
        self._event = bytearray()
        self._looked = 0

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Take the next bytes and give what can go on, masked.

        Raises:
            CannotCarryOutError: it cannot be looked into.
        """
        if self._shape is not Shape.TEXT and b"\0" in data:
            raise CannotCarryOutError("the answer is no JSON in UTF-8")
        if self._shape is Shape.EVENTS:
            return self._events(data, final=final)
        if self._shape is Shape.LINES:
            return self._lines(data, final=final)
        return self._judged.feed(data, final=final)

    def _lines(self, data: bytes, *, final: bool) -> bytes:
        shown = bytearray()
        for part in _PART.findall(data):
            shown += self._judged.feed(part, final=False)
            if part.endswith(b"\n"):
                if self._judged.inside:
                    raise CannotCarryOutError("a line of the answer is no whole text of JSON")
                shown += self._judged.feed(b"", final=True)
        if final:
            shown += self._judged.feed(b"", final=True)
        return bytes(shown)

    def _events(self, data: bytes, *, final: bool) -> bytes:
        self._event += data
        shown = bytearray()
        while (end := _END_OF_EVENT.search(self._event, max(0, self._looked - 3))) is not None:
            shown += self._masked(bytes(self._event[: end.end()]), whole=True)
            del self._event[: end.end()]
            self._looked = 0
        self._looked = len(self._event)
        if self._looked > EVENT_BYTES_MAX:
            raise CannotCarryOutError(f"an event of the answer has more than {EVENT_BYTES_MAX} bytes")
        if final and self._event:
            shown += self._masked(bytes(self._event), whole=False)
            self._event.clear()
        return bytes(shown)

    def _one_text(self, data: bytes, *, whole: bool) -> bytes:
        judged = _Judged(self._rules, self._counts, is_json=True)
        shown = judged.feed(data, final=False)
        if whole and judged.inside and _BEGINS_JSON.match(data):
            raise CannotCarryOutError("the data of an event of the answer is no whole text of JSON")
        return shown + judged.feed(b"", final=True)

    def _masked(self, event: bytes, *, whole: bool) -> bytes:
        """Give an event with its data masked as one text, whatever the lines it is on, and all other lines as text."""
        texts: list[tuple[int, bytes]] = []
        places: list[tuple[int, bytes]] = []
        for found in _LINE.finditer(event):
            at, line = found.start(), found[1]
            field = _DATA.match(line)
            if field is None:
                texts.append((at, _Judged(self._rules, self._counts, is_json=False).feed(line, final=True)))
            else:
                places.append((at + field.end(), line[field.end() :]))
        joined_data = b"\n".join(line for _, line in places)
        masked = self._one_text(joined_data, whole=whole) if places else b""
        shown, at = bytearray(event), 0
        for start, line in places:
            shown[start : start + len(line)] = masked[at : at + len(line)]
            at += len(line) + 1
        for start, text in texts:
            shown[start : start + len(text)] = text
        return bytes(shown)
