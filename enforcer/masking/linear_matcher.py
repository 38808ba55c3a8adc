"""Whether bytes hold any of many patterns, in time linear in the bytes.

What lives here: the Rust engine inside pydantic, asked of bytes. What must not: patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from capd.enforcer.masking.patterns import UnsafePatternError

_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))


def linear_matcher(triggers: Sequence[str]) -> Callable[[bytes], bool]:
    """Give a function that says whether bytes may hold a match of any pattern; False is certain.

    Args:
        triggers: regular expressions of Rust's engine, none of which needs a byte beyond ASCII.

    Raises:
        UnsafePatternError: they are none, or too large.
    """
    if not triggers:
        return lambda _: False
    try:
        engine = SchemaValidator(core_schema.str_schema(pattern="|".join(dict.fromkeys(triggers))))
    except SchemaError as error:
        raise UnsafePatternError(f"not a pattern in linear time: {error}") from error

    def matches(data: bytes) -> bool:
        # No trigger needs a byte beyond ASCII, and without them what is left still has every trigger that was there; as text of
        # several bytes each they would take five times as long.
        text = (data if data.isascii() else data.translate(None, _BEYOND_ASCII)).decode("ascii")
        return engine.isinstance_python(text)

    return matches
