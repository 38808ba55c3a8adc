"""A secret that does not show itself.

What lives here: the type, and what a value must look like to be used. What must not: where values come from (source.py).
"""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

CHARACTERS_MIN: Final = 8
"""What is shorter is found in answers by chance, so its reflection could not be told from other text."""
CHARACTERS_MAX: Final = 8_192
"""Below what servers take as one header field."""
HIDDEN: Final = "Secret(hidden)"


class Secret:
    """A value that only `reveal` gives: no repr, no format, no pickle, no hash."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value, for the one place where it goes."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment] # a key of a dictionary is looked at, and printed

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied out of its process")


def usable(text: str) -> str | None:
    """Say why a value cannot be a secret; None: it can.

    What has control characters or a line end could become a second header field; what is no ASCII has no one form on the wire.
    """
    if len(text) < CHARACTERS_MIN:
        return f"it has fewer than {CHARACTERS_MIN} characters, so that it could not be recognised in an answer"
    if len(text) > CHARACTERS_MAX:
        return f"it has more than {CHARACTERS_MAX} characters"
    if not (text.isascii() and text.isprintable()):
        return "it has characters that cannot be printed, or are not ASCII"
    if text != text.strip():
        return "it begins or ends with a blank"
    return None
