"""What a detector is made of: an opening of bounded length, and a run that goes on until something ends it.

What lives here: the two parts, the kinds of runs. What must not: any particular detector.

Openings look at a bounded number of bytes, so that one that may be cut off by the end of what has arrived can wait for a
bounded rest. Runs are found with one class of characters each, without going back: all of it takes time linear in the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

OPENING_BYTES_MAX: Final = 384
"""No opening, with what it looks at before and behind it, is longer."""


class Run(Enum):
    """What a value that was opened consists of; the pattern never fails and never takes more than one way."""

    NOTHING = rb""
    WORD = rb"[A-Za-z0-9_\-]*"
    DOTTED = rb"[A-Za-z0-9_.\-]*"
    BASE64 = rb"[A-Za-z0-9+/=_.~\-]*"
    BARE = rb"[^\s\"'&,;<>(){}\[\]\\|\x00]*"
    BASE64_LINES = rb"[A-Za-z0-9+/=\r\n]*"
    LINE = rb"[^\r\n\x00]*"
    LINE_UNQUOTED = rb"[^\r\n\x00\"']*"
    HASH = rb"[A-Za-z0-9./+=,$:\-]*"
    AUTHORITY = rb"[^\s/?#\"'<>\\\x00]*"
    USERINFO = rb"[^\s/?#@\"'<>\x00]*"
    DOUBLE_QUOTED = rb"(?:[^\"\\\r\n]|\\[^\r\n])*"
    SINGLE_QUOTED = rb"(?:[^'\\\r\n]|\\[^\r\n])*"
    SQL_QUOTED = rb"(?:[^'\x00]|'')*"
    ESCAPED_QUOTED = rb"(?:[^\"'\\\r\n]|\\\\(?:\\[\"'\\]|[^\"'\\\r\n])|\\[^\"'\\\r\n])*"
    TWICE_ESCAPED_QUOTED = rb"(?:[^\"'\\\r\n]|\\(?!\\{0,8}[\"']))*"
    PERCENT_USERINFO = rb"(?:[^%&\s\"'\x00]|%(?!40))*"
    PERCENT_QUOTED = rb"(?:[^%&\s\"'\x00]|%(?!22))*"
    ALL = rb"(?s:.*)"
    DOLLARS = rb"[^$\x00]*"
    TRIPLE_DOUBLE_QUOTED = rb"(?:[^\"\\\x00]|\\[^\x00]|\"(?!\"\"))*"
    TRIPLE_SINGLE_QUOTED = rb"(?:[^'\\\x00]|\\[^\x00]|'(?!''))*"
    LIST = rb"[^\]\x00]*"
    FIELD = rb"(?:[^\r\n\x00]|\r?\n(?=[ \t]))*"
    QUERY = rb"(?:[^\s&#\"'<>\\\x00]|['\"](?=[^\s,;:)\]}>&]))*"
    PART = rb"(?:[^\r\n]|\r(?!\n)|\r?\n(?!--))*"
    ELEMENT = rb"[^<\x00]*"
    PEM = rb"[^\x00]*"


PEM_END: Final = b"-----END "
PEM_BYTES_MAX: Final = 65_536
"""The longest key block that is looked for its end; RSA keys of 16,384 bits take 13 KiB."""

# Where a run's pattern looks at more than one byte, so many at the end of what has arrived cannot be judged yet.
LOOKAHEADS: Final = {
    Run.DOUBLE_QUOTED: 1,
    Run.SINGLE_QUOTED: 1,
    Run.SQL_QUOTED: 1,
    Run.ESCAPED_QUOTED: 4,
    Run.TWICE_ESCAPED_QUOTED: 9,
    Run.PERCENT_QUOTED: 2,
    Run.PERCENT_USERINFO: 2,
    Run.TRIPLE_DOUBLE_QUOTED: 2,
    Run.TRIPLE_SINGLE_QUOTED: 2,
    Run.FIELD: 2,
    Run.QUERY: 1,
    Run.PART: 4,
    Run.PEM: len(PEM_END),
}
QUOTES: Final = {
    b"": Run.BARE,
    b'"': Run.DOUBLE_QUOTED,
    b"'": Run.SINGLE_QUOTED,
    b'\\"': Run.ESCAPED_QUOTED,
    b"\\'": Run.ESCAPED_QUOTED,
    b"%22": Run.PERCENT_QUOTED,
    b'"""': Run.TRIPLE_DOUBLE_QUOTED,
    b"'''": Run.TRIPLE_SINGLE_QUOTED,
}
"""How a value goes on, by what opened it; what is not here was escaped more than once."""
RUNS: Final = {run: re.compile(run.value) for run in Run}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How one kind of value is recognised.

    Attributes:
        rule: what it is called where a masked place is told.
        kind: as in `Place`.
        pattern: regular expression of the opening. A group `v` says where the value begins, else it is the opening's
        start; with
            `after` it is the opening's end.
        trigger: what the pattern needs, for the prefilter: a regular expression without looking around, of which every match of
            the pattern contains one.
        literals: in lower case; one of them is in every match. Without any the trigger alone tells where to look.
        run: how the value goes on behind the opening.
        after: whether the value begins behind the opening.
        named: whether the pattern is matched against lower case, and names what it found in a group `n`; a group `q` is
        what opens
            the value and decides how it goes on (`QUOTES`), a group `l` what opens a list of values, `b` a block of
            lines; without any it goes on as `run`.
        cased: of a named one: it is matched against what is said as it is.
        begins: of a named one: what every match begins with, which is found faster than the pattern; openings that follow each
            other with the same are looked for together.
    """

    rule: str
    kind: str
    pattern: str
    trigger: str
    literals: tuple[str, ...] = ()
    run: Run = Run.NOTHING
    after: bool = False
    named: bool = False
    cased: bool = False
    begins: str = ""
