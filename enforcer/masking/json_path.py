"""Places in JSON by path, as it arrives.

What lives here: the paths (`$.user.ssn`, `$.cards[*].number`, `$..pin`, `$.items[2].key`), and a tokenizer that knows
where it is and at which offset. What must not: JSON's values; nothing is built up.

What is no JSON after all is not a defect here: the tokenizer goes on with the next thing that it knows. A string that is
cut off is judged by where it begins. Nesting beyond a limit is not followed: everything below is masked if a path could
still match there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from capd.enforcer.masking.place import Place

DEPTH_MAX: Final = 256
KEY_BYTES_MAX: Final = 4_096
"""A longer key is no key that anybody named; it is taken as it is cut."""
ANY: Final = "*"
DESCEND: Final = ".."
_STEP: Final = re.compile(
    r"\.\.(?P<deep>[^.\[\]*]+|\*)|\.(?P<name>[^.\[\]*]+|\*)|\[(?P<index>[0-9]+|\*)\]|\['(?P<quoted>[^']+)'\]"
)
_TOKEN: Final = re.compile(rb"\s*+(?:(?P<mark>[{}\[\],:])|(?P<string>\")|(?P<bare>[^\s{}\[\],:\"]+))")
_IN_STRING: Final = re.compile(rb"(?:[^\"\\]|\\.)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path; steps are member names, indices as text, `*`; `..` before a step means: however deep."""

    text: str
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Read a path.

        Raises:
            ValueError: it is none.
        """
        steps: list[str] = []
        at = 1
        while text.startswith("$") and at < len(text):
            step = _STEP.match(text, at)
            if step is None:
                break
            if step["deep"]:
                steps += [DESCEND, step["deep"]]
            else:
                steps.append(step["name"] or step["index"] or step["quoted"])
            at = step.end()
        if not steps or at != len(text):
            raise ValueError(f"{text!r} is no path; write $.user.ssn, $.cards[*].number or $..pin")
        return cls(text, tuple(steps))

    def after(self, states: frozenset[int], step: str) -> frozenset[int]:
        """Give how far the path may have matched one level deeper."""
        found: set[int] = set()
        for state in states:
            if state == len(self.steps):
                found.add(state)  # below what is masked everything is masked
                continue
            wanted = self.steps[state]
            if wanted == DESCEND:
                found.add(state)
                if self.steps[state + 1] in (ANY, step):
                    found.add(state + 2)
            elif wanted in (ANY, step):
                found.add(state + 1)
        return frozenset(found)


@dataclass(slots=True)
class _Level:
    """One object or array: how far each path matched, what comes next."""

    states: tuple[frozenset[int], ...]
    array: bool
    index: int = 0
    key: str | None = None


_SavedLevel = tuple[list[list[int]], bool, int, str | None]


class JsonScanner:
    """One JSON text, or several one after the other, as they arrive."""

    def __init__(self, paths: tuple[JsonPath, ...], position: int = 0) -> None:
        self._paths = paths
        self._levels: list[_Level] = []
        self._beyond = 0
        self._pending = b""
        self._string: tuple[bool, str | None] | None = None
        """In a string that is no key, or behind the first bytes of a long key: whether it is masked, and by which path."""
        self.decided = position

    @property
    def inside(self) -> bool:
        """Whether a text has begun and is not whole."""
        return bool(self._levels or self._beyond or self._string)

    def feed(self, data: bytes, *, final: bool = False) -> list[Place]:
        """Take the next bytes; give the places that are decided now."""
        buffer = self._pending + data if self._pending else data
        places: list[Place] = []
        at = 0
        while at < len(buffer):
            end = self._next(buffer, at, places, final=final)
            if end is None:
                break
            at = end
        self._pending = buffer[at:]
        self.decided += at
        if final:
            self.decided += len(self._pending)
            self._pending, self._levels, self._string, self._beyond = b"", [], None, 0
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        levels = [[[sorted(states) for states in level.states], level.array, level.index, level.key] for level in self._levels]
        string = None if self._string is None else list(self._string)
        return [self.decided, levels, self._beyond, self._pending, string]

    @classmethod
    def restored(cls, paths: tuple[JsonPath, ...], saved: Sequence[object]) -> JsonScanner:
        """Give a scanner as it was saved."""
        decided, levels, beyond, pending, string = cast(
            "tuple[int, list[_SavedLevel], int, bytes, list[object] | None]", tuple(saved)
        )
        scanner = cls(paths, decided)
        scanner._beyond, scanner._pending = beyond, pending
        scanner._string = None if string is None else (bool(string[0]), cast("str | None", string[1]))
        scanner._levels = [
            _Level(tuple(frozenset(found) for found in states), array=array, index=index, key=key)
            for states, array, index, key in levels
        ]
        return scanner

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing: nobody knows where in the text it goes on, so whatever comes is masked up to its end."""
        waited = len(self._pending)
        places = [Place(self.decided, self.decided + waited, "undecided", "cut off")] if waited else []
        self.decided += waited + length
        self._pending = b""
        self._string = None
        self._beyond = DEPTH_MAX
        self._levels = [_Level(self._all(), array=True)]
        return places

    def _all(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset({len(path.steps)}) for path in self._paths)

    def _next(self, buffer: bytes, at: int, places: list[Place], *, final: bool) -> int | None:
        """Take one token at `at`; give the index behind it, None when it is not whole."""
        if self._string is not None:
            return self._go_on(buffer, at, places, final=final)
        token = _TOKEN.match(buffer, at)
        if token is None:
            return len(buffer)  # nothing but blanks
        if token["mark"]:
            self._mark(token["mark"])
            return token.end()
        if token["bare"] is not None:
            if token.end() == len(buffer) and token.end() - at < KEY_BYTES_MAX and not final:
                return None
            self._value(token.start("bare"), token.end(), places)
            return token.end()
        return self._begin_string(buffer, token.end(), places, final=final)

    def _begin_string(self, buffer: bytes, at: int, places: list[Place], *, final: bool) -> int | None:
        level = self._levels[-1] if self._levels else None
        if level is not None and not level.array and level.key is None and not self._beyond:
            end = _IN_STRING.match(buffer, at).end()  # type: ignore[union-attr]  # it always matches
            if buffer[end : end + 1] != b'"' and end - at < KEY_BYTES_MAX and not final:
                return None
            level.key = _unescaped(buffer[at:end])
            if buffer[end : end + 1] == b'"':
                return end + 1
            # The rest of a long key is passed over as a string is: what stands in it begins nothing.
            self._string = (False, None)
            return end
        rule = self._rule()
        self._string = (rule is not None, rule)
        end_of_part = self._go_on(buffer, at, places, final=final)
        return at if end_of_part is None else end_of_part

    def _go_on(self, buffer: bytes, at: int, places: list[Place], *, final: bool) -> int | None:
        masked, rule = self._string or (False, None)
        end = _IN_STRING.match(buffer, at).end()  # type: ignore[union-attr]  # it always matches
        whole = end < len(buffer) and buffer[end : end + 1] == b'"'
        if not whole and final:
            end = len(buffer)
        if masked and end > at:
            places.append(Place(self.decided + at, self.decided + end, "json", f"json {rule}"))
        if whole:
            self._string = None
            return end + 1
        return end if end > at else None

    def _value(self, start: int, end: int, places: list[Place]) -> None:
        rule = self._rule()
        if rule is not None:
            places.append(Place(self.decided + start, self.decided + end, "json", f"json {rule}"))

    def _states(self) -> tuple[frozenset[int], ...]:
        """Give how far each path has matched at the value that comes now."""
        if not self._levels:
            return tuple(frozenset({0}) for _ in self._paths)
        level = self._levels[-1]
        if self._beyond:
            return level.states
        step = str(level.index) if level.array else level.key or ""
        return tuple(path.after(states, step) for path, states in zip(self._paths, level.states, strict=True))

    def _rule(self) -> str | None:
        """Give the path that hides the value that comes now, if any does."""
        for path, states in zip(self._paths, self._states(), strict=True):
            if len(path.steps) in states or (self._beyond and states):
                return path.text
        return None

    def _mark(self, mark: bytes) -> None:
        if mark in (b"{", b"["):
            if len(self._levels) >= DEPTH_MAX:
                self._beyond += 1
            else:
                self._levels.append(_Level(self._states(), array=mark == b"["))
        elif mark in (b"}", b"]"):
            if self._beyond:
                self._beyond -= 1
            elif self._levels:
                self._levels.pop()
        elif mark == b"," and self._levels and not self._beyond:
            level = self._levels[-1]
            level.index, level.key = level.index + 1, None


def _unescaped(key: bytes) -> str:
    text = key.decode("utf-8", "replace")
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
