"""COPY of rows with a hidden column: what comes out can be copied in again, with all that is shown as it was.

What lives here: formats, odd values, pieces of any size. What must not: statements about other things.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from capd.enforcer.masking.rows.copy_form import CopyForm
from capd.enforcer.masking.rows.copy_stream import copy_mask
from capd.enforcer.masking.rows.field import BrokenMessageError, Field
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.policy.rule import Mask, Replace
from tests.enforcer.rows.postgresql_agent import KEY, Agent

ODD = ("plain", "", "a\tb", "a\nb", "a\\b", 'say "x"', "\\N", "\\.", "a,b;c|d", "'", "äöü", "\r\n", None, "x" * 9000, "\\")
OPTIONS = (
    *("", "(FORMAT binary)", "CSV", "(FORMAT csv, HEADER)", "(FORMAT csv, DELIMITER ';', QUOTE '''')"),
    *("(FORMAT csv, ESCAPE '\\')", "(FORMAT csv, FORCE_QUOTE *)", "WITH DELIMITER AS ',' NULL AS 'n'"),
    *("(FORMAT csv, NULL 'nil')", "(DELIMITER '|', NULL 'nil')"),
)
Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def copied(database: str) -> Iterator[Connection]:
    """Give a connection to a table of odd values, each of them hidden once and shown once."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE odd (id int, hidden text, shown text); CREATE TABLE again (LIKE odd)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO odd VALUES (%s, %s, %s)", [(at, one, one) for at, one in enumerate(ODD)])
        yield connection


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_copied_out_can_be_copied_in(copied: Connection, options: str) -> None:
    """In every format each hidden value is replaced, NULL stays NULL, and each shown one is the same."""
    agent = Agent(copied, (("hide", Mask(columns=("odd.hidden",), replace=Replace.FIXED)),))
    got = agent.run(f"COPY odd TO STDOUT {options}")
    assert got.refused is None
    copied.execute("TRUNCATE again")
    with copied.cursor().copy(f"COPY again FROM STDIN {options.replace(', FORCE_QUOTE *', '')}".encode()) as copy:
        for piece in got.said:
            copy.write(piece)
    rows = copied.execute("SELECT hidden, shown FROM again ORDER BY id").fetchall()
    assert [(None if one is None else "***", one) for one in ODD] == rows


@pytest.mark.parametrize("options", OPTIONS)
def test_pieces_may_have_any_size(copied: Connection, options: str) -> None:
    """However a COPY is cut into messages, the same comes out."""
    agent = Agent(copied, (("hide", Mask(columns=("odd.hidden",), replace=Replace.FIXED)),))
    got = agent.run(f"COPY odd TO STDOUT {options}")
    whole = b"".join(bytes(row[0] or b"") for row in got.raw)
    form = agent.form
    assert form is not None
    assert agent.copied is not None
    for size in (1, 2, 3, 7, 4096, len(whole)):
        mask = copy_mask(form, *agent.copied, Style(key=KEY), None)
        shown = b"".join(mask.feed(whole[at : at + size]) for at in range(0, len(whole), size))
        mask.end()
        assert b"".join(got.said) == shown, size


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (CopyForm(), b"1\t2\t3\n"),
        (CopyForm(format="csv", delimiter=","), b'1,"2"x\n'),
        (CopyForm(format="csv", delimiter=","), b"1\n"),
        (CopyForm(format="binary"), b"PGCOPY\n\xff\r\n\0\0\0\0\1\0\0\0\0"),
        (CopyForm(format="binary"), b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1x"),
    ],
)
def test_what_is_not_as_the_statement_says_is_refused(form: CopyForm, data: bytes) -> None:
    """Rows with other columns than the statement's, or of no such format, are passed on in no part."""
    field = Field(name=b"a", table=1, column=1, type=25, modifier=-1, format=0)
    hidden = Hidden(rule="hide", replace=Replace.FIXED)
    mask = copy_mask(form, (field, field), (hidden, None), Style(key=KEY), None)
    with pytest.raises(BrokenMessageError):
        mask.feed(data)
