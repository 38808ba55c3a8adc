"""A session as the forms take it, and what they say when it is none of theirs.

What lives here: the row with its records, the error, the words above every form. What must not: a form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capd.cli.line import plain
from capd.cli.safe_text import visible
from capd.cli.summary import peer, period, process_line, verdict_lines
from capd.recording.errors import CapdError, ExitStatus
from capd.recording.record import Record
from capd.recording.rows import SessionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A session.

    Attributes:
        row: what is known of it.
        records: reads its records, from the first on, at each call.
    """

    row: SessionRow
    records: Callable[[], Iterator[Record]]


class FormError(CapdError):
    """A session cannot be given in the form that was asked for: it holds no HTTP, no SQL, or no terminal."""

    exit_status = ExitStatus.NEGATIVE
    hint = "`capd show ID` says what it is; har is for HTTP, sql for databases, cast for terminals, pcap and page for anything"


HTTP: Final = frozenset({"http1", "http2", "websocket"})
"""Websocket begins with an exchange of HTTP."""
SQL: Final = frozenset({"postgresql", "mysql"})
PROTOCOLS: Final[Mapping[str, frozenset[str]]] = {"har": HTTP, "sql": SQL}
"""Protocols that a form is for; a form that is not here looks at what was said."""


def suits(row: SessionRow, form: str) -> bool:
    """Say whether a session of its protocol can be given in a form."""
    return form not in PROTOCOLS or row.protocol in PROTOCOLS[form]


def suiting(spoken: Sequence[Spoken], form: str) -> Sequence[Spoken]:
    """Give the sessions that can be given in a form.

    Raises:
        FormError: none can.
    """
    found = [one for one in spoken if suits(one.row, form)]
    if spoken and not found:
        words = {"har": "HTTP", "sql": "SQL"}[form]
        kinds = ", ".join(sorted({one.row.protocol for one in spoken}))
        raise FormError(f"there is no {words} in it that capd decoded: it is {kinds}")
    return found


def head_words(row: SessionRow) -> list[str]:
    """Give what stands above a session in every form: which, with whom, by whom, when, how whole. Each is one safe line."""
    session = row.to_json()
    lines = [
        f"session {row.session}: {row.protocol} to {peer(session)}",
        f"process {process_line(session)}",
        f"time {period(session)}",
        *(plain(line) for line in verdict_lines(session)),
    ]
    return [visible(line) for line in lines]
