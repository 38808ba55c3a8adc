"""What is masked in MySQL: by column, by message, by form."""

from __future__ import annotations

import struct

import pytest

from capd.decoders.message import Direction
from capd.enforcer.masking.rules import Choice, Rules
from tests.decoders import mysql_bytes as my
from tests.enforcer.judging import Turn, mysql_shown, pieces

RULES = Rules(Choice(columns=["ssn", "Salary"]))
PLAIN = Rules(Choice())
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
BEGIN: list[Turn] = [(RESPONSE, my.greeting()), (REQUEST, my.login()), (RESPONSE, my.ok(2))]
LONG_VALUE = b"x" * 300


def result(*rows: bytes, columns: tuple[bytes, ...]) -> bytes:
    """A result of columns and rows that have their sequences."""
    head = my.packet(1, bytes([len(columns)])) + b"".join(columns) + my.eof(2 + len(columns))
    return head + b"".join(rows) + my.eof(3 + len(columns) + len(rows))


def shown(rules: Rules, question: bytes, answer: bytes, size: int = 0) -> tuple[bytes, bytes]:
    """What is recorded of a question and its answer."""
    before = sum(len(data) for direction, data in BEGIN if direction is RESPONSE)
    asked = sum(len(data) for direction, data in BEGIN if direction is REQUEST)
    request, response = mysql_shown(rules, pieces([*BEGIN, (REQUEST, question), (RESPONSE, answer)], size))
    return request[asked:], response[before:]


@pytest.mark.parametrize("size", [0, 1, 9])
def test_columns_of_rows(size: int) -> None:
    """The values of a column are masked in every row, under another name too; NULL stays, other columns stay."""
    columns = (my.column(2, "id"), my.column(3, "SSN"), renamed(4, "pay", "salary"))
    rows = ((b"1", b"123-45", None), (b"2", None, LONG_VALUE), (b"3", b"", b"9"))
    hidden = ((b"1", b"******", None), (b"2", None, b"*" * 300), (b"3", b"", b"*"))
    said = result(*(my.row(6 + at, *cells) for at, cells in enumerate(rows)), columns=columns)
    expected = result(*(my.row(6 + at, *cells) for at, cells in enumerate(hidden)), columns=columns)
    assert expected == shown(RULES, my.query("select"), said, size)[1]


def renamed(sequence: int, name: str, original: str) -> bytes:
    """The definition of a column with another name than its own."""
    body = my.piece("def") + my.piece("shop") + my.piece("t") + my.piece("t") + my.piece(name) + my.piece(original)
    return my.packet(sequence, body + b"\x0c" + struct.pack("<HIBHB", 45, 80, 253, 0, 0) + b"\0\0")


KINDS: dict[str, tuple[int, bytes, bytes]] = {
    "int": (3, struct.pack("<i", 5), b"****"),
    "bigint": (8, struct.pack("<q", 5), b"*" * 8),
    "tinyint": (1, b"\5", b"*"),
    "double": (5, struct.pack("<d", 1.5), b"*" * 8),
    "varchar": (253, b"\3abc", b"\3***"),
    "decimal": (246, b"\x041.50", b"\4****"),
    "date": (10, b"\4\xea\7\1\2", b"\4****"),
    "no date": (12, b"\0", b"\0"),
    "time": (11, b"\x08\0\0\0\0\0\1\2\3", b"\x08********"),
    "long": (252, b"\xfc\x2c\1" + LONG_VALUE, b"\xfc\x2c\1" + b"*" * 300),
}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_binary_rows(kind: str) -> None:
    """In the binary protocol values are masked by their type, and those beside them stay."""
    code, value, hidden = KINDS[kind]
    columns = (my.column(2, "id", 3), my.column(3, "ssn", code), my.column(4, "after", 253))
    rows = [my.binary_row(6, struct.pack("<i", 1) + one + b"\3end") for one in (value, hidden)]
    null = my.binary_row(7, struct.pack("<i", 2) + b"\3end", nulls=bytes([1 << 3]))
    prepared = my.prepared(1, 1, 0, 0)
    turns: list[Turn] = [*BEGIN, (REQUEST, my.prepare("q")), (RESPONSE, prepared), (REQUEST, my.execute(1, ()))]
    said, expected = (result(row, null, columns=columns) for row in rows)
    assert mysql_shown(RULES, [*turns, (RESPONSE, said)])[1].endswith(prepared + expected)


def test_rows_whose_columns_nobody_told() -> None:
    """Without the definitions every value may be a masked one."""
    broken = my.packet(1, b"\1") + my.packet(2, b"bad") + my.eof(3)
    said = shown(RULES, my.query("q"), broken + my.row(4, b"secret") + my.eof(5))[1]
    assert broken + my.packet(4, b"*" * 7) + my.eof(5) == said


def test_row_that_does_not_add_up() -> None:
    """What cannot be walked through is masked to its end."""
    head = my.packet(1, b"\2") + my.column(2, "id") + my.column(3, "ssn") + my.eof(4)
    said = shown(RULES, my.query("q"), head + my.packet(5, b"\1a\x20secret") + my.eof(6))[1]
    assert head + my.packet(5, b"\1a*******") + my.eof(6) == said


MESSAGES: dict[str, tuple[Rules, bytes, bytes, bytes, bytes]] = {
    "a statement": (PLAIN, my.query("select 1"), my.ok(1), my.query("select 1"), my.ok(1)),
    "a password in a statement": (
        *(PLAIN, my.query("create user a identified by 'hunter2'"), my.ok(1)),
        *(my.query("create user a identified by '*******'"), my.ok(1)),
    ),
    "a password of SET": (
        *(PLAIN, my.query("SET PASSWORD FOR a = PASSWORD('hunter2')"), my.ok(1)),
        *(my.query("SET PASSWORD FOR a = PASSWORD('*******')"), my.ok(1)),
    ),
    "a password that is prepared": (
        *(PLAIN, my.prepare("alter user a identified by 'hunter2'"), my.err(1)),
        *(my.prepare("alter user a identified by '*******'"), my.err(1)),
    ),
    "an error that repeats a value": (
        *(RULES, my.query("q"), my.err(1, 1062, "23000", "Duplicate entry '123-45' for key 'ssn'")),
        *(my.query("q"), my.err(1, 1062, "23000", "Duplicate entry '" + "*" * 20 + "'")),
    ),
    "an error that repeats no value": (
        *(RULES, my.query("q"), my.err(1, 1146, "42S02", "Table 'shop.missing' doesn't exist")),
        *(my.query("q"), my.err(1, 1146, "42S02", "Table 'shop.missing' doesn't exist")),
    ),
    "another user": (
        *(PLAIN, my.change_user("v"), my.ok(1)),
        *(my.change_user("v").replace(bytes([len(my.SECRET)]) + my.SECRET, b"*" * (len(my.SECRET) + 1)), my.ok(1)),
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("size", [0, 1])
def test_messages(name: str, size: int) -> None:
    """What is secret is masked in place, and nothing else."""
    rules, question, answer, asked, answered = MESSAGES[name]
    if name == "an error that repeats a value":
        answered = answer.replace(b"123-45' for key 'ssn", b"*" * 20)
    assert (asked, answered) == shown(rules, question, answer, size)


def test_authentication() -> None:
    """Scrambles and proofs are masked in every message that has them; user, database and ways are not."""
    switch = my.packet(2, b"\xfecaching_sha2_password\0" + my.SCRAMBLE + b"\0")
    turns: list[Turn] = [
        *[(RESPONSE, my.greeting()), (REQUEST, my.login()), (RESPONSE, switch), (REQUEST, my.packet(3, my.SECRET))],
        *[(RESPONSE, my.packet(4, b"\1\4")), (REQUEST, my.packet(5, b"hunter2\0")), (RESPONSE, my.ok(6))],
    ]
    request, response = mysql_shown(PLAIN, turns)
    for secret in (my.SCRAMBLE, my.SCRAMBLE[:8], my.SCRAMBLE[8:], my.SECRET, b"hunter2"):
        assert secret not in request + response
    assert b"u\0" + b"*" * (len(my.SECRET) + 1) + b"d\0mysql_native_password\0" in request
    assert b"\xfecaching_sha2_password\0" + b"*" * 21 in response
    assert my.packet(4, b"\1\4") + my.ok(6) == response[-len(my.ok(6)) - 6 :]


def test_a_file_of_the_client() -> None:
    """Of a file that is loaded nobody knows the columns: with columns to mask all of it is."""
    turns: list[Turn] = [
        *BEGIN,
        (REQUEST, my.query("load data")),
        (RESPONSE, my.packet(1, b"\xfbf")),
        (REQUEST, my.packet(2, b"1\tx\n")),
    ]
    assert mysql_shown(PLAIN, turns)[0].endswith(my.packet(2, b"1\tx\n"))
    assert mysql_shown(RULES, turns)[0].endswith(my.packet(2, b"****"))


TOKEN = b"sk-ant-api03-" + b"Ab9_" * 8


def test_a_value_behind_a_byte_that_looks_like_a_letter() -> None:
    """The length of a value, and the last digit of an error's state, are no beginning of a word."""
    assert TOKEN not in shown(PLAIN, my.query("q"), my.err(1, 1644, "45000", TOKEN.decode()))[1]
    prepared = my.prepared(1, 5, 0, 2) + my.column(2, "?") + my.column(3, "?") + my.eof(4)
    for more in range(24):
        values = my.piece(b"abc") + my.piece(TOKEN + b" " * more)
        said = my.execute(5, [(253, 0), (253, 0)], values)
        turns: list[Turn] = [*BEGIN, (REQUEST, my.prepare("q")), (RESPONSE, prepared), (REQUEST, said)]
        assert TOKEN not in mysql_shown(PLAIN, turns)[0]


@pytest.mark.parametrize("ahead", [b"\x18\5\0\0\0\0\0", b""])
def test_what_a_client_sends_in_parts_is_one_text(ahead: bytes) -> None:
    """A secret that is cut by the end of a packet is hidden in both: in a file, in a long value of a statement."""
    text = b"plain key " + TOKEN + b" " + b"plain\n" * 200
    question, answer = (my.prepare("q"), my.prepared(1, 5, 0, 0)) if ahead else (my.query("load"), my.packet(1, b"\xfbf"))
    for cut in range(11, 10 + len(TOKEN)):
        parts = (text[:cut], text[cut:])
        said = [my.packet(0 if ahead else 2 + at, ahead + part) for at, part in enumerate(parts)]
        turns: list[Turn] = [*BEGIN, (REQUEST, question), (RESPONSE, answer), *((REQUEST, one) for one in said)]
        kept = mysql_shown(PLAIN, turns)[0]
        first, second = kept[-len(said[0]) - len(said[1]) : -len(said[1])], kept[-len(said[1]) :]
        head = 4 + len(ahead)
        together = first[head:] + second[head:]
        assert len(text) == len(together)
        assert b"plain key " + b"*" * len(TOKEN) == together[: 10 + len(TOKEN)]
        assert together.endswith(b"plain\n" * 100)
