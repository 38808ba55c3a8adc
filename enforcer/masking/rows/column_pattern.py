"""Which columns a rule hides: `column`, `table.column`, `schema.table.column`, with `*` and `?`.

What lives here: reading and matching them. What must not: where columns come from.

Case does not count: whether "SSN" and ssn are two columns is the server's matter, and hiding one too many does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.linear_regex import compile_regex

PARTS_MAX: Final = 3
"""Schema, table, column."""
_PART: Final = re.compile(r"[^.\s\"'`\x00]{1,128}")
PATTERNS_MAX: Final = 1_024
"""Compiled ones that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPattern:
    """One pattern; a part that it does not name may be any.

    Attributes:
        schema, table, column: globs, in lower case. Of MySQL the schema is the database.
    """

    schema: str
    table: str
    column: str

    def matches(self, schema: str, table: str, column: str) -> bool:
        """Say whether it is for a column."""
        parts = ((self.column, column), (self.table, table), (self.schema, schema))
        # What takes too long to compare counts as a match.
        return all(_compiled(glob)(name.lower()) is not False for glob, name in parts)

    def may_be_about(self, schema: str, table: str) -> bool:
        """Say whether it is for some column of a relation."""
        return _compiled(self.table)(table.lower()) is not False and _compiled(self.schema)(schema.lower()) is not False


def read_pattern(text: str) -> ColumnPattern:
    """Read a pattern.

    Raises:
        ValueError: it is none; the text says why.
    """
    parts = text.lower().split(".")
    if len(parts) > PARTS_MAX or any(_PART.fullmatch(part) is None for part in parts):
        raise ValueError(f"{text!r} is none of `column`, `table.column`, `schema.table.column`")
    schema, table, column = ["*"] * (PARTS_MAX - len(parts)) + parts
    return ColumnPattern(schema=schema, table=table, column=column)


@lru_cache(maxsize=PATTERNS_MAX)
def _compiled(glob: str) -> Callable[[str], bool | None]:
    return compile_regex(rf"\A(?:{Glob(glob).regex})\z")
