"""How much a statement is about, as the server's planner estimates it: for the person who is asked.

What lives here: which statements may be explained, the question, and reading the answer. What must not: when it is asked.

EXPLAIN plans and does not run. Only what capd knows in full is explained, alone in a transaction of its own that is read-only
and ends with the question: within the client's own it would hold locks as long as the person thinks. Never ANALYZE, which runs
it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from capd.enforcer.proxy.postgresql.read_statement import Read

SECONDS_MAX: Final = 2
"""Of planning; what takes longer has no estimate."""
_EFFECTS: Final = frozenset({"select", "insert", "update", "delete", "lock"})
_COMMANDS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})
_CHANGES: Final = "ModifyTable"


def estimable(read: Read, sql: bytes) -> bool:
    """Say whether a statement may be explained; one with parameters is not, since its values are not in its text."""
    message = read.message
    known = message.complete and len(message.statements) == 1 and message.command in _COMMANDS and read.tied is None
    return known and message.effects is not None and message.effects <= _EFFECTS and b"$" not in sql


_BEFORE: Final = (
    "/* capd */ SELECT pg_catalog.set_config('statement_timeout', '%d', true),"
    " pg_catalog.set_config('transaction_read_only', 'on', true)"
)
"""As SET LOCAL, which would say within a pipeline that it is in no transaction."""


def questions(sql: bytes) -> tuple[bytes, ...]:
    """Give statements that are to be one transaction."""
    return ((_BEFORE % (SECONDS_MAX * 1000)).encode(), b"EXPLAIN (FORMAT JSON) " + sql.strip().rstrip(b";") + b"\n")


def answer(results: Sequence[Sequence[tuple[bytes | None, ...]]]) -> dict[str, object] | None:
    """Give what a person is shown: rows, and the planner's cost; None: the server did not say."""
    try:
        ((text,),) = results[-1]
        plan = json.loads(text or b"")[0]["Plan"]
        if plan["Node Type"] == _CHANGES:
            plan = plan["Plans"][0]
        return {"rows": int(plan["Plan Rows"]), "cost": round(float(plan["Total Cost"]))}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError):
        return None  # a plan may be deeper than Python reads, and its numbers larger
