"""What a rule of the effect `limit` asks for: guard rails that need no understanding of what is said.

What lives here: the values. What must not: counting (enforcer/limits).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Of what is said under a rule. None: no limit.

    Attributes:
        rows, bytes: of the answer to one statement.
        run_rows, run_bytes: of all answers to a run.
        seconds: how long a statement may take.
        read_only: whether only what reads may be said.
        per_minute: how many statements of a run.
        export_rows, export_bytes: of all answers to a run: an alarm, which stops nothing.
    """

    rows: int | None = None
    bytes: int | None = None
    run_rows: int | None = None
    run_bytes: int | None = None
    seconds: int | None = None
    read_only: bool = False
    per_minute: int | None = None
    export_rows: int | None = None
    export_bytes: int | None = None

    @property
    def given(self) -> frozenset[str]:
        """Give the names of those that are asked for."""
        return frozenset(one.name for one in fields(self) if getattr(self, one.name))


READING: frozenset[str] = frozenset({"select", "session"})
"""Effects of statements that a session which only reads may say."""
EVERYWHERE = frozenset({"read_only", "per_minute"})
"""Limits that need nothing of a protocol's layer but that it asks about each statement."""
OF_ANSWERS = frozenset(one.name for one in fields(Limit)) - EVERYWHERE
"""Limits for which a protocol's layer counts."""
