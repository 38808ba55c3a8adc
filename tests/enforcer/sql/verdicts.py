"""What came of statements that were tried on a server, and the shares of those that were told in full.

What lives here: counting, and why a statement cannot be told in full by whoever sees its text alone. What must not: servers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from capd.enforcer.sql.message import Message

COMPLETE = "complete"
INCOMPLETE = "incomplete"
REFUSED = "refused by the server"
CODE = "code is elsewhere"
"""Of an incomplete statement: it runs, or makes, code that stands elsewhere than in its text."""
_CODE = re.compile(
    "it runs code that capd does not see|it runs a program|there is a program in it, which capd does not read"
    r"|what (query_to_xml.*|cursor_to_xml.*|ts_stat|ts_rewrite|dblink.*)\(\) does stands in its arguments"
    "|.* may be a function that takes what is before the dot|there is a function .*\\(\\) that is not the server's own"
)
_DEFINES_CODE = re.compile(
    r"(?is)(create|alter|drop)\s+(or\s+replace\s+)?(constraint\s+|default\s+|trusted\s+|procedural\s+)*"
    r"(function|procedure|routine|aggregate|operator|cast|trigger|event\s+trigger|rule|extension|language|transform|type|conversion"
    r"|access\s+method|text\s+search\s+(parser|template)|foreign|server|user\s+mapping|subscription|system)\b.*"
)
"""Also what reaches another server, and what makes this one run programs."""
_DEFINED = "what it defines is code, or reaches outside, and capd does not see what that does"
_BY_EXECUTE = re.compile(r"(?is).*\bcreate\b.*\bas\s+execute\b.*")
_NAMES = re.compile(r"'[^']*'")
_UNKNOWN = re.compile(r"it is not known what the function (.*)\(\) does")
LISTED_MAX = 60


@dataclass(slots=True, kw_only=True)
class Verdicts:
    """What came of statements.

    Attributes:
        counts: how many were complete, incomplete, refused by the server, wrong; by what.
        wrong: statements about which capd was sure and wrong, and why.
        why: reasons for incompleteness.
        excused: what more the server did, as the schema has it.
        lost: statements that could not be compared, and why.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    excused: Counter[str] = field(default_factory=Counter)
    lost: list[tuple[str, str]] = field(default_factory=list)

    def count(self, text: bytes, read: Message, functions: AbstractSet[str]) -> None:
        """Count a statement that the server took.

        Args:
            text: the statement.
            read: what capd said of it.
            functions: names of those that are not the server's own, with and without schemas.
        """
        self.counts[COMPLETE if read.complete else INCOMPLETE] += 1
        if read.complete:
            return
        written = text.decode("utf-8", "replace")
        code = any(_is_code(problem, written, functions) for problem in read.problems)
        self.counts[CODE] += code
        plain = ("CODE: " if code else "") + _NAMES.sub("X", read.problems[0])
        self.why[plain] += 1
        self.examples.setdefault(plain, [])
        self.examples[plain].append(written)

    def add(self, other: Verdicts) -> None:
        """Add what came of others."""
        self.counts += other.counts
        self.why += other.why
        self.excused += other.excused
        self.wrong += other.wrong
        self.lost += other.lost
        for name, texts in other.examples.items():
            self.examples.setdefault(name, []).extend(texts)

    @property
    def taken(self) -> int:
        """How many the server took."""
        return self.counts[COMPLETE] + self.counts[INCOMPLETE]

    @property
    def share(self) -> float:
        """Which share of all was told in full."""
        return self.counts[COMPLETE] / self.taken

    @property
    def share_of_readable(self) -> float:
        """Which share of those was told in full that neither run nor make code that stands elsewhere."""
        return self.counts[COMPLETE] / (self.taken - self.counts[CODE])

    def report(self) -> str:
        """Give it as text."""
        lines = [f"{count:7} {name}" for name, count in self.counts.most_common()]
        lines += [f"{count:7} {name}   | {self.examples[name][0][:160]!r}" for name, count in self.why.most_common(LISTED_MAX)]
        lines += [f"{count:7} excused: {name}" for name, count in self.excused.most_common()]
        lines += [f"WRONG {text[:300]}\n      {problem}" for text, problem in self.wrong]
        lines += [f"LOST {text[:300]}\n      {problem}" for text, problem in self.lost]
        lines.append(f"of {self.taken} statements {self.share:.2%} are complete, {len(self.wrong)} of them told wrongly")
        lines.append(f"of those whose code is in their text, {self.share_of_readable:.2%}")
        return "\n".join(lines) + "\n"


def _is_code(problem: str, text: str, functions: AbstractSet[str]) -> bool:
    unknown = _UNKNOWN.fullmatch(problem)
    if unknown is not None:
        return unknown[1].rpartition(".")[2] in functions
    if problem == _DEFINED:
        return _DEFINES_CODE.fullmatch(text) is not None
    return (_CODE.fullmatch(problem) or _BY_EXECUTE.fullmatch(text)) is not None
