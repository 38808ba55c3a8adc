"""Masking what was decoded already: texts, header pairs, members by name, arguments of a command.

What lives here: the rules applied to values as records and policies hold them. What must not: bytes of a stream.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.place import FILLER_TEXT, filled, joined
from capd.enforcer.masking.rules import Rules, plain_key
from capd.enforcer.masking.scanner import Scanner

Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]

DEPTH_MAX: Final = 64
CACHED_MAX: Final = 512
"""Texts that were found to hold something are remembered: a prepared statement is told with every execution."""
CACHED_CHARS_MAX: Final = 16_384
_SECRET_FLAG: Final = re.compile(
    r"--?(?:[a-z0-9]+-){0,3}(?:password|passwd|pass|passphrase|secret|token|api-?key|secret-key|access-key)", re.IGNORECASE
)
_USER_FLAGS: Final = frozenset({"-u", "--user", "-U", "--proxy-user"})


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
            known = filled(data, places).decode("utf-8", "surrogatepass") if places else text
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
            if depth >= DEPTH_MAX:
                return {}
            return {key: self.member(key, item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            if depth >= DEPTH_MAX:
                return []
            if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):  # noqa: PLR2004 - a pair
                return [value[0], self.header(value[0], value[1])]
            return [self.value(item, depth + 1) for item in value]
        return value

    def member(self, key: str, value: Value, depth: int = 0) -> Value:
        """Give the value of a member; a name that is masked hides all of it."""
        if plain_key(key) in self._rules.keys and isinstance(value, str | bytes | int | float) and not isinstance(value, bool):
            return hidden(value)
        return self.value(value, depth)

    def arguments(self, argv: Sequence[Value]) -> list[Value]:
        """Give the arguments of a command: a password may be one by itself, behind the option that names it."""
        shown: list[Value] = []
        before = ""
        for argument in argv:
            if not isinstance(argument, str):
                shown.append(argument)
                continue
            if before and _SECRET_FLAG.fullmatch(before) and not argument.startswith("-"):
                shown.append(FILLER_TEXT * len(argument))
            elif before in _USER_FLAGS and ":" in argument:
                user, _, secret = argument.partition(":")
                shown.append(f"{user}:{FILLER_TEXT * len(secret)}")
            else:
                shown.append(self.text(argument))
            before = argument
        return shown


def hidden(value: Value) -> Value:
    """Give the filler in place of a value."""
    if isinstance(value, str):
        return FILLER_TEXT * len(value)
    if isinstance(value, bytes):
        return FILLER_TEXT.encode() * len(value)
    if isinstance(value, Mapping):
        return {key: hidden(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [hidden(item) for item in value]
    return value if value is None or isinstance(value, bool) else FILLER_TEXT * len(str(value))
