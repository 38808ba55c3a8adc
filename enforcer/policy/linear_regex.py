"""Regular expressions that an agent cannot make slow: linear time in the text, whatever the text.

What lives here: the engine, which is the Rust one inside pydantic. What must not: globs, what is matched.

Back references and look-around do not exist in it, and a pattern that would take too much memory is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from capd.enforcer.policy.action import Tri

REGEX_CHARACTERS_MAX: Final = 1_000
"""What a person still reads; the engine's own limit is on the compiled size."""

COMPILED_MAX: Final = 8_192
"""A policy that is loaded again has mostly the patterns that it had."""


class RegexError(ValueError):
    """The pattern is none, or too large."""


@lru_cache(maxsize=COMPILED_MAX)
def compile_regex(pattern: str) -> Callable[[str], Tri]:
    """Give a function that looks for a pattern anywhere in a text; None for a text that is not Unicode.

    Args:
        pattern: in the syntax of Rust's regex crate; `^` and `$` are the ends of the text.

    Raises:
        RegexError: it is none.
    """
    try:
        found = SchemaValidator(core_schema.str_schema(pattern=pattern)).isinstance_python
    except SchemaError as error:
        raise RegexError(_reason(str(error))) from error

    def search(text: str) -> Tri:
        # The engine takes a lone surrogate for no match; what it cannot read, nobody may take for harmless.
        return found(text) or (False if text.isascii() or is_unicode(text) else None)

    return search


def is_unicode(text: str) -> bool:
    """Say whether a text can be written in UTF-8: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def literally(text: str) -> str:
    """Give a pattern for a text itself."""
    return "".join(one if one.isascii() and one.isalnum() else f"\\x{{{ord(one):x}}}" for one in text)


def _reason(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")] or [line for line in lines if "exceeds" in line]
    return errors[0].removeprefix("error:").strip() if errors else "not a regular expression"
