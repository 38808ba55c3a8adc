"""Takes a message of MySQL or MariaDB apart as the server's own scanner does.

What lives here: its lexical rules. What must not: what words mean.

Source: MySQL Reference Manual 8.0, sections 9.1 to 9.7; MariaDB's "Comment Syntax". A comment that is executed (`/*!`, `/*M!`)
and a hint (`/*+`) are problems: what of them counts depends on the server and its version. Where that is known, and it executes
the comment, what stands in it is read as what it is. `DELIMITER` is the client's alone.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from capd.enforcer.sql.lexeme import LEXEMES_MAX, Kind, Lexeme, Reading, Scanned, Server
from capd.enforcer.sql.message_text import NOT_UTF_8, message_text

_LETTER: Final = r"A-Za-z_$\x80-\U0010ffff"
_NO_NAME: Final = r"(?<![\w`\".$\x80-\U0010ffff])"
"""Behind a name, a dot and digits are a name of two parts."""
_BLANK: Final = r"[ \t\n\r\f\v]"
_SAFE_INTRODUCERS: Final = frozenset({"_utf8", "_utf8mb3", "_utf8mb4", "_latin1", "_ascii", "_binary"})
"""Before a string they say its encoding; of others a byte may be a quote."""
_NAME_CHARACTERS_MAX: Final = 64
_EXECUTED: Final = re.compile(r"(?P<own>M?)!(?P<version>[0-9]{5}[0-9]?)?")
_NOT_MARIADB: Final = range(50_700, 100_000)
"""Versions of MySQL for which MariaDB executes nothing, but where its own sign stands before them."""
_NAMED: Final = frozenset({Kind.WORD, Kind.NAME, Kind.VARIABLE})
_EXECUTES: Final = "there is a comment that the server executes, or a hint"


def _quoted(quote: str, *, backslash: bool) -> str:
    if backslash:
        return rf"{quote}[^{quote}\\]*+(?:(?:{quote}{quote}|\\(?s:.))[^{quote}\\]*+)*{quote}"
    return f"{quote}[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*{quote}"


@cache
def _lexical(*, backslash: bool, double_quotes_name: bool) -> re.Pattern[str]:
    strings = _quoted("'", backslash=backslash)
    names = _quoted("`", backslash=False)
    if double_quotes_name:
        names = rf"{names}|{_quoted(chr(34), backslash=False)}"
    else:
        strings = rf"{strings}|{_quoted(chr(34), backslash=backslash)}"
    return re.compile(
        rf"(?P<blank>{_BLANK}++|\#[^\n]*+|--(?=[\x00-\x20\x7f]|\Z)[^\n]*+)"
        r"|(?P<comment>/\*)"
        r"|(?P<bits>[bBxX]'[0-9A-Fa-f]*+')"
        rf"|(?P<string>[nN]?(?:{strings}))"
        rf"|(?P<name>{names})"
        r"|(?P<null>\\N)"
        rf"|(?P<glued>(?:[0-9]++\.[0-9]*+|{_NO_NAME}\.[0-9]++)(?:[eE][+-]?[0-9]++|(?![eE][+-]?[0-9]))[{_LETTER}]"
        rf"|[0-9]++[eE](?:[0-9]++[{_LETTER}]|[+-][0-9]++[{_LETTER}]))"
        rf"|(?P<number>(?:0x[0-9A-Fa-f]++|0b[01]++|[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|{_NO_NAME}\.[0-9]++"
        rf"(?:[eE][+-]?[0-9]++)?)(?![{_LETTER}0-9]))"
        rf"|(?P<word>[{_LETTER}0-9]++)"
        rf"|(?P<variable>@@?(?:[{_LETTER}0-9.]++|`[^`]++`)|@(?:'[^'\\]*+'|\"[^\"\\]*+\"))"
        r"|(?P<question>\?)"
        r"|(?P<operator><=>|->>|->|:=|\|\||&&|<<|>>|<=|>=|<>|!=|[~!^&|+\-*/%<>=])"
        # No @: alone it is a variable without a name. No [: MySQL has none, MariaDB's MSSQL mode takes it for a quote.
        r"|(?P<sign>[(),;.:])"
    )


_KINDS: Final = {
    "string": Kind.STRING,
    "bits": Kind.STRING,
    "null": Kind.NUMBER,
    "number": Kind.NUMBER,
    "question": Kind.PARAMETER,
    "operator": Kind.OPERATOR,
    "sign": Kind.SIGN,
    "variable": Kind.VARIABLE,
    "word": Kind.WORD,
}


def scan(message: bytes, reading: Reading) -> Scanned:
    """Take a message apart.

    Args:
        message: SQL as it was sent.
        reading: how the session reads; what of it is not known is a problem.
    """
    text, problems = message_text(message, reading)
    if problems:
        return Scanned(text=text, lexemes=(), problems=problems)
    lexemes: list[Lexeme] = []
    lexical = _lexical(backslash=not reading.plain_backslash, double_quotes_name=bool(reading.double_quotes_name))
    problem = _take(text, lexical, lexemes, reading.server) or _doubtful(lexemes, narrow=reading.encoding != "utf-8")
    return Scanned(text=text, lexemes=tuple(lexemes), problems=() if problem is None else (problem,))


class _UnreadableError(Exception):
    """A text cannot be taken apart; says why."""


def _take(text: str, lexical: re.Pattern[str], lexemes: list[Lexeme], server: Server | None) -> str | None:
    """Append the pieces of a text; give the reason why it cannot be taken apart."""
    try:
        _append(text, lexical, lexemes, server)
    except _UnreadableError as error:
        return str(error)
    return None


def _doubtful(lexemes: list[Lexeme], *, narrow: bool) -> str | None:
    for one in lexemes:
        if one.kind <= Kind.NAME and len(one.text) > _NAME_CHARACTERS_MAX:
            return f"a name has more than {_NAME_CHARACTERS_MAX} characters"
        if one.kind in _NAMED and not one.text.isascii():
            if narrow:
                return NOT_UTF_8  # and of many encodings, a byte beyond ASCII is a blank: 0xA0
            if any(len(letter.lower()) > 1 for letter in one.text):
                return "a name has a letter of which it is not certain how it is written small"
    return None


def _append(text: str, lexical: re.Pattern[str], lexemes: list[Lexeme], server: Server | None) -> None:
    at, end, match = 0, len(text), lexical.match
    executed = False
    while at < end:
        if executed and text.startswith("*/", at):
            executed, at = False, at + 2
            continue
        found = match(text, at)
        if found is None:
            raise _UnreadableError(f"there is something that is no SQL at character {at}")
        group, start, at = found.lastgroup or "", at, found.end()
        if group == "glued":
            raise _UnreadableError("a word stands right behind a number, where the server sees two")
        if group == "comment":
            if executed:
                raise _UnreadableError(_EXECUTES)
            executed, at = _comment(text, at, server)
        elif group != "blank":
            _piece(text, group, start, at, lexemes)
            if executed and lexemes[-1].text == ";":
                raise _UnreadableError(_EXECUTES)
    if executed:
        raise _UnreadableError("a comment has no end")


def _comment(text: str, at: int, server: Server | None) -> tuple[bool, int]:
    """Give whether what stands in a comment is executed, and where that begins; else where it ends."""
    if text.startswith(("!", "M!", "m!", "+"), at):
        begin = _executed(text, at, server)
        if begin is None:
            raise _UnreadableError(_EXECUTES)
        return True, begin
    end = text.find("*/", at)
    if end < 0:
        raise _UnreadableError("a comment has no end")
    return False, end + 2


def _piece(text: str, group: str, start: int, end: int, lexemes: list[Lexeme]) -> None:
    if len(lexemes) >= LEXEMES_MAX:
        raise _UnreadableError(f"there are more than {LEXEMES_MAX} words and signs")
    if group != "name":
        lexemes.append(Lexeme(_KINDS[group], text[start:end], start, end))
        if group == "string" and _foreign(lexemes):
            raise _UnreadableError("a string says an encoding in which a byte may be a quote")
        return
    quote = text[start]
    name = text[start + 1 : end - 1].replace(quote * 2, quote)
    if not name:
        raise _UnreadableError("a name is empty")
    lexemes.append(Lexeme(Kind.NAME, name, start, end))


def _executed(text: str, at: int, server: Server | None) -> int | None:
    """Give where the text of a comment begins that the server executes; None: it does not, or that is not known."""
    found = _EXECUTED.match(text, at)
    if found is None or server is None or (found["own"] and not server.mariadb):
        return None
    version = found["version"]
    if version is None:
        return found.end()
    number = int(version)
    passed_over = server.mariadb and not found["own"] and number in _NOT_MARIADB
    return found.end() if number <= server.version and not passed_over else None


def _foreign(lexemes: list[Lexeme]) -> bool:
    if not lexemes[:-1] or lexemes[-2].kind is not Kind.WORD:
        return False
    before = lexemes[-2].text.lower()
    return before.startswith("_") and before not in _SAFE_INTRODUCERS
