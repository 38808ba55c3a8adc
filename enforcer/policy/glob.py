"""Shell patterns for names and for paths.

What lives here: their syntax, matching, and when one of them covers another. What must not: hosts (host_pattern.py).

In a name `*` is any number of characters and `?` is one. In a path they stop at `/`; `**` does not, and `/x/**` is `/x` with
all below it. There is no escape and no `[...]`: a character that is none of these is itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from capd.enforcer.policy.action import Tri
from capd.enforcer.policy.linear_regex import compile_regex, literally

_WILD: Final = re.compile(r"\*\*|\*|\?")
_NAME_PARTS: Final = {"**": "(?s:.*)", "*": "(?s:.*)", "?": "(?s:.)"}
_PATH_PARTS: Final = {"**": "(?s:.*)", "*": "[^/]*", "?": "[^/]"}
_BELOW: Final = "/**"
REMEMBERED_MAX: Final = 16_384
"""Patterns of which is remembered how plain they are: rules are compared in pairs."""

Plain = tuple[frozenset[str], str | None]
"""Words, and the beginning of whatever else."""


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
        return _exact(self.text)

    @property
    def regex(self) -> str:
        """The same as a regular expression for a whole text."""
        return _translated(self.text, _NAME_PARTS)

    @property
    def plain(self) -> Plain | None:
        """The names that it is for, and with what all others begin; None when only a pattern can tell."""
        return _plain_name(self.text)

    def covers(self, other: Glob) -> bool:
        """Say whether it certainly matches all that the other one does; False is not certain."""
        return self.text in (other.text, "*", "**") or _covers(self, other)


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
        return _exact(self.text)

    @property
    def regex(self) -> str:
        """The same as a regular expression for a whole path."""
        above = _above(self.text)
        return _translated(above, _PATH_PARTS) + ("(?s:/.*)?" if above != self.text else "")

    @property
    def plain(self) -> Plain | None:
        """The paths that it is for, and with what all others begin; None when only a pattern can tell."""
        return _plain_path(self.text)

    def covers(self, other: PathGlob) -> bool:
        """Say whether it certainly matches all that the other one does; False is not certain."""
        return self.text in (other.text, "**", _BELOW) or _covers(self, other)


def _exact(text: str) -> bool:
    return _WILD.search(text) is None


@lru_cache(maxsize=REMEMBERED_MAX)
def _plain_name(text: str) -> Plain | None:
    if _exact(text):
        return frozenset({text}), None
    head = text.removesuffix("*")
    return (frozenset(), head) if _exact(head) else None


@lru_cache(maxsize=REMEMBERED_MAX)
def _plain_path(text: str) -> Plain | None:
    if _exact(text):
        return frozenset({text}), None
    above = _above(text)
    return (frozenset({above}), f"{above}/") if above != text and _exact(above) else None


def _above(text: str) -> str:
    """Give what a pattern for a path and all below it is below of; the pattern itself if it is another."""
    while text.endswith(_BELOW):
        text = text.removesuffix(_BELOW)
    return text


def _covers(wide: Glob | PathGlob, narrow: Glob | PathGlob) -> bool:
    """Say whether a pattern matches all that another one does that is not the same."""
    plain = wide.plain
    if plain is None:
        return narrow.exact and compile_regex(rf"\A(?:{wide.regex})\z")(narrow.text) is True
    words, beginning = plain
    return narrow.text in words or (beginning is not None and narrow.text.startswith(beginning))


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
