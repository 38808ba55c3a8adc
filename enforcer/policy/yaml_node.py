"""YAML as a tree that knows where everything stands.

What lives here: composing of nodes from a parser's events. What must not: what the document means, types of scalars: a key
decides how its value is read, so that `no` is a name where a name is expected (YAML 1.1 would make it false).

Anchors, aliases, tags, merge keys and complex keys are refused: a policy means what it says where it says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

from capd.enforcer.policy.problem import Place, PolicyError, Problem

DEPTH_MAX: Final = 12
"""A policy needs six levels."""
NODES_MAX: Final = 200_000
"""The largest policy that is allowed has some 20 values in each of its rules."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: ten times faster."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value.

    Attributes:
        place: where it begins.
        text: its text.
        style: how it was written: "" without quotes, `"`, `'`, `|`, `>`.
        last_line: where it ends.
    """

    place: Place
    text: str
    style: str
    last_line: int

    @property
    def plain(self) -> bool:
        """Whether it was written without quotes."""
        return not self.style


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    place: Place
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with values, in order; a key may stand there twice."""

    place: Place
    entries: list[tuple[Scalar, Node]] = field(default_factory=list)


Node = Scalar | Sequence | Mapping


def compose(text: str, file: str) -> Node | None:
    """Give the tree of a file with at most one document; None when there is nothing in it.

    Raises:
        PolicyError: it is no YAML, or has what is refused here.
    """
    try:
        return _Composer(file, text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file) if mark is None else Place(file, mark.line + 1, mark.column + 1)
        words = error.problem or error.context or "it is not YAML"
        raise PolicyError([Problem(place, f"not YAML: {words}")]) from error
    except (yaml.YAMLError, ValueError) as error:
        # The reader's errors about characters have no mark; ValueError comes from numbers of directives and escapes.
        raise PolicyError([Problem(Place(file), f"not YAML: {' '.join(str(error).split())}")]) from error


class _Composer:
    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._nodes = 0

    def document(self) -> Node | None:
        found: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refused(event, "a file has one document; write a second file")
            elif isinstance(event, yaml.NodeEvent):
                found = self._node(event, 0)
        empty = isinstance(found, Scalar) and found.plain and not found.text
        return None if empty else found

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise self._refused(event, "it is nested too deeply" if depth > DEPTH_MAX else "there is too much in this file")
        # An alias has the anchor's name too.
        if getattr(event, "anchor", None) is not None:
            raise self._refused(event, "anchors and aliases are refused: write it out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise self._refused(event, "tags are refused")
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(place, event.value, event.style or "", 1 if event.end_mark is None else event.end_mark.line + 1)
        if isinstance(event, yaml.SequenceStartEvent):
            items = [self._node(one, depth + 1) for one in self._until(yaml.SequenceEndEvent)]
            return Sequence(place, items)
        return self._mapping(place, depth)

    def _mapping(self, place: Place, depth: int) -> Mapping:
        entries: list[tuple[Scalar, Node]] = []
        for event in self._until(yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise self._refused(event, "a key is a word")
            entries.append((key, self._node(next(self._events), depth + 1)))
        return Mapping(place, entries)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file) if mark is None else Place(self._file, mark.line + 1, mark.column + 1)

    def _refused(self, event: yaml.Event, message: str) -> PolicyError:
        return PolicyError([Problem(self._place(event), message)])
