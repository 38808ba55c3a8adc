"""A run as `runs --json` and `show --json` print it: what the index says of it, and a verdict drawn from that and its sessions.

What lives here: the composition of that object (docs/json.md). What must not: layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from capd.recording.record import Value

if TYPE_CHECKING:
    from capd.recording.reading import Finder
    from capd.recording.rows import RunRow, SessionRow

# Worst first. A run of which one session is partial is partial.
VERDICTS: Final = ("partial", "opaque", "complete")
# A run may have a hundred thousand sessions; reasons repeat themselves long before.
SESSIONS_ASKED_MAX: Final = 200


def described(index: Finder, row: RunRow) -> dict[str, Value]:
    """Give the object of a run."""
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - `--help` must not pay for it

    judged: dict[str, Value] | None = None
    for verdict in VERDICTS:
        found = index.sessions(SessionFilter(run=row.run, verdict=verdict), limit=SESSIONS_ASKED_MAX)
        if found:
            judged = {"verdict": verdict, "reasons": reasons_of(found)}
            break
    if missing := row.missing():
        before = judged["reasons"] if judged and judged["verdict"] == VERDICTS[0] else []
        judged = {"verdict": VERDICTS[0], "reasons": [*missing, *cast("list[Value]", before)]}
    return {**row.to_json(), "processes": len(index.processes(row.run)), "completeness": judged}


def reasons_of(sessions: Sequence[SessionRow]) -> list[str]:
    """Give the reasons of all sessions, each once."""
    return list(dict.fromkeys(reason for session in sessions for reason in session.reasons))
