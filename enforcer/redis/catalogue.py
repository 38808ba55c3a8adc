"""What a server says of its own commands.

What lives here: reading data/commands.txt, which packaging/redis_catalogue.py asks of a server. What must not: what capd adds
by hand (effects.py), finding keys (keys.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

BAR: Final = "|"
"""Between the name of a command and of its subcommand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where keys of a command are (redis.io, "Key specifications").

    Attributes:
        flags: RO, RW, OW or RM, and access, update, insert, delete, not_key...
        begin: how the first place is found: `index` or `keyword`, with what follows; `unknown`.
        find: how keys are found from there: `range` or `keynum`, with what follows; `unknown`.
    """

    flags: frozenset[str]
    begin: tuple[str, ...]
    find: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One command.

    Attributes:
        name: in upper case, with its subcommand: `CONFIG|SET`.
        arity: how many words it has; below zero: at least so many.
        flags, categories: as the server names them.
        searches: where its keys are.
        container: whether it is nothing without a subcommand.
    """

    name: str
    arity: int
    flags: frozenset[str]
    categories: frozenset[str]
    searches: Sequence[Search]
    container: bool = False

    def takes(self, count: int) -> bool:
        """Say whether it may have so many words, with those of its name."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity


@cache
def catalogue() -> Mapping[str, Known]:
    """Give all commands by name."""
    text = files("capd.enforcer.redis").joinpath("data/commands.txt").read_text(encoding="ascii")
    rows = [line.split(" ") for line in text.splitlines() if not line.startswith("#")]
    containers = {row[0].partition(BAR)[0] for row in rows if BAR in row[0]}
    return {row[0]: _known(row, container=row[0] in containers) for row in rows}


def _known(row: list[str], *, container: bool) -> Known:
    name, arity, flags, categories, *searches = row
    return Known(
        name=name,
        arity=int(arity),
        flags=_set(flags),
        categories=_set(categories),
        searches=tuple(_search(search) for search in searches),
        container=container,
    )


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split("+")) - {"-"}


def _search(text: str) -> Search:
    flags, begin, find = text.split(",")
    return Search(flags=_set(flags), begin=tuple(begin.split(":")), find=tuple(find.split(":")))


def look_up(arguments: Sequence[bytes]) -> Known | None:
    """Give the command that words are; None: there is none of that name, or its subcommand is not known.

    Names are compared as Redis does, without regard to the case of letters of ASCII.
    """
    known = catalogue().get(_name(arguments[0]))
    if known is None or not known.container:
        return known
    if len(arguments) == 1:
        return known if known.takes(1) else None
    return catalogue().get(f"{known.name}{BAR}{_name(arguments[1])}")


def _name(word: bytes) -> str:
    return word.decode("latin-1").upper() if word.isascii() else ""
