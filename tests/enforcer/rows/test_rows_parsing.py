"""What a server sends is taken apart to its end, or refused; nothing else happens, whatever it is.

What lives here: messages, rows and stored queries made at random. What must not: servers.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.masking.rows.column_pattern import read_pattern
from capd.enforcer.masking.rows.field import BrokenMessageError, Field, read_fields
from capd.enforcer.masking.rows.mysql_column import MysqlColumn, read_column, read_length, write_length
from capd.enforcer.masking.rows.mysql_report import hidden_error
from capd.enforcer.masking.rows.mysql_row import MysqlResultMask
from capd.enforcer.masking.rows.node_tree import UnreadableTreeError, origins
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.masking.rows.report import hidden_notification, hidden_report
from capd.enforcer.masking.rows.result import ResultMask
from capd.enforcer.policy.rule import Replace
from tests.enforcer.rows.postgresql_agent import KEY, packed, unpacked

HIDDEN = Hidden(rule="hide", replace=Replace.FIXED)
CELLS = st.none() | st.binary(max_size=300)
ROWS = st.lists(st.tuples(CELLS, st.booleans()), min_size=1, max_size=12)
TREE = (
    "({QUERY :rtable ({RTE :targetList ({TARGETENTRY :expr {X} :resno 1 :resname inner :ressortgroupref 0 :resorigtbl 9"
    " :resorigcol 9 :resjunk false})}) :targetList ({TARGETENTRY :expr {VAR :a 1} :resno 1 :resname a\\ b :ressortgroupref 0"
    " :resorigtbl 16384 :resorigcol 3 :resjunk false} {TARGETENTRY :expr {F :args ({VAR :b 2})} :resno 2 :resname u"
    " :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false} {TARGETENTRY :expr {V} :resno 3 :resname j"
    " :ressortgroupref 1 :resorigtbl 7 :resorigcol 1 :resjunk true}) :override 0})"
)


def field(name: bytes = b"a") -> Field:
    """Give a column of texts."""
    return Field(name=name, table=1, column=1, type=25, modifier=-1, format=0)


@given(row=ROWS)
def test_only_hidden_values_change(row: list[tuple[bytes | None, bool]]) -> None:
    """Of a row every hidden value that is not NULL is replaced, and every other one has the bytes that it had."""
    mask = ResultMask([field()] * len(row), [HIDDEN if hidden else None for _, hidden in row], Style(key=KEY))
    shown = unpacked(mask.row(packed([value for value, _ in row])))
    assert [b"***" if hidden and value is not None else value for value, hidden in row] == list(shown)
    assert mask.masked["hide"] == sum(hidden and value is not None for value, hidden in row)


@given(row=ROWS, cut=st.integers(min_value=0), extra=st.binary(max_size=3))
def test_a_row_that_is_cut_is_refused(row: list[tuple[bytes | None, bool]], cut: int, extra: bytes) -> None:
    """A row of which something is missing before its last hidden value is refused."""
    body = packed([value for value, _ in row])
    cut %= len(body)
    mask = ResultMask([field()] * len(row), [HIDDEN] * len(row), Style(key=KEY))
    with pytest.raises(BrokenMessageError):
        mask.row(body[:cut])
    with suppress(BrokenMessageError):
        mask.row(body[:cut] + extra)


@given(row=ROWS, cut=st.integers(min_value=0))
def test_only_hidden_values_of_mysql_change(row: list[tuple[bytes | None, bool]], cut: int) -> None:
    """In text and prepared, every hidden value is replaced, and every other one has the bytes that it had."""
    column = MysqlColumn(
        schema="d", table="t", org_table="t", name="a", org_name="a", charset=45, length=400, type=253, flags=0
    )
    hidden = [HIDDEN if one else None for _, one in row]
    values = [value for value, _ in row]
    expected = [b"***" if one and value is not None else value for value, one in row]
    for binary, write in ((False, text_row), (True, binary_row)):
        mask = MysqlResultMask([column] * len(row), hidden, KEY, binary=binary)
        assert write(expected) == mask.row(write(values)) if mask.changes else True
        whole = MysqlResultMask([column] * len(row), [HIDDEN] * len(row), KEY, binary=binary)
        with pytest.raises(BrokenMessageError):
            whole.row(write(values)[: cut % len(write(values))])


def text_row(values: list[bytes | None]) -> bytes:
    """Write a row in text."""
    return b"".join(b"\xfb" if value is None else write_length(len(value)) + value for value in values)


def binary_row(values: list[bytes | None]) -> bytes:
    """Write a row of a prepared statement."""
    nulls = bytearray((len(values) + 9) // 8)
    for index, value in enumerate(values):
        nulls[(index + 2) // 8] |= (value is None) << (index + 2) % 8
    return b"\0" + bytes(nulls) + b"".join(write_length(len(value)) + value for value in values if value is not None)


@given(number=st.integers(min_value=0, max_value=1 << 26))
def test_lengths_are_read_as_they_are_written(number: int) -> None:
    """A length of MySQL comes back as it was, and one that is longer than what follows is refused."""
    written = write_length(number)
    with pytest.raises(BrokenMessageError):
        read_length(written[:-1] if number else b"", 0)
    if number < 100_000:
        assert (number, len(written)) == read_length(written + bytes(number), 0)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """Descriptions, definitions, errors and notifications raise nothing but that they are broken."""
    for read in (read_fields, read_column, hidden_report, hidden_notification, hidden_error):
        with suppress(BrokenMessageError):
            read(data)


def test_fields_are_read() -> None:
    """A description has each column with where it comes from."""
    body = struct.pack(">H", 1) + b"ssn\0" + struct.pack(">IhIhih", 16384, 3, 25, -1, -1, 0)
    assert (Field(name=b"ssn", table=16384, column=3, type=25, modifier=-1, format=0),) == read_fields(body)
    with pytest.raises(BrokenMessageError):
        read_fields(body + b"x")


def test_origins_are_those_of_the_outermost_list() -> None:
    """Of a stored query the outermost list counts, without what is only sorted by, and what is computed has no origin."""
    assert ((16384, 3), None) == origins(TREE)


@given(at=st.integers(min_value=0, max_value=len(TREE) - 1), sign=st.sampled_from("{}()\\ :x1"), gone=st.integers(0, 3))
def test_a_changed_tree_is_refused_or_read(at: int, sign: str, gone: int) -> None:
    """A stored query of another form raises nothing but that it cannot be read, and gives no more columns than there are."""
    with suppress(UnreadableTreeError):
        assert len(origins(TREE[:at] + sign + TREE[at + gone :])) <= 3


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("ssn", ("public", "people", "SSN"), ("public", "people", "ssn2")),
        ("people.ssn", ("other", "people", "ssn"), ("public", "folk", "ssn")),
        ("public.people.ssn", ("public", "People", "ssn"), ("other", "people", "ssn")),
        ("pub*.p?ople.*", ("public", "people", "x"), ("public", "pople", "x")),
    ],
)
def test_patterns_match(pattern: str, yes: tuple[str, str, str], no: tuple[str, str, str]) -> None:
    """A part that a pattern does not name may be any, stars and question marks stand for characters, case does not count."""
    assert read_pattern(pattern).matches(*yes)
    assert not read_pattern(pattern).matches(*no)


@pytest.mark.parametrize("pattern", ["", "a.b.c.d", "a..b", ".a", 'a"b', "a b", "a.b\0"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """A pattern that could mean something else is refused when the policy is read."""
    with pytest.raises(ValueError, match="none of"):
        read_pattern(pattern)


def test_reports_keep_names_and_lose_values() -> None:
    """Of an error about hidden columns severity, code and names stay, the message only where it has names alone."""
    body = b'SERROR\0C22P02\0Minvalid input: "536"\0DKey (ssn)=(536)\0HTry 536\0Wsource 536\0tpeople\0cssn\0\0'
    assert b"SERROR\0C22P02\0Mhidden by capd: it may repeat values of hidden columns\0tpeople\0cssn\0\0" == hidden_report(body)
    unique = b'SERROR\0C23505\0Mduplicate key violates "k"\0DKey (ssn)=(536)\0\0'
    assert b'SERROR\0C23505\0Mduplicate key violates "k"\0\0' == hidden_report(unique)
    assert b'SERROR\0C22P02\0Minvalid input: "536"\0tpeople\0cssn\0\0' == hidden_report(body, details_only=True)
    assert b"\0\0\0\1ch\0hidden by capd\0" == hidden_notification(b"\0\0\0\1ch\x00536\0")
