"""Takes a message of MySQL or MariaDB apart as the server's own scanner does.

What lives here: its lexical rules. What must not: what words mean.

Source: MySQL Reference Manual 8.0, sections 9.1 to 9.7; MariaDB's "Comment Syntax". A comment that is executed (`/*!`, `/*M!`)
and a hint (`/*+`) are problems: what of them counts depends on the server's version. `DELIMITER` is the client's alone.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from capd.enforcer.sql.lexeme import LEXEMES_MAX, Kind, Lexeme, Reading, Scanned
from capd.enforcer.sql.message_text import message_text

_LETTER: Final = r"A-Za-z_$\x80-\U0010ffff"
_BLANK: Final = r"[ \t\n\r\f\v]"
_SAFE_INTRODUCERS: Final = frozenset({"_utf8", "_utf8mb3", "_utf8mb4", "_latin1", "_ascii", "_binary"})
"""Before a string they say its encoding; of others a byte may be a quote."""
_NAME_CHARACTERS_MAX: Final = 64


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
        rf"|(?P<number>(?:0x[0-9A-Fa-f]++|0b[01]++|[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|(?<![\w`\".])\.[0-9]++"
        rf"(?:[eE][+-]?[0-9]++)?)(?![{_LETTER}0-9]))"
        rf"|(?P<word>[{_LETTER}0-9]++)"
        rf"|(?P<variable>@@?(?:[{_LETTER}0-9.]++|`[^`]++`)|@(?:'[^'\\]*+'|\"[^\"\\]*+\"))"
        r"|(?P<question>\?)"
        r"|(?P<operator><=>|->>|->|:=|\|\||&&|<<|>>|<=|>=|<>|!=|[~!^&|+\-*/%<>=])"
        r"|(?P<sign>[()\[\],;.:@])"
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
    problem = _take(
        text, _lexical(backslash=not reading.plain_backslash, double_quotes_name=bool(reading.double_quotes_name)), lexemes
    )
    return Scanned(text=text, lexemes=tuple(lexemes), problems=() if problem is None else (problem,))


def _take(text: str, lexical: re.Pattern[str], lexemes: list[Lexeme]) -> str | None:
    """Append the pieces of a text; give the reason why it cannot be taken apart."""
    at, end, match = 0, len(text), lexical.match
    while at < end:
        found = match(text, at)
        if found is None:
            return f"there is something that is no SQL at character {at}"
        group, start, at = found.lastgroup, at, found.end()
        if group == "blank":
            continue
        if len(lexemes) >= LEXEMES_MAX:
            return f"there are more than {LEXEMES_MAX} words and signs"
        if group == "comment":
            if text.startswith(("!", "M!", "m!", "+"), at):
                return "there is a comment that the server executes, or a hint"
            at = text.find("*/", at)
            if at < 0:
                return "a comment has no end"
            at += 2
        elif group == "name":
            quote = text[start]
            name = text[start + 1 : at - 1].replace(quote * 2, quote)
            if not name:
                return "a name is empty"
            lexemes.append(Lexeme(Kind.NAME, name, start, at))
        else:
            lexemes.append(Lexeme(_KINDS[group or ""], text[start:at], start, at))
            if group == "string" and _foreign(lexemes):
                return "a string says an encoding in which a byte may be a quote"
    if any(one.kind <= Kind.NAME and len(one.text) > _NAME_CHARACTERS_MAX for one in lexemes):
        return f"a name has more than {_NAME_CHARACTERS_MAX} characters"
    return None


def _foreign(lexemes: list[Lexeme]) -> bool:
    if not lexemes[:-1] or lexemes[-2].kind is not Kind.WORD:
        return False
    before = lexemes[-2].text.lower()
    return before.startswith("_") and before not in _SAFE_INTRODUCERS
