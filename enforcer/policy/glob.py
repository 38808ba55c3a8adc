"""Shell patterns for names and for paths.

What lives here: their syntax, matching, and when one of them covers another. What must not: hosts (host_pattern.py).

In a name `*` is any number of characters and `?` is one. In a path they stop at `/`; `**` does not, and `/x/**` is `/x` with
all below it. There is no escape and no `[...]`: a character that is none of these is itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.policy.action import Tri
from capd.enforcer.policy.linear_regex import compile_regex, literally

_WILD: Final = re.compile(r"\*\*|\*|\?")
_NAME_PARTS: Final = {"**": "(?s:.*)", "*": "(?s:.*)", "?": "(?s:.)"}
_PATH_PARTS: Final = {"**": "(?s:.*)", "*": "[^/]*", "?": "[^/]"}
_BELOW: Final = "/**"


@dataclass(frozen=True, slots=True, order=True)
class Glob:
    """A pattern for names.

    Attributes:
        text: as it was written.
    """

    text: str

    @property
    def exact(self) -> bool:
        """Whether it is a name itself."""
        return _WILD.search(self.text) is None

    @property
    def regex(self) -> str:
        """The same as a regular expression for a whole text."""
        return _translated(self.text, _NAME_PARTS)

    @property
    def plain(self) -> tuple[frozenset[str], str | None] | None:
        """The names that it is for, and with what all others begin; None when only a pattern can tell."""
        if self.exact:
            return frozenset({self.text}), None
        head = self.text.removesuffix("*")
        return (frozenset(), head) if Glob(head).exact else None

    def covers(self, other: Glob) -> bool:
        """Say whether it certainly matches all that the other one does; False is not certain."""
        if self.text in (other.text, "*", "**"):
            return True
        if other.exact:
            return compile_regex(rf"\A(?:{self.regex})\z")(other.text) is True
        # `app-*` covers `app-x-*`: what stands before the first star is all that it asks for.
        head, star, rest = self.text.partition("*")
        return star == "*" and not rest and "?" not in head and other.text.startswith(head)


@dataclass(frozen=True, slots=True, order=True)
class PathGlob:
    """A pattern for normalised paths (http_path.py).

    Attributes:
        text: as it was written.
    """

    text: str

    @property
    def exact(self) -> bool:
        """Whether it is a path itself."""
        return _WILD.search(self.text) is None

    @property
    def regex(self) -> str:
        """The same as a regular expression for a whole path."""
        if self.text.endswith(_BELOW):
            return f"{_translated(self.text.removesuffix(_BELOW), _PATH_PARTS)}(?s:/.*)?"
        return _translated(self.text, _PATH_PARTS)

    @property
    def plain(self) -> tuple[frozenset[str], str | None] | None:
        """The paths that it is for, and with what all others begin; None when only a pattern can tell."""
        if self.exact:
            return frozenset({self.text}), None
        above = self.text.removesuffix(_BELOW)
        return (frozenset({above}), f"{above}/") if above != self.text and PathGlob(above).exact else None

    def covers(self, other: PathGlob) -> bool:
        """Say whether it certainly matches all that the other one does; False is not certain."""
        if self.text in (other.text, "**", _BELOW):
            return True
        if other.exact:
            return compile_regex(rf"\A(?:{self.regex})\z")(other.text) is True
        above = self.text.removesuffix(_BELOW)
        if above == self.text or not PathGlob(above).exact:
            return False
        return other.text.startswith(f"{above}/")


def any_of(globs: Sequence[Glob] | Sequence[PathGlob]) -> Callable[[str], Tri]:
    """Give a function that says whether any of the patterns is for the whole of a text.

    Most patterns are words, or beginnings. Asking those takes a third of what a regular expression does, and of a thousand
    regular expressions far more than that: each has a memory of its own.
    """
    plain = [glob.plain for glob in globs if glob.plain is not None]
    exact = frozenset[str]().union(*(words for words, _ in plain))
    beginnings = tuple(beginning for _, beginning in plain if beginning is not None)
    wild = [glob.regex for glob in globs if glob.plain is None]
    if not wild and not beginnings:
        return exact.__contains__
    if not wild:
        return lambda text: text.startswith(beginnings) or text in exact
    search = compile_regex(rf"\A(?:{'|'.join(wild)})\z")
    if not exact and not beginnings:
        return search
    return lambda text: text in exact or text.startswith(beginnings) or search(text)


def _translated(text: str, parts: dict[str, str]) -> str:
    found: list[str] = []
    end = 0
    for wild in _WILD.finditer(text):
        found += literally(text[end : wild.start()]), parts[wild.group()]
        end = wild.end()
    return "".join([*found, literally(text[end:])])
