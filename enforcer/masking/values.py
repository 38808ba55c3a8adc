"""Masking what was decoded already: texts, header pairs, members by name, arguments of a command.

What lives here: the rules applied to values as records and policies hold them. What must not: bytes of a stream.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from capd.enforcer.masking.command_line import hidden_from
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.place import FILLER, FILLER_TEXT, Place, filled, joined
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]

DEPTH_MAX: Final = 64
CACHED_MAX: Final = 512
"""Texts that were found to hold something are remembered: a prepared statement is told with every execution."""
CACHED_CHARS_MAX: Final = 16_384
BINARY: Final = "binary"
"""Under this, alone, decoders give bytes that are no text."""
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_GOES_ON: Final = 0x80
"""With these bits a byte of UTF-8 goes on with a character (RFC 3629 section 3)."""


class Values:
    """Masks values by the rules of one configuration."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: OrderedDict[str, str] = OrderedDict()

    def text(self, text: str) -> str:
        """Give a text with everything masked that can be recognised in it."""
        data = text.encode("utf-8", "surrogatepass")
        if not self._rules.may_hold(data):
            return text
        known = self._known.get(text)
        if known is None:
            places = joined(Scanner(self._rules).feed(data, final=True))
            known = filled(data, _of_characters(data, places)).decode("utf-8", "surrogatepass") if places else text
            if len(text) <= CACHED_CHARS_MAX:
                self._known[text] = known
                if len(self._known) > CACHED_MAX:
                    self._known.popitem(last=False)
        return known

    def data(self, data: bytes) -> bytes:
        """Give bytes with everything masked that can be recognised in them."""
        if not self._rules.may_hold(data):
            return data
        return filled(data, joined(Scanner(self._rules).feed(data, final=True)))

    def header(self, name: str, value: str) -> str:
        """Give a header field's value as it may be shown."""
        data = value.encode("utf-8", "surrogatepass")
        places = header_places(self._rules.headers, self._rules.cookies, name, data)
        if places:
            return filled(data, places).decode("utf-8", "replace")
        # The name may be one of a key, and a name and a value in one line are what was looked for in the bytes.
        line = f"{name}: "
        shown = self.text(line + value)
        return shown.removeprefix(line) if shown.startswith(line) else str(hidden(value))

    def value(self, value: Value, depth: int = 0) -> Value:
        """Give any value with everything masked in it that a rule covers."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            raw = bytes_in(value)
            if raw is not None:
                return {BINARY: self.data(raw).hex()}
            if depth >= DEPTH_MAX:
                return {}
            return {key: self.member(key, item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            if depth >= DEPTH_MAX:
                return []
            if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):  # noqa: PLR2004 - a pair
                name = self.text(value[0])  # which it may not be: two values stand beside each other too
                return [name, self.header(value[0], value[1]) if name == value[0] else self.text(value[1])]
            return [self.value(item, depth + 1) for item in value]
        return value

    def member(self, key: str, value: Value, depth: int = 0) -> Value:
        """Give the value of a member; a name that is masked hides all of it."""
        known = isinstance(value, str | bytes | int | float) and not isinstance(value, bool)
        if self._rules.is_key(key) and (known or bytes_in(value) is not None):
            return hidden(value)
        return self.value(value, depth)

    def arguments(self, argv: Sequence[Value]) -> list[Value]:
        """Give the arguments of a command: a password may be one by itself, behind the option that names it."""
        found = hidden_from(argv, self._rules.is_key)
        shown: list[Value] = []
        for index, argument in enumerate(argv):
            if not isinstance(argument, str):
                shown.append(argument)
            elif index in found:
                begin = found[index]
                shown.append(argument[:begin] + FILLER_TEXT * (len(argument) - begin))
            elif argument.startswith("-H"):
                shown.append("-H" + self.text(argument[2:]))  # of curl: a header field begins at once
            else:
                shown.append(self.text(argument))
        return shown


def _of_characters(data: bytes, places: Iterable[Place]) -> list[Place]:
    """Give places in a text that hide whole characters: of one that is hidden in part the rest is none."""
    found: list[Place] = []
    for place in places:
        start, end = place.start, place.end
        while start > 0 and data[start] & 0xC0 == _GOES_ON:
            start -= 1
        while end < len(data) and data[end] & 0xC0 == _GOES_ON:
            end += 1
        found.append(place._replace(start=start, end=end))
    return found


def bytes_in(value: Value) -> bytes | None:
    """Give the bytes that a decoder gives as {"binary": hex}; None if the value is nothing of that."""
    text = value.get(BINARY) if isinstance(value, Mapping) and len(value) == 1 else None
    if not isinstance(text, str) or _HEX.fullmatch(text) is None:
        return None
    return bytes.fromhex(text)


def hidden(value: Value) -> Value:
    """Give the filler in place of a value."""
    if isinstance(value, str):
        return FILLER_TEXT * len(value)
    if isinstance(value, bytes):
        return FILLER * len(value)
    if (raw := bytes_in(value)) is not None:
        return {BINARY: (FILLER * len(raw)).hex()}
    if isinstance(value, Mapping):
        return {key: hidden(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [hidden(item) for item in value]
    return value if value is None or isinstance(value, bool) else FILLER_TEXT * len(str(value))
