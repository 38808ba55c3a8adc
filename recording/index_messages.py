"""Writing messages into the index: the one place where an index gets thousands of rows a second.

What lives here: messages and their words. What must not: other rows, searching.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from capd.recording.index_columns import Cell, message_values
from capd.recording.index_schema import MESSAGES
from capd.recording.rows import MessageRow

SESSIONS_KNOWN_MAX: Final = 20_000
"""Sessions of which it is remembered what is in the index, so that a message costs no look-up."""
_COLUMNS: Final = ", ".join(MESSAGES.all_columns)
_INSERT: Final = f"INSERT INTO messages (id, {_COLUMNS}) VALUES (?{', ?' * len(MESSAGES.all_columns)})"  # noqa: S608 - our own names
_INSERT_WORDS: Final = "INSERT INTO messages_fts (rowid, summary, text) VALUES (?, ?, ?)"
DELETE_WORDS: Final = "INSERT INTO messages_fts (messages_fts, rowid, summary, text) VALUES ('delete', ?, ?, ?)"
_UPDATE: Final = f"UPDATE messages SET ({_COLUMNS}) = (?{', ?' * (len(MESSAGES.all_columns) - 1)}) WHERE id = ?"  # noqa: S608 - as above


WORDS: Final = slice(-3, -1)
"""Where in a row the texts are that are searched: summary and text."""


@dataclass(slots=True)
class _Known:
    """What is in the index of a session: its row number, and that every message from an ordinal on is not."""

    key: int
    new_from: int


class MessageTable:
    """Writes messages and their words.

    The words are written beside the messages, not by a trigger: in a trigger SQLite makes a savepoint for every row, and with
    it FTS5 writes out what it would have gathered, which takes four times as long.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: OrderedDict[UUID, _Known] = OrderedDict()
        (self._next_id,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM messages").fetchone()

    def session_key(self, session: UUID) -> int | None:
        """Give the row number of a session; None when there is no row for it."""
        known = self._known.get(session)
        if known is not None:
            return known.key
        row = self._connection.execute("SELECT id FROM sessions WHERE session = ?", [str(session)]).fetchone()
        if row is None:
            return None
        find = "SELECT coalesce(max(ordinal) + 1, 0) FROM messages WHERE session_id = ?"
        (new_from,) = self._connection.execute(find, [row[0]]).fetchone()
        self._known[session] = _Known(row[0], new_from)
        while len(self._known) > SESSIONS_KNOWN_MAX:
            self._known.popitem(last=False)
        return int(row[0])

    def upsert(self, rows: Iterable[MessageRow], sequence: int) -> None:
        """Write messages of a segment whose sessions have rows, over those with the same session and ordinal."""
        new: list[tuple[Cell, ...]] = []
        for session, together in groupby(rows, attrgetter("session")):
            key = self.session_key(session)
            if key is None:
                raise ValueError(f"session {session} has no row")
            known = self._known[session]
            for row in together:
                values = message_values(row, self._next_id, key, sequence)
                if row.ordinal >= known.new_from:
                    known.new_from = row.ordinal + 1
                    new.append(values)
                    self._next_id += 1
                else:
                    self._insert(new)
                    new = []
                    self._replace(values[1:])
        self._insert(new)

    def remove(self, session: UUID, first: int) -> None:
        """Remove the messages of a session from an ordinal on."""
        key = self.session_key(session)
        find = "SELECT id, summary, text FROM messages WHERE session_id = ? AND ordinal >= ?"
        rows = self._connection.execute(find, [key, first]).fetchall()
        self._connection.executemany(DELETE_WORDS, rows)
        self._connection.executemany("DELETE FROM messages WHERE id = ?", [row[:1] for row in rows])
        self._known.pop(session, None)

    def _insert(self, rows: list[tuple[Cell, ...]]) -> None:
        self._connection.executemany(_INSERT, rows)
        self._connection.executemany(_INSERT_WORDS, [(row[0], *row[WORDS]) for row in rows])

    def _replace(self, values: tuple[Cell, ...]) -> None:
        """Write a message that may be there already; one that is there as it is costs no write."""
        find = f"SELECT id, {_COLUMNS} FROM messages WHERE session_id = ? AND ordinal = ?"  # noqa: S608 - our own names
        there = self._connection.execute(find, values[:2]).fetchone()
        if there is None:
            self._insert([(self._next_id, *values)])
            self._next_id += 1
        elif there[1:] != values:
            self._connection.execute(DELETE_WORDS, (there[0], *there[WORDS]))
            self._connection.execute(_UPDATE, (*values, there[0]))
            self._connection.execute(_INSERT_WORDS, (there[0], *values[WORDS]))
