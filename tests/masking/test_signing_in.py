"""Passwords in the lines of protocols that are not decoded, or not yet, and in errors that repeat them."""

from __future__ import annotations

import base64

import pytest

from capd.daemon.masking.levels import Levels
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules
from tests.assembly.world import REQUEST, RESPONSE
from tests.decoders import mysql_bytes as my
from tests.decoders import postgresql_bytes as pg
from tests.decoders import redis_bytes as rd
from tests.masking.test_stage import Talk, cycles, passed, stored

RULES = Rules(Choice())
SECRET = "Zq7vKw93Lm-x4"
CODED = base64.b64encode(f"\0ann\0{SECRET}".encode())
LINES = [
    (25, b"EHLO x\r\nAUTH PLAIN %c\r\nMAIL FROM:<a@b>\r\n"),
    (25, b"EHLO x\r\nAUTH LOGIN\r\nYW5u\r\n%c\r\nMAIL FROM:<a@b>\r\n"),
    (110, b"USER ann\r\nPASS %s\r\nSTAT\r\n"),
    (143, b'a1 LOGIN "ann" "%s"\r\na2 SELECT INBOX\r\n'),
    (143, b"a1 AUTHENTICATE PLAIN\r\n%c\r\na2 SELECT INBOX\r\n"),
    (6379, b"AUTH %s\r\nPING\r\n"),
    (6379, b"HELLO 3 AUTH ann %s\r\n"),
    (6379, b"CONFIG SET maxmemory 1 masterauth %s\r\n"),
    (6379, b"ACL SETUSER ann on >%s\r\n"),
]
REDIS = [
    ["SETEX", "password", "10", SECRET],
    ["SET", "db_password", SECRET],
    ["ACL", "DRYRUN", "ann", "AUTH", SECRET],
    ["COMMAND", "GETKEYS", "AUTH", "ann", SECRET],
]
REPEATED = f"with args beginning with: '3' 'AUTH' 'ann' '{SECRET}' "


def shown(talk: Talk, port: int, size: int, per_cycle: int) -> bytes:
    """Give what is stored of a conversation."""
    return stored(passed(Stage(RULES, Levels()), cycles(talk, port, size, per_cycle)))


@pytest.mark.parametrize(("port", "said"), LINES)
def test_lines_that_sign_in(port: int, said: bytes) -> None:
    """A line that signs in shows no password, whether its protocol is known, not yet, or never."""
    said = said.replace(b"%s", SECRET.encode()).replace(b"%c", CODED)
    talk = [(RESPONSE, b"220 mail\r\n")] * (port != 6379) + [(REQUEST, said), (RESPONSE, b"+OK\r\n")]
    for size, per_cycle in ((100_000, 100), (100_000, 1), (3, 1)):
        kept = shown(talk, port, size, per_cycle)
        assert SECRET.encode() not in kept
        assert CODED[4:] not in kept


@pytest.mark.parametrize("words", REDIS)
def test_commands_of_redis(words: list[str]) -> None:
    """A value of a key with such a name, and a password in a command that another command asks about."""
    talk = [(REQUEST, rd.command(words[0], *words[1:])), (RESPONSE, rd.OK)]
    assert SECRET.encode() not in shown(talk, 6379, 100_000, 100)


def test_errors_that_repeat() -> None:
    """A server that does not know a command, or cannot read a statement, repeats no password."""
    denied = f"near 'USR ann IDENTIFIED BY \"{SECRET}\"' at line 1"
    talks: list[tuple[Talk, int]] = [
        ([(REQUEST, rd.command("HELLO", "3")), (RESPONSE, f"-ERR unknown command 'HELLO', {REPEATED}\r\n".encode())], 6379),
        (
            [
                (RESPONSE, my.greeting()),
                (REQUEST, my.login()),
                (RESPONSE, my.ok(2)),
                (REQUEST, my.query("select 1")),
                (RESPONSE, my.err(1, 1064, message=denied)),
            ],
            3306,
        ),
        (
            [
                (REQUEST, pg.startup(user="ann", database="d")),
                (RESPONSE, pg.OPENED),
                (REQUEST, pg.query("select f()")),
                (RESPONSE, pg.error(text=f'SQL statement "ALTER ROLE ann PASSWORD $${SECRET}$$"') + pg.ready()),
            ],
            5432,
        ),
    ]
    for talk, port in talks:
        assert SECRET.encode() not in shown(talk, port, 100_000, 100)
