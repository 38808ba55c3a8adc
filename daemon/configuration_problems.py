"""What is wrong with a configuration: where, in words for who has to mend it, and what to do.

What lives here: turning what the model says into that. What must not: judging (configuration.py), values of a file: one that is
wrong may be a secret that stands in the wrong place, so none is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from capd.daemon.configuration_files import Key, Layered, Origin

if TYPE_CHECKING:
    from pydantic import ValidationError

DOCUMENTED: Final = "docs/configuration.md lists all, and so does `man capd.toml`"
SUGGESTIONS_MAX: Final = 3
STANDS: Final = "what stands there"
QUOTED: Final = re.compile(r"'[^']+'|\"[^\"]+\"")
"""How our own validators, and the libraries they ask, repeat what they were given."""
PLAINLY: Final = {
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be an array",
    "list_type": "must be an array",
    "string_type": "must be a string, in quotes",
    "path_type": "must be a path, in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
}
"""What the model says in words of its own language, by its kind."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        origin: file and line; None: it is in no line, such as a key that is missing.
        file: the file, or the files, that were read.
        key: in words; empty where it is the whole.
        problem: what is wrong.
        next_step: what to do.
    """

    origin: Origin | None
    file: str
    key: str
    problem: str
    next_step: str

    def __str__(self) -> str:
        place = self.file if self.origin is None else str(self.origin)
        return f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"

    def to_json(self) -> dict[str, object]:
        """Give it as `capd config check --json` prints it (docs/json.md)."""
        file, line = (self.file, None) if self.origin is None else (self.origin.file, self.origin.line)
        return {"file": file, "line": line, "key": self.key, "problem": self.problem, "next_step": self.next_step}


def problems_of(error: ValidationError, layered: Layered, source: str) -> Iterator[Problem]:
    """Give every problem that the model found, in the order of the files.

    Args:
        error: the model's.
        layered: what was judged.
        source: what to name where no line can be.
    """
    found = [
        _problem(tuple(item["loc"]), item["type"], _told(item["type"], item["msg"], item["input"]), layered, source)
        for item in error.errors(include_url=False)
    ]
    ranks = {str(path): number for number, path in enumerate(layered.files)}
    yield from sorted(found, key=lambda one: (0, 0) if one.origin is None else (ranks.get(one.origin.file, 0), one.origin.line))


def _told(kind: str, message: str, value: object) -> str:
    """Give the words of a validator of ours without what it was given; the model's own name what may be there, nothing else."""
    return _without(message, value) if kind == "value_error" else message


def _without(message: str, value: object) -> str:
    """Leave out what stands in the file, also a part of it, also in small letters: it may be a secret in the wrong place."""
    if isinstance(value, str) and value:
        message = message.replace(repr(value), STANDS)
    there = str(value).casefold()
    return QUOTED.sub(lambda found: STANDS if found[0][1:-1].casefold() in there else found[0], message)


def _problem(location: Key, kind: str, message: str, layered: Layered, source: str) -> Problem:
    from capd.daemon import configuration_reference as reference  # noqa: PLC0415 - it reads the model, which imports this

    key, origin = _placed(location, layered.origins)
    words = PLAINLY.get(kind, message.removeprefix("Value error, "))
    if kind == "extra_forbidden":
        words, step = _unknown(location)
    elif kind == "missing":
        words, step = "is missing", _described(reference.entry_at(location))
    else:
        step = _described(reference.entry_at(key))
    return Problem(
        origin=origin if kind != "missing" else _above(location, layered.origins),
        file=source,
        key=reference.written(location if kind in {"extra_forbidden", "missing"} else key),
        problem=words,
        next_step=step,
    )


def _placed(location: Key, origins: Mapping[Key, Origin]) -> tuple[Key, Origin | None]:
    """Give as much of a location as is in a file; the model adds words of its own."""
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return location[:length], origins[location[:length]]
    known = tuple(part for part in location if not (isinstance(part, str) and part.startswith("[")))
    return known, None


def _above(location: Key, origins: Mapping[Key, Origin]) -> Origin | None:
    return _placed(location[:-1], origins)[1] if len(location) > 1 else None


def _unknown(location: Key) -> tuple[str, str]:
    """Say that there is no such key, and which is meant."""
    from capd.daemon import configuration_reference as reference  # noqa: PLC0415 - as above

    *above, name = location
    beside = reference.children(above)
    close = [reference.written((*above, one)) for one in get_close_matches(str(name), beside, SUGGESTIONS_MAX)]
    elsewhere = [entry.key for entry in reference.entries() if entry.path[-1] == name]
    meant = list(dict.fromkeys([*close, *elsewhere]))[:SUGGESTIONS_MAX]
    if not meant:
        return "no such key", DOCUMENTED
    return f"no such key; is {_either(meant)} meant?", DOCUMENTED


def _either(words: Sequence[str]) -> str:
    *most, last = (f"`{word}`" for word in words)
    return f"{', '.join(most)} or {last}" if most else last


def _described(entry: object) -> str:
    from capd.daemon.configuration_reference import Entry  # noqa: PLC0415 - as above

    if not isinstance(entry, Entry):
        return DOCUMENTED
    limits = f", {entry.limits}" if entry.limits else ""
    unit = f", in {entry.unit}" if entry.unit and entry.kind != "array of tables" else ""
    without = "" if entry.required else f"; without it: {entry.shown_default}"
    return f"{entry.meaning}: {entry.kind}{unit}{limits}{without}"
