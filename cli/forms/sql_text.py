r"""Where a statement of SQL ends, as psql and MySQL's own client see it, so that a file of statements does what it seems to do.

What lives here: the lexer. What must not: records, what is done with a statement.

Whoever wrote the statement was recorded, not trusted: one that leaves a quote open would swallow what follows in the file,
and a backslash outside of quotes is a command of psql (`\!` runs a program).
"""

from __future__ import annotations

import re
from typing import Final

_START: Final = r"A-Za-z_\u0080-\U0010ffff"
_COMMON: Final = (
    r"(?P<space>\s+)"
    r"|(?P<line>--[^\n\r]*)"
    r"|(?P<block>/\*)"
    rf"|(?P<dollar>\$(?:[{_START}][{_START}0-9]*)?\$)"
    r"|(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?P<escaped_end>'|\Z))"
    r'|(?P<name>"(?:[^"]|"")*(?P<name_end>"|\Z))'
    rf"|(?P<word>[{_START}][{_START}0-9$]*)"
    r"|(?P<number>[0-9]+|\$[0-9]+)"
)
_PLAIN: Final = r"|(?P<quoted>'(?:[^']|'')*(?P<quoted_end>'|\Z))"
_WITH_ESCAPES: Final = r"|(?P<quoted>'(?:[^'\\]|\\.|'')*(?P<quoted_end>'|\Z))"
_REST: Final = r"|(?P<other>.)"
_LEXERS: Final = tuple(re.compile(_COMMON + quoted + _REST, re.DOTALL) for quoted in (_PLAIN, _WITH_ESCAPES))
"""With standard_conforming_strings on, and off: nobody knows what the server had, or the reader's will."""
_MYSQL_COMMON: Final = (
    r"(?P<space>\s+)"
    r"|(?P<line>(?:\#|--(?=[\s\x00-\x1f]|\Z))[^\n\r]*)"
    r"|(?P<executed>/\*M?!)"
    r"|(?P<plain_block>/\*.*?(?:\*/|(?P<plain_block_open>\Z)))"
    r"|(?P<name>`(?:[^`]|``)*(?P<name_end>`|\Z))"
    rf"|(?P<word>[{_START}$][{_START}0-9$]*)"
    r"|(?P<number>[0-9]+)"
)
_MYSQL_PLAIN: Final = r"""|(?P<quoted>'(?:[^']|'')*(?P<quoted_end>'|\Z))|(?P<double>"(?:[^"]|"")*(?P<double_end>"|\Z))"""
_MYSQL_WITH_ESCAPES: Final = (
    r"""|(?P<quoted>'(?:[^'\\]|\\.|'')*(?P<quoted_end>'|\Z))|(?P<double>"(?:[^"\\]|\\.|"")*(?P<double_end>"|\Z))"""
)
_MYSQL_LEXERS: Final = tuple(
    re.compile(_MYSQL_COMMON + quoted + _REST, re.DOTALL) for quoted in (_MYSQL_PLAIN, _MYSQL_WITH_ESCAPES)
)
"""With NO_BACKSLASH_ESCAPES, and without."""
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_CLIENT_COMMANDS: Final = re.compile(
    r"^\s*(?:charset|clear|connect|delimiter|edit|ego|exit|go|help|nopager|notee|nowarning|pager|print|prompt|quit|rehash"
    r"|resetconnection|source|status|system|tee|warnings|\?)\b|\bload\b.*\blocal\b",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
_COPY: Final = re.compile(r"\bcopy\b.*\bfrom\s+(?:stdin|program)\b|\bto\s+program\b", re.IGNORECASE | re.DOTALL)


def is_closed(statement: str, *, mysql: bool = False) -> bool:
    """Say whether a statement ends where its text does, and is nothing but SQL, however quotes are read."""
    return all(_closed(statement, lexer) for lexer in (_MYSQL_LEXERS if mysql else _LEXERS))


def takes_what_follows(statement: str, *, mysql: bool = False) -> bool:
    """Say whether the client would read the lines after the statement as its data, or a file, or start a program for it."""
    return (_CLIENT_COMMANDS if mysql else _COPY).search(statement) is not None


def _closed(statement: str, lexer: re.Pattern[str]) -> bool:
    at = 0
    while at < len(statement):
        found = lexer.match(statement, at)
        if found is None:
            return False
        kind = found.lastgroup or ""
        kind = kind.removesuffix("_end")
        at = found.end()
        if kind in {"quoted", "escaped", "name", "double"} and found[f"{kind}_end"] == "":
            return False
        if kind == "executed" or (kind.startswith("plain_block") and found["plain_block_open"] is not None):
            # What stands in a comment that is executed decides the server's version.
            return False
        if kind == "other" and found[0] == "\\":
            return False
        if kind == "block":
            at = _after_comment(statement, at)
        elif kind == "dollar":
            end = statement.find(found[0], at)
            at = -1 if end < 0 else end + len(found[0])
        if at < 0:
            return False
    return True


def _after_comment(statement: str, at: int) -> int:
    """Give where a comment ends, those inside of it included; -1: nowhere."""
    depth = 1
    while depth:
        found = _COMMENT_EDGE.search(statement, at)
        if found is None:
            return -1
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at
