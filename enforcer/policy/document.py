"""A file of a policy: rules, scopes, hosts whose TLS is passed through, examples.

What lives here: its keys, and reading it. What must not: several files together (policy.py), the disk (directory.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from capd.enforcer.policy import yaml_node
from capd.enforcer.policy.example import Example
from capd.enforcer.policy.example_reading import read_example
from capd.enforcer.policy.fields import Key, Reader, identifier, read_keys, text
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.match_reading import MATCH_KEYS
from capd.enforcer.policy.problem import Place, PolicyError, Problem, Problems
from capd.enforcer.policy.rule import Rule
from capd.enforcer.policy.rule_reading import read_rule, read_scope
from capd.enforcer.policy.scope import Scope
from capd.enforcer.policy.yaml_node import Node, compose

Item = TypeVar("Item")

ITEMS_MAX: Final = 5_000
"""Rules of one file; measured are 1,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough:
    """Hosts whose TLS capd does not open.

    Attributes:
        id: unique in a policy.
        match: hosts, ports and addresses, nothing else.
        place: where it stands.
    """

    id: str
    match: Match
    place: Place = field(default=Place("-"), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says."""

    rules: tuple[Rule, ...] = ()
    scopes: tuple[Scope, ...] = ()
    passthrough: tuple[Passthrough, ...] = ()
    examples: tuple[Example, ...] = ()


PASSTHROUGH_KEYS: Final[dict[str, Key]] = {
    "id": Key(read=identifier, form="as of a rule", words="its name", required=True),
    "description": Key(read=text, form="text", words="why; for people"),
    "hosts": Key(read=MATCH_KEYS["hosts"].read, form="as in `match`", words="names of the targets", required=True),
    "ports": MATCH_KEYS["ports"],
    "addresses": MATCH_KEYS["addresses"],
}


def _read_passthrough(node: Node, problems: Problems) -> Passthrough | None:
    before = len(problems.found)
    found = read_keys(node, PASSTHROUGH_KEYS, problems)
    if len(problems.found) > before:
        return None
    conditions = {name: found[name] for name in ("hosts", "ports", "addresses") if name in found}
    return Passthrough(id=str(found["id"]), match=Match(**conditions), place=node.place)  # type: ignore[arg-type] # as the keys read


def _list(read: Callable[[Node, Problems], Item | None]) -> Reader[tuple[Item, ...]]:
    def read_all(node: Node, problems: Problems) -> tuple[Item, ...] | None:
        if not isinstance(node, yaml_node.Sequence):
            problems.add(node.place, "this must be a list")
            return None
        if len(node.items) > ITEMS_MAX:
            problems.add(node.place, f"this list has more than {ITEMS_MAX} items")
            return None
        return tuple(item for one in node.items if (item := read(one, problems)) is not None)

    return read_all


def document_keys(prefix: str = "") -> dict[str, Key]:
    """Give the keys of a file; its rules get the prefix before their ids."""

    def rule(node: Node, problems: Problems) -> Rule | None:
        return read_rule(node, problems, prefix=prefix)

    return {
        "rules": Key(read=_list(rule), form="list", words="what may be done"),
        "scopes": Key(read=_list(read_scope), form="list", words="who is judged how, and recorded how"),
        "passthrough": Key(read=_list(_read_passthrough), form="list", words="hosts whose TLS capd does not open"),
        "examples": Key(read=_list(read_example), form="list", words="what must come out, for `capd policy test`"),
    }


def read_document(content: bytes, file: str, problems: Problems, *, prefix: str = "") -> Document:
    """Read a file; what is wrong is noted, and left out of what is given."""
    try:
        node = compose(content.decode("utf-8"), file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.found.append(Problem(Place(file, line), "this is not UTF-8"))
        return Document()
    except PolicyError as error:
        problems.found.extend(error.problems)
        return Document()
    if node is None:
        return Document()
    return Document(**read_keys(node, document_keys(prefix), problems))  # type: ignore[arg-type] # as the keys read
