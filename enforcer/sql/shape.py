"""The shape of a statement: what of it stays when its literals are others; and the text that the parser is shown.

What lives here: both texts. What must not: what they do.

Statements of one shape have the same effects, unless `Effects.literal` says otherwise. Lists of literals have one shape
whatever their length: `IN (1, 2)` and `IN (1, 2, 3)`, one row of VALUES or many.

The parser never sees what was sent: it sees the pieces that our own scanner found, each once more written plainly. So it cannot
see other strings, comments or statements than the scanner did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.lexeme import LITERALS, Dialect, Kind, Lexeme
from capd.enforcer.sql.postgresql_rewritten import rewritten
from capd.enforcer.sql.statement import Statement

_SIGNED: Final = re.compile(r"(?<=[(,] )[-+] (?=\?)")
_LIST: Final = re.compile(r"([(\[]) \?(?: , \?)+ ([)\]])")
_ROWS: Final = re.compile(r"(\( \?\+? \))(?: , \( \?\+? \))+")
_SHOWN_LIST: Final = r"\( (?:'1'|1|null|true|false|default)(?: , (?:'1'|1|null|true|false|default))* \)"
_SHOWN_IN: Final = re.compile(rf"\bin {_SHOWN_LIST}")
_SHOWN_ROWS: Final = re.compile(rf"\bvalues {_SHOWN_LIST}(?: , {_SHOWN_LIST})*")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_STAND_IN: Final = "n"


def shape(statement: Statement) -> str:
    """Give a statement's shape."""
    text = " ".join([_written(one) for one in statement.lexemes])
    if (" ? ," in text or "( ?" in text or "- ?" in text) and not any(
        "?" in one.text for one in statement.lexemes if one.kind is Kind.NAME
    ):
        text = _SIGNED.sub("", text)
        text = _LIST.sub(r"\1 ?+ \2", text)
        text = _ROWS.sub(r"( ?+ )", text)
    return text


def _written(one: Lexeme) -> str:
    kind, text = one[:2]
    if kind is Kind.WORD:
        return text
    if kind in LITERALS:
        return "?"
    if kind is Kind.NAME:
        return '"' + text.replace('"', '""') + '"'
    return text.replace("?", "\\?") if kind is Kind.OPERATOR else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the parser is shown.

    Attributes:
        text: the text.
        names: what stands for names that are more than plain words: `n0` in quotes is the first.
    """

    text: str
    names: tuple[str, ...]

    def name(self, text: str, *, quoted: bool) -> str:
        """Give the name that was written where the parser found one."""
        return self.names[int(text.removeprefix(_STAND_IN))] if quoted else text


def shown(statement: Statement) -> Shown | None:
    """Give the text that the parser is shown; None: it has what nobody knows."""
    words: list[str] = []
    names: dict[str, int] = {}
    postgresql = statement.dialect is Dialect.POSTGRESQL
    quote = '"' if postgresql else "`"
    try:
        others = rewritten(statement) if postgresql else {}
    except ValueError:
        return None
    at = 0
    while at < len(statement.lexemes):
        other = others.get(at)
        if other is not None:
            words.append(other[0])
            at += other[1]
            continue
        kind, text = statement.lexemes[at][:2]
        if kind is Kind.NAME or (kind is Kind.WORD and _PLAIN_WORD.fullmatch(text) is None):
            words.append(f"{quote}{_STAND_IN}{names.setdefault(text, len(names))}{quote}")
        elif kind in LITERALS:
            words.append("'1'" if kind is Kind.STRING else "1")
        else:
            words.append(text)
        at += 1
    lists = _SHOWN_ROWS.sub("values ( 1 )", _SHOWN_IN.sub("in ( 1 )", " ".join(words)))
    return Shown(text=lists, names=tuple(names))
