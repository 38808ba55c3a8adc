"""Searching messages in the index: what a person types, filters, beginnings of words, snippets."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.index import Index
from capd.recording.index_search import SessionFilter, match_expression, unmark
from capd.recording.record import Direction
from capd.recording.rows import MessageRow, SessionRow


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Give an empty index."""
    with Index.open(tmp_path / "index" / "capd.db") as opened:
        yield opened


def message(session: UUID, ordinal: int, summary: str, text: str = "", time_ns: int = 0) -> MessageRow:
    """Give a row of a message."""
    return MessageRow(
        session=session,
        ordinal=ordinal,
        time_ns=time_ns,
        direction=Direction.REQUEST,
        protocol="http1",
        type="request",
        exchange=0,
        summary=summary,
        text=text,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("customers", [2, 1]),
        ("CUSTOMERS delete", [2]),
        ('"from customers"', [2, 1]),
        ('"customers from"', []),
        ("custom*", [2, 1]),
        ("custom", []),
        ("customer_id", [1]),
        ("a@example.org", [3]),
        ("AND", []),
        ("OR NOT", []),
        ("summary:customers", []),
        ("café", [3]),
        ("cafe", [3]),
        ('"', []),
        ("***", []),
        ("", []),
        ('unbalanced "from customers', []),
        ("'; DROP TABLE messages; --", []),
    ],
)
def test_search_finds_all_words_and_takes_none_for_an_operator(index: Index, text: str, expected: list[int]) -> None:
    """Words, phrases and prefixes are found, latest first, and nothing that a person types is an error."""
    session = UUID(int=1)
    index.upsert_messages(
        [
            message(session, 1, "SELECT customer_id FROM customers"),
            message(session, 2, "DELETE FROM customers"),
            message(session, 3, "GET /", "mail a@example.org from café"),
        ]
    )
    assert expected == [hit.ordinal for hit in index.search(text)]


def test_a_hit_shows_where_it_matched(index: Index) -> None:
    """The snippet is one line, and its matches are the words that were searched for."""
    index.upsert_messages([message(UUID(int=1), 7, "SELECT *\nFROM orders\nWHERE id = 5")])
    (hit,) = index.search("orders where")
    assert ["orders", "WHERE"] == [hit.snippet[start:end] for start, end in hit.matches]
    assert "SELECT * FROM orders WHERE id = 5" == hit.snippet


def test_search_can_be_narrowed(index: Index) -> None:
    """Filters of sessions and times apply to a search too."""
    for number in (1, 2):
        index.upsert_session(SessionRow(session=UUID(int=number), run=UUID(int=10 * number), last_ns=100))
        index.upsert_messages([message(UUID(int=number), ordinal, "needle", time_ns=ordinal) for ordinal in range(3)])
    cases = [
        (SessionFilter(session=UUID(int=1)), [(1, 2), (1, 1), (1, 0)]),
        (SessionFilter(run=UUID(int=20), from_ns=1), [(2, 2), (2, 1)]),
        (SessionFilter(until_ns=1), [(2, 0), (1, 0)]),
        (SessionFilter(session=UUID(int=9)), []),
    ]
    assert [expected for _, expected in cases] == [
        [(hit.session.int, hit.ordinal) for hit in index.search("needle", where)] for where, _ in cases
    ]


@pytest.mark.parametrize("limit", [1, 3, 20, 200])
@pytest.mark.parametrize(
    "where",
    [SessionFilter(), SessionFilter(session=UUID(int=2)), SessionFilter(from_ns=100, until_ns=350), SessionFilter(user="x")],
)
def test_the_latest_messages_are_searched_first_and_say_the_same(
    index: Index, monkeypatch: pytest.MonkeyPatch, where: SessionFilter, limit: int
) -> None:
    """Beginnings of words give the same hits whether the latest messages have enough of them, or the whole index is asked."""
    chance = random.Random(7)
    words = [f"{first}{number}é" for first in ("w", "wor", "zeb") for number in range(30)]
    for number in (1, 2):
        index.upsert_session(SessionRow(session=UUID(int=number), run=UUID(int=10 * number), last_ns=400))
    for ordinal in range(400):
        text = " ".join(chance.choices(words, k=chance.randint(0, 8)))
        index.upsert_messages([message(UUID(int=1 + ordinal % 2), ordinal, "said", text, time_ns=ordinal)])
    asked = ["w*", "wor*", "zeb1*", '"wor1é w*"', "w* zeb2*", "none*", "WOR1e*"]
    monkeypatch.setattr("capd.recording.index_latest.MESSAGES_MAX", 0)
    whole = [index.search(text, where, limit=limit) for text in asked]
    for few in (1, 50, 1_000):
        monkeypatch.setattr("capd.recording.index_latest.MESSAGES_MAX", few)
        monkeypatch.setattr("capd.recording.index_search.MESSAGES_MAX", few)
        assert whole == [index.search(text, where, limit=limit) for text in asked]
    assert where.user or any(whole)


@given(text=st.text(max_size=60))
def test_no_text_is_an_error_in_a_search(text: str) -> None:
    """Whatever is typed gives an expression that SQLite accepts, or none."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(a)")
    expression = match_expression(text)
    if expression is not None:
        connection.execute("SELECT * FROM t WHERE t MATCH ?", [expression]).fetchall()
    connection.close()


def test_marks_that_the_text_itself_holds_do_no_harm() -> None:
    """Control characters in recorded text cannot break a snippet."""
    assert ("ab", []) == unmark("\x03a\x02b")
    assert ("a bc", [(2, 3)]) == unmark("a\n\x02b\x03c")
