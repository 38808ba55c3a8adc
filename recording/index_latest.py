"""The latest messages, searched for themselves: beginnings of words that very many messages have are found there at once.

What lives here: a full-text index of a few messages, in memory, made for one search. What must not: filters, hits.

For `w*` FTS5 puts together all places of all words that begin so before it gives the first of them: over a million messages of
which each has some that takes seconds. What so many have, the latest have too, and the latest are what a search gives first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

MESSAGES_MAX: Final = 500
"""Indexed in some milliseconds: less than the words of one in a hundred of a million messages take."""
CHARACTERS_MAX: Final = 1 << 20
"""Of those messages; reading words out of so many takes 50 ms."""


def bounded(rows: Iterable[tuple[object, ...]]) -> dict[int, tuple[object, ...]]:
    """Give messages by number, as many as may be looked at.

    Args:
        rows: number, summary, text and whatever else; the latest first.
    """
    found: dict[int, tuple[object, ...]] = {}
    characters = 0
    for row in rows:
        characters += len(str(row[1] or "")) + len(str(row[2] or ""))
        if characters > CHARACTERS_MAX or len(found) >= MESSAGES_MAX:
            break
        found[int(str(row[0]))] = row
    return found


def latest(
    messages: Mapping[int, tuple[object, ...]], expression: str, limit: int, *, tokenizer: str, snippet: str
) -> list[tuple[int, str]]:
    """Give the numbers of messages that an expression of FTS5 matches, latest first, and their snippets.

    Args:
        messages: as `bounded` gives them.
        expression: asked for.
        limit: how many at most.
        tokenizer: of the index that these are the latest messages of.
        snippet: arguments of FTS5's function behind the column.
    """
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"CREATE VIRTUAL TABLE words USING fts5(summary, text, columnsize=0, tokenize='{tokenizer}')")
        rows = ((number, row[1], row[2]) for number, row in messages.items())
        connection.executemany("INSERT INTO words (rowid, summary, text) VALUES (?, ?, ?)", rows)
        sql = f"SELECT rowid, snippet(words, -1, {snippet}) FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?"  # noqa: S608 - no text of a user's in it
        return [(number, marked) for number, marked in connection.execute(sql, [expression, limit])]
    finally:
        connection.close()
