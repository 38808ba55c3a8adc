"""Takes a message of PostgreSQL apart as the server's own scanner does.

What lives here: its lexical rules. What must not: what words mean.

Source: PostgreSQL documentation, section 4.1 (lexical structure), as of version 15; what 16 added (numbers with underscores, in
other bases) and what 15 forbade (a name right after a number) is not read. Where a rule is not certain, there is a problem, and
nobody believes the pieces.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from capd.enforcer.sql.lexeme import LEXEMES_MAX, Kind, Lexeme, Reading, Scanned
from capd.enforcer.sql.message_text import NOT_UTF_8, message_text

_LETTER: Final = r"A-Za-z_\x80-\U0010ffff"
_BLANK: Final = r"[ \t\n\r\f]"
# Strings go on in the next line, in the same manner: section 4.1.2.1.
# Possessive are classes of characters only: of groups, Python 3.11.2 keeps what they did not match.
_NEXT: Final = rf"(?:[ \t\f]|--[^\n\r]*+)*[\n\r](?:{_BLANK}|--[^\n\r]*+[\n\r])*'"
_PLAIN: Final = rf"'[^']*+(?:''[^']*+)*'(?:{_NEXT}[^']*+(?:''[^']*+)*')*"
_ESCAPED: Final = rf"'[^'\\]*+(?:(?:''|\\(?s:.))[^'\\]*+)*'(?:{_NEXT}[^'\\]*+(?:(?:''|\\(?s:.))[^'\\]*+)*')*"
_BITS: Final = rf"'[^']*+'(?:{_NEXT}[^']*+')*"
_NAME_BYTES_MAX: Final = 63
"""NAMEDATALEN - 1: the server cuts longer names."""


@cache
def _lexical(plain: str) -> re.Pattern[str]:
    """Give the rules. Compiled when they are needed first: that takes a tenth of a second."""
    return re.compile(
        rf"(?P<blank>{_BLANK}++|--[^\n\r]*+)"
        rf"|(?P<escaped>[eE]{_ESCAPED})"
        rf"|(?P<bits>[bBxX]{_BITS})"
        r"|(?P<unicode>[uU]&['\"])"
        rf"|(?P<string>[nN]?{plain})"
        rf"|(?P<word>[{_LETTER}][{_LETTER}0-9$]*+)"
        r'|(?P<name>"[^"]*+(?:""[^"]*+)*")'
        rf"|(?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*+)?\$)"
        rf"|(?P<parameter>\$[0-9]++(?![{_LETTER}]))"
        rf"|(?P<number>(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?(?![{_LETTER}.]))"
        r"|(?P<comment>/\*)"
        r"|(?P<operator>(?:(?!--|/\*)[~!@#^&|`?+\-*/%<>=])+)"
        r"|(?P<sign>::|:=|\.\.|[()\[\],;.:])"
    )


_COMMENT: Final = re.compile(r"/\*|\*/")
_SPECIAL: Final = frozenset("~!@#%^&|`?")
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
"""ASCII only: what the server does beyond it depends on its encoding and locale."""
_KINDS: Final = {
    "string": Kind.STRING,
    "escaped": Kind.STRING,
    "bits": Kind.STRING,
    "parameter": Kind.PARAMETER,
    "number": Kind.NUMBER,
    "sign": Kind.SIGN,
}


def scan(message: bytes, reading: Reading) -> Scanned:
    """Take a message apart.

    Args:
        message: SQL as it was sent, without the zero byte at its end.
        reading: how the session reads; what of it is not known is a problem.
    """
    text, problems = message_text(message, reading)
    if problems:
        return Scanned(text=text, lexemes=(), problems=problems)
    lexemes: list[Lexeme] = []
    problem = _take(text, _lexical(_PLAIN if reading.plain_backslash else _ESCAPED), lexemes)
    problem = problem or _doubtful(lexemes, narrow=reading.encoding != "utf-8")
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
        if group == "word":
            lexemes.append(Lexeme(Kind.WORD, text[start:at].translate(_LOWER), start, at))
        elif group in _KINDS:
            lexemes.append(Lexeme(_KINDS[group], text[start:at], start, at))
        elif group == "comment":
            at = _comment_end(text, at)
            if at < 0:
                return "a comment has no end"
        else:
            taken = _other(text, start, found, lexemes)
            if isinstance(taken, str):
                return taken
            at = taken
    return None


def _doubtful(lexemes: list[Lexeme], *, narrow: bool) -> str | None:
    for one in lexemes:
        if narrow and one.kind <= Kind.NAME and not one.text.isascii():
            return NOT_UTF_8
        if one.kind is Kind.WORD and not one.text.isascii() and one.text != one.text.lower():
            return "a name without quotes has letters beyond ASCII, whose case the server may change"
        if one.kind <= Kind.NAME and len(one.text) * 4 > _NAME_BYTES_MAX and len(one.text.encode()) > _NAME_BYTES_MAX:
            return f"a name has more than {_NAME_BYTES_MAX} bytes; the server cuts it"
    return None


def _other(text: str, start: int, found: re.Match[str], lexemes: list[Lexeme]) -> int | str:
    """Take a name, a string in dollars, or an operator; give where it ends, or why that is not certain."""
    at = found.end()
    if found.lastgroup == "name":
        name = text[start + 1 : at - 1].replace('""', '"')
        if not name:
            return "a name is empty"
        lexemes.append(Lexeme(Kind.NAME, name, start, at))
        return at
    if found.lastgroup == "dollar":
        at = text.find(found.group(), at)
        if at < 0:
            return "a string has no end"
        at += len(found.group())
        lexemes.append(Lexeme(Kind.STRING, text[start:at], start, at))
        return at
    if found.lastgroup == "operator":
        # Section 4.1.3: + and - end an operator only beside certain other characters.
        while at - start > 1 and text[at - 1] in "+-" and not _SPECIAL.intersection(text[start:at]):
            at -= 1
        lexemes.append(Lexeme(Kind.OPERATOR, text[start:at], start, at))
        return at
    return "there are Unicode escapes, which capd does not read"


def _comment_end(text: str, at: int) -> int:
    """Give where a comment ends, within which others may stand; -1: nowhere."""
    depth = 1
    for found in _COMMENT.finditer(text, at):
        depth += 1 if found.group() == "/*" else -1
        if not depth:
            return found.end()
    return -1
