"""Reads keys of a policy: what a value must look like, and what is said if it does not.

What lives here: readers for nodes, and mappings with a table of keys. What must not: which keys there are.

A reader gives the value, or notes a problem and gives None; so everything that is wrong is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, TypeVar

from capd.enforcer.policy import yaml_node
from capd.enforcer.policy.problem import Problems
from capd.enforcer.policy.yaml_node import Node, Scalar, Sequence

Value = TypeVar("Value")
Reader = Callable[[Node, Problems], Value | None]

LIST_ITEMS_MAX: Final = 1_000
"""A list of more belongs into a system that keeps lists."""
TEXT_CHARACTERS_MAX: Final = 1_000
_INTEGER: Final = re.compile(r"\d{1,9}", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a mapping.

    Attributes:
        read: reads its value.
        form: how its value is written, for the reference.
        words: what it means, for the reference.
        required: whether it must be there.
    """

    read: Reader[object]
    form: str
    words: str
    required: bool = False


def read_keys(node: Node, keys: Mapping[str, Key], problems: Problems) -> dict[str, object]:
    """Read a mapping: each key at most once, none that is unknown, none missing; values that are wrong are left out."""
    if not isinstance(node, yaml_node.Mapping):
        problems.add(node.place, f"this must have keys: {', '.join(keys)}")
        return {}
    found: dict[str, object] = {}
    seen: dict[str, Scalar] = {}
    for key, value in node.entries:
        if key.text in seen:
            problems.add(key.place, f"{key.text!r} stands there twice; before in line {seen[key.text].place.line}")
            continue
        seen[key.text] = key
        if key.text not in keys:
            problems.add(key.place, f"no such key: {key.text!r}{_meant(key.text, keys)}")
            continue
        read = keys[key.text].read(value, problems)
        if read is not None:
            found[key.text] = read
    for name, one in keys.items():
        if one.required and name not in seen:
            problems.add(node.place, f"{name!r} is missing")
    return found


def _meant(text: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(text, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def text(node: Node, problems: Problems) -> str | None:
    """Read printable text on one line or more."""
    if not isinstance(node, Scalar):
        problems.add(node.place, "this must be text")
        return None
    if not node.text.strip():
        problems.add(node.place, "this is empty")
        return None
    if len(node.text) > TEXT_CHARACTERS_MAX:
        problems.add(node.place, f"this has {len(node.text)} characters; at most {TEXT_CHARACTERS_MAX} are allowed")
        return None
    if not all(one.isprintable() or one == "\n" for one in node.text):
        problems.add(node.place, "this has characters that cannot be printed")
        return None
    return node.text


def line(node: Node, problems: Problems) -> str | None:
    """Read printable text on one line, without blanks around it."""
    found = text(node, problems)
    if found is not None and ("\n" in found or found != found.strip()):
        problems.add(node.place, "this must be on one line, without blanks around it")
        return None
    return found


def identifier(node: Node, problems: Problems) -> str | None:
    """Read an id."""
    found = line(node, problems)
    if found is not None and _IDENTIFIER.fullmatch(found) is None:
        problems.add(node.place, f"{found!r} is no id; it has small letters, digits, '.', '_' and '-', at most 64")
        return None
    return found


def flag(node: Node, problems: Problems) -> bool | None:
    """Read true or false, as YAML 1.2 writes them."""
    if isinstance(node, Scalar) and node.plain and node.text in {"true", "false"}:
        return node.text == "true"
    problems.add(node.place, "this must be true or false")
    return None


def integer(least: int, most: int) -> Reader[int]:
    """Give a reader for a whole number."""

    def read(node: Node, problems: Problems) -> int | None:
        if isinstance(node, Scalar) and node.plain and _INTEGER.fullmatch(node.text) and least <= int(node.text) <= most:
            return int(node.text)
        problems.add(node.place, f"this must be a whole number from {least} to {most}")
        return None

    return read


def one_of(words: type[StrEnum]) -> Reader[StrEnum]:
    """Give a reader for one of some words."""

    def read(node: Node, problems: Problems) -> StrEnum | None:
        if isinstance(node, Scalar) and node.text in set(words):
            return words(node.text)
        problems.add(node.place, f"this must be one of {', '.join(words)}")
        return None

    return read


def parsed(parse: Callable[[str], Value]) -> Reader[Value]:
    """Give a reader for text that a function reads, which raises ValueError with the reason."""

    def read(node: Node, problems: Problems) -> Value | None:
        found = line(node, problems)
        if found is None:
            return None
        try:
            return parse(found)
        except ValueError as error:
            problems.add(node.place, str(error))
            return None

    return read


def known(words: Mapping[str, object] | frozenset[str], what: str) -> Reader[str]:
    """Give a reader for a word of a table."""

    def parse(found: str) -> str:
        if found in words:
            return found
        raise ValueError(f"there is no {what} {found!r}; there are {', '.join(sorted(words))}")

    return parsed(parse)


def some(read: Reader[Value]) -> Reader[tuple[Value, ...]]:
    """Give a reader for a list with something in it, or for one value without a list; sorted, each once."""

    def read_all(node: Node, problems: Problems) -> tuple[Value, ...] | None:
        if isinstance(node, yaml_node.Mapping):
            problems.add(node.place, "this must be a list")
            return None
        items = node.items if isinstance(node, Sequence) else [node]
        if not items or len(items) > LIST_ITEMS_MAX:
            empty = "this list is empty: it matches nothing; leave the key out to match everything"
            problems.add(node.place, f"this list has more than {LIST_ITEMS_MAX} items" if items else empty)
            return None
        found = [read(item, problems) for item in items]
        if any(one is None for one in found):
            return None
        return tuple(sorted(set(found)))  # type: ignore[type-var, arg-type] # every kind of item has an order, and None is out

    return read_all


def named(read: Reader[Value]) -> Reader[tuple[tuple[str, Value], ...]]:
    """Give a reader for a mapping whose keys are names; sorted."""

    def read_all(node: Node, problems: Problems) -> tuple[tuple[str, Value], ...] | None:
        if not isinstance(node, yaml_node.Mapping) or not node.entries:
            problems.add(node.place, "this must have names with values")
            return None
        names = {key.text: Key(read=read, form="", words="") for key, _ in node.entries}
        before = len(problems.found)
        found = read_keys(node, names, problems)
        if len(problems.found) > before:
            return None
        return tuple(sorted(found.items()))  # type: ignore[arg-type] # each value is what `read` gives

    return read_all
