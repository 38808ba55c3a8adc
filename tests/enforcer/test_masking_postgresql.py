"""What is masked in PostgreSQL: by column, by message, by form."""

from __future__ import annotations

import struct

import pytest

from capd.decoders.message import Direction
from capd.enforcer.masking.rules import Choice, Rules
from tests.enforcer.judging import Turn, pieces, postgresql_shown

RULES = Rules(Choice(columns=["ssn", "Salary"]))
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE


def message(code: bytes, body: bytes) -> bytes:
    """Give one message."""
    return code + struct.pack(">I", len(body) + 4) + body


def startup(**parameters: str) -> bytes:
    """Give a startup message."""
    body = b"\x00\x03\x00\x00" + b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack(">I", len(body) + 4) + body


def described(*columns: str, binary: bool = False) -> bytes:
    """Give a RowDescription."""
    fields = b"".join(name.encode() + b"\0" + struct.pack(">IHIhiH", 0, 0, 25, -1, -1, binary) for name in columns)
    return message(b"T", struct.pack(">H", len(columns)) + fields)


def row(*cells: bytes | None) -> bytes:
    """Give a DataRow."""
    values = b"".join(struct.pack(">i", -1) if cell is None else struct.pack(">i", len(cell)) + cell for cell in cells)
    return message(b"D", struct.pack(">H", len(cells)) + values)


def query(sql: str) -> bytes:
    """Give a simple query."""
    return message(b"Q", sql.encode() + b"\0")


READY = message(b"Z", b"I")
DONE = message(b"C", b"SELECT 1\0") + READY
BEGIN: list[Turn] = [(REQUEST, startup(user="a")), (RESPONSE, message(b"R", bytes(4)) + READY)]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("size", [0, 1, 9])
def test_columns_of_rows(binary: bool, size: int) -> None:
    """The values of a column are masked in every row, NULL stays, other columns stay."""
    rows = ((b"1", b"123-45", None), (b"2", None, b"\x00\x01\x02\xff"), (b"3", b"", b"9"))
    hidden = ((b"1", b"******", None), (b"2", None, b"****"), (b"3", b"", b"*"))
    head = described("id", "SSN", "salary", binary=binary)
    turns = [*BEGIN, (REQUEST, query("SELECT 1")), (RESPONSE, head + b"".join(row(*cells) for cells in rows) + DONE)]
    shown = postgresql_shown(RULES, pieces(turns, size))[1]
    assert shown.endswith(head + b"".join(row(*cells) for cells in hidden) + DONE)


def test_rows_whose_columns_nobody_told() -> None:
    """Without a description of the columns every value may be a masked one."""
    shown = postgresql_shown(RULES, [*BEGIN, (REQUEST, query("x")), (RESPONSE, row(b"a", b"b") + DONE)])[1]
    assert shown.endswith(row(b"*", b"*") + DONE)


def test_prepared_statements() -> None:
    """A description that came with an earlier Describe counts for every execution."""
    parse = message(b"P", b"s\0SELECT id, ssn\0\0\0") + message(b"D", b"Ss\0") + message(b"S", b"")
    bind = message(b"B", b"\0s\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
    answer = message(b"1", b"") + message(b"t", b"\0\0") + described("id", "ssn") + READY
    result = message(b"2", b"") + row(b"1", b"abc") + DONE
    turns: list[Turn] = [*BEGIN, (REQUEST, parse), (RESPONSE, answer), (REQUEST, bind), (RESPONSE, result)]
    assert postgresql_shown(RULES, turns)[1].endswith(message(b"2", b"") + row(b"1", b"***") + DONE)


AUTHENTICATION = [
    (message(b"R", b"\0\0\0\3"), message(b"p", b"hunter2\0"), b"hunter2"),
    (message(b"R", b"\0\0\0\5salt"), message(b"p", b"md5" + b"0123abcd" * 4 + b"\0"), b"0123abcd"),
    (
        message(b"R", b"\0\0\0\nSCRAM-SHA-256\0\0"),
        message(b"p", b"SCRAM-SHA-256\0" + struct.pack(">i", 20) + b"n,,n=,r=clientnonce1"),
        b"clientnonce1",
    ),
]


@pytest.mark.parametrize(("challenge", "answer", "secret"), AUTHENTICATION)
def test_authentication(challenge: bytes, answer: bytes, secret: bytes) -> None:
    """Passwords, hashes and SCRAM messages are masked, the challenge too."""
    more = message(b"R", b"\0\0\0\x0br=clientnonce1server,s=c2FsdA==,i=4096") + message(b"R", b"\0\0\0\x0cv=c2lnbmF0dXJl")
    key = message(b"K", struct.pack(">II", 7, 0x61626364))
    turns: list[Turn] = [(REQUEST, startup(user="a")), (RESPONSE, challenge), (REQUEST, answer)]
    turns += [(RESPONSE, more + message(b"R", bytes(4)) + key + READY)]
    for size in (0, 1):
        request, response = postgresql_shown(RULES, pieces(turns, size))
        for hidden in (secret, b"salt", b"c2FsdA", b"server", b"c2lnbmF0", b"abcd"):
            assert hidden not in request + response
        assert b"\0\0\0\x07****" in response
    assert (b"SCRAM-SHA-256\0" in answer) == (b"SCRAM-SHA-256\0*" in request)


COPIES = [
    (
        "COPY t (id, ssn, note) TO STDOUT",
        [b"1\t123\tx\n2\t\\N\t\\\ty\n", b"3\t45", b"6\tz\n"],
        [b"1\t***\tx\n2\t**\t\\\ty\n", b"3\t**", b"*\tz\n"],
    ),
    ("copy t(ssn) from stdin (format csv)", [b'12\n"a\nb,""c"\n4\n'], [b'**\n********"\n*\n']),
    ('COPY "T".x ("id", "ssn") TO STDOUT WITH DELIMITER \';\' CSV', [b"1;2\n3;4\n"], [b"1;*\n3;*\n"]),
    ("COPY t (id, a) TO STDOUT", [b"1\t2\n"], [b"1\t2\n"]),
    ("COPY t TO STDOUT", [b"1\t2\n"], [b"****"]),
    ("COPY (SELECT ssn FROM t) TO STDOUT", [b"1\t2\n"], [b"****"]),
]


@pytest.mark.parametrize(("statement", "said", "shown"), COPIES)
@pytest.mark.parametrize("size", [0, 1])
def test_copy(statement: str, said: list[bytes], shown: list[bytes], size: int) -> None:
    """COPY data is masked by the statement's columns; where it names none, all of it."""
    start, end = message(b"H", b"\0\0\2\0\0\0\0"), message(b"c", b"") + DONE
    data, hidden = (b"".join(message(b"d", part) for part in parts) for parts in (said, shown))
    turns: list[Turn] = [*BEGIN, (REQUEST, query(statement)), (RESPONSE, start + data + end)]
    assert hidden.replace(b'********"', b"*********") in postgresql_shown(RULES, pieces(turns, size))[1]


def test_errors_repeat_values() -> None:
    """The row or key in the detail of an error is masked."""
    error = message(b"E", b"SERROR\0C23505\0Mduplicate key\0DKey (ssn)=(123-45) already exists.\0\0")
    shown = postgresql_shown(RULES, [*BEGIN, (REQUEST, query("x")), (RESPONSE, error + READY)])[1]
    assert b"123-45" not in shown
    assert b"Mduplicate key" in shown


def test_forms_are_seen_in_statements_and_cells() -> None:
    """Secrets and identifiers are recognised in statements, parameters and cells, whatever the column."""
    card = b"4111111111111111"
    said = query("INSERT INTO t VALUES ('4111111111111111', 1)")
    turns: list[Turn] = [*BEGIN, (REQUEST, said), (RESPONSE, described("a", "b") + row(card, b"x" + card) + DONE)]
    request, response = postgresql_shown(RULES, turns)
    assert (0, 1) == (request.count(card), response.count(card))


def test_startup_parameters() -> None:
    """A password among the parameters is masked."""
    assert b"password\0**\0" in postgresql_shown(RULES, [(REQUEST, startup(user="a", password="pw"))])[0]


TOKEN = b"sk-ant-api03-" + b"Ab9_" * 8


def test_what_a_client_copies_is_one_text() -> None:
    """A client cuts what it copies where it likes: what is cut is hidden, on both sides; whole lines stay as they are."""
    rules = Rules(Choice())
    lines = b"1\tplain\n2\tkey " + TOKEN + b"\n" + b"3\tplain too\n" * 60
    begin: list[Turn] = [*BEGIN, (REQUEST, query("COPY t FROM STDIN")), (RESPONSE, message(b"G", b"\0\0\2\0\0\0\0"))]
    for cut in range(15, 14 + len(TOKEN)):
        said = message(b"d", lines[:cut]) + message(b"d", lines[cut:]) + message(b"c", b"")
        shown = postgresql_shown(rules, [*begin, (REQUEST, said)])[0][-len(said) :]
        text = shown[5 : 5 + cut] + shown[10 + cut : -5]
        assert len(lines) == len(text)
        assert b"*" * len(TOKEN) == text[14 : 14 + len(TOKEN)]
        assert b"1\tplain\n2\tkey " == text[:14]
        assert text.endswith(b"3\tplain too\n" * 20)


def test_a_value_behind_its_length_or_its_type() -> None:
    """A byte of a length that looks like a letter, or the type of an error's field, is no beginning of a word."""
    rules = Rules(Choice())
    for before in range(24):
        value = TOKEN + b" " * before
        said = message(b"B", b"\0\0\0\0\0\1" + struct.pack(">i", len(value)) + value + b"\0\0")
        assert TOKEN not in postgresql_shown(rules, [*BEGIN, (REQUEST, said)])[0]
    said = message(b"E", b"SERROR\0C22023\0M" + TOKEN + b"\0\0")
    assert TOKEN not in postgresql_shown(rules, [*BEGIN, (REQUEST, query("x")), (RESPONSE, said)])[1]
