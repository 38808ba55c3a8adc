"""Finding sessions and messages.

What lives here: filters and their SQL, what a person's search words mean, snippets. What must not: writing, rows' columns.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from capd.recording.index_latest import MESSAGES_MAX, bounded, latest
from capd.recording.index_schema import TOKENIZER
from capd.recording.record import Direction
from capd.recording.rows import Hit

Parameter = None | int | str
SNIPPET_TOKENS: Final = 24
MATCH_START: Final = "\x02"
MATCH_END: Final = "\x03"
"""Controls that no protocol's text has a use for; where one has, only the marking of a match is off."""
RANGED_SESSIONS_MAX: Final = 2_000
"""Sessions whose first and last message are looked up to narrow a search: some milliseconds; of more the range would be all."""
_EVERYWHERE: Final = (0, (1 << 63) - 1)
_NOWHERE: Final = (1, 0)
PRINCIPAL_NAME: Final = "(principal ->> '$.name')"
"""SQL of a principal's name, in SQLite and DuckDB alike."""
WORDS_MAX: Final = 32
"""Words of one search; more say nothing and cost."""
TERM: Final = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
_SNIPPET: Final = f"'{MATCH_START}', '{MATCH_END}', '…', {SNIPPET_TOKENS}"
_COLUMNS: Final = "sessions.session, ordinal, time, direction, messages.protocol, type, exchange"
_MARK: Final = re.compile(f"[{MATCH_START}{MATCH_END}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions are asked for; None asks for all.

    Attributes:
        run: of this run.
        session: only this one.
        protocol: as the decoder calls it.
        target: whose target's host or name is this, or ends with it after a dot.
        user: whose process ran as this user.
        principal: whose run acted for this name.
        host: recorded by this installation.
        state: "open", "closed" or "abandoned".
        verdict: "complete", "partial" or "opaque".
        from_ns, until_ns: that have records in from_ns <= time < until_ns.
    """

    run: UUID | None = None
    session: UUID | None = None
    protocol: str | None = None
    target: str | None = None
    user: str | None = None
    principal: str | None = None
    host: UUID | None = None
    state: str | None = None
    verdict: str | None = None
    from_ns: int | None = None
    until_ns: int | None = None


def session_conditions(where: SessionFilter) -> tuple[str, list[Parameter]]:
    """Give the SQL condition of a filter on the table `sessions`, and its values."""
    conditions: list[str] = []
    values: list[Parameter] = []
    equal = {
        "run": None if where.run is None else str(where.run),
        "session": None if where.session is None else str(where.session),
        "protocol": where.protocol,
        "user": where.user,
        "host": None if where.host is None else str(where.host),
        "state": where.state,
        "verdict": where.verdict,
    }
    for column, value in equal.items():
        if value is not None:
            conditions.append(f"sessions.{column} = ?")
            values.append(value)
    if where.principal is not None:
        conditions.append(PRINCIPAL_NAME + " = ?")
        values.append(where.principal)
    if where.target is not None:
        conditions.append("(target_host = ? OR target_name = ? OR substr(target_name, -length(?)) = ?)")
        values += [where.target, where.target, f".{where.target}", f".{where.target}"]
    if where.from_ns is not None:
        conditions.append("sessions.last >= ?")
        values.append(where.from_ns)
    if where.until_ns is not None:
        conditions.append("sessions.started < ?")
        values.append(where.until_ns)
    return " AND ".join(conditions) or "TRUE", values


def match_expression(text: str) -> str | None:
    """Give the FTS5 expression of a person's words: all of them, each quoted so that none is taken for an operator.

    None when there is no letter or digit to search for.
    """
    terms = []
    for phrase, star, word in TERM.findall(text.encode("utf-8", "replace").decode().replace("\0", " ")):
        prefix = bool(star) or (len(word) > 1 and word.endswith("*"))
        content = phrase or word.rstrip("*")
        if any(character.isalnum() for character in content):
            terms.append(f'"{content}"' + ("*" if prefix else ""))
    return " ".join(terms[:WORDS_MAX]) or None


def find_messages(connection: sqlite3.Connection, text: str, where: SessionFilter, limit: int) -> list[Hit]:
    """Give the messages that hold all words of a text, latest first."""
    expression = match_expression(text)
    if expression is None:
        return []
    conditions, values = session_conditions(where)
    times: list[Parameter] = []
    if where.from_ns is not None:
        conditions += " AND messages.time >= ?"
        times.append(where.from_ns)
    if where.until_ns is not None:
        conditions += " AND messages.time < ?"
        times.append(where.until_ns)
    values = [*_row_range(connection, where), *values, *times]
    if "*" in expression:
        found = _among_latest(connection, expression, conditions, values, limit)
        if len(found) == limit:
            return found
    # The row number follows recorded order; walking the full-text index backwards by it needs no sorting of all matches.
    sql = f"""
        SELECT {_COLUMNS}, snippet(messages_fts, -1, {_SNIPPET})
        FROM messages_fts
        CROSS JOIN messages ON messages.id = messages_fts.rowid
        CROSS JOIN sessions ON sessions.id = messages.session_id
        WHERE messages_fts MATCH ? AND messages_fts.rowid BETWEEN ? AND ? AND {conditions}
        ORDER BY messages_fts.rowid DESC LIMIT ?
    """  # noqa: S608 - no text of a user's in it
    return [_hit(row) for row in connection.execute(sql, [expression, *values, limit])]


def _among_latest(
    connection: sqlite3.Connection, expression: str, conditions: str, values: Sequence[Parameter], limit: int
) -> list[Hit]:
    """Give what the latest messages of a range have (index_latest.py)."""
    sql = f"""
        SELECT messages.id, summary, text, {_COLUMNS}
        FROM (SELECT * FROM messages WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT {MESSAGES_MAX}) AS messages
        CROSS JOIN sessions ON sessions.id = messages.session_id
        WHERE {conditions} ORDER BY messages.id DESC
    """  # noqa: S608 - no text of a user's in it
    messages = bounded(connection.execute(sql, values))
    found = latest(messages, expression, limit, tokenizer=TOKENIZER, snippet=_SNIPPET)
    return [_hit((*messages[number][3:], marked)) for number, marked in found]


def _row_range(connection: sqlite3.Connection, where: SessionFilter) -> tuple[int, int]:
    """Give the row numbers between which the messages of a filter's sessions are: matches elsewhere are not looked at."""
    if where == SessionFilter():
        return _EVERYWHERE
    conditions, values = session_conditions(where)
    # A session's messages are written in the order of their ordinals.
    sql = f"""
        SELECT count(*), min(first), max(last) FROM (
            SELECT (SELECT id FROM messages WHERE session_id = sessions.id ORDER BY ordinal LIMIT 1) AS first,
                   (SELECT id FROM messages WHERE session_id = sessions.id ORDER BY ordinal DESC LIMIT 1) AS last
            FROM sessions WHERE {conditions} LIMIT ?)
    """  # noqa: S608 - no text of a user's in it
    sessions, first, last = connection.execute(sql, [*values, RANGED_SESSIONS_MAX]).fetchone()
    if sessions == RANGED_SESSIONS_MAX:
        return _EVERYWHERE
    return _NOWHERE if first is None else (first, last)


def _hit(row: Sequence[object]) -> Hit:
    session, ordinal, time_ns, direction, protocol, kind, exchange, marked = row
    snippet, matches = unmark(str(marked))
    return Hit(
        session=UUID(str(session)),
        ordinal=int(str(ordinal)),
        time_ns=int(str(time_ns)),
        direction=None if direction is None else Direction(int(str(direction))),
        protocol=str(protocol),
        type=str(kind),
        exchange=None if exchange is None else int(str(exchange)),
        snippet=snippet,
        matches=matches,
    )


def unmark(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """Give a snippet on one line without the marks around its matches, and where they were."""
    text = ""
    matches: list[tuple[int, int]] = []
    start: int | None = None
    end = 0
    for mark in _MARK.finditer(marked):
        text += marked[end : mark.start()]
        end = mark.end()
        if mark[0] == MATCH_START:
            start = len(text)
        elif start is not None:
            matches.append((start, len(text)))
            start = None
    text += marked[end:]
    return re.sub(r"\s", " ", text), matches
