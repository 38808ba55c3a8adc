"""Reads examples: `- allow: GET https://api.example.com/v1/models`, with who and where beside it.

What lives here: their keys. What must not: trying them (example.py).
"""

from __future__ import annotations

import re
from typing import Any, Final

from capd.enforcer.policy.action import Address, Principal, Run, Tls
from capd.enforcer.policy.address_range import address
from capd.enforcer.policy.decision import Outcome
from capd.enforcer.policy.example import Example
from capd.enforcer.policy.fields import Key, line, named, one_of, parsed, read_keys
from capd.enforcer.policy.problem import Problems
from capd.enforcer.policy.written_action import Circumstances, written_action
from capd.enforcer.policy.yaml_node import Node

_BY: Final = re.compile(r"(?:capd:)?[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


def _address(text: str) -> Address:
    found = address(text)
    if found is None:
        raise ValueError(f"{text!r} is no address")
    return found


def _by(text: str) -> str:
    if _BY.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no id of a rule")
    return text


EXAMPLE_KEYS: Final[dict[str, Key]] = {
    **{
        str(outcome): Key(
            read=line,
            form="`METHOD URL`, `connect HOST:PORT`, `open PROTOCOL HOST[:PORT]`, `sql HOST[:PORT] STATEMENT`, "
            "`mysql …`, `redis …`",
            words=f"the action that must come out as {outcome}; each example has one of these three",
        )
        for outcome in Outcome
    },
    "principal": Key(read=line, form="name", words="whom the run acts for"),
    "run": Key(read=line, form="name", words="name of the run"),
    "labels": Key(read=named(line), form="name: value", words="labels of the run"),
    "address": Key(read=parsed(_address), form="address", words="where the host leads; 192.0.2.1"),
    "tls": Key(read=one_of(Tls), form="as in `match`", words="how the target is protected; `inspected` of https"),
    "database": Key(read=line, form="name", words="of the session of a database; left out: not known"),
    "user": Key(read=line, form="name", words="of the database, as whom it is opened; left out: not known"),
    "by": Key(read=parsed(_by), form="id", words="the rule that must decide it"),
}


def read_example(node: Node, problems: Problems) -> Example | None:
    """Read one; None, with the problems noted, when something is wrong with it."""
    before = len(problems.found)
    found: dict[str, Any] = read_keys(node, EXAMPLE_KEYS, problems)
    outcomes = [outcome for outcome in Outcome if outcome in found]
    if len(problems.found) == before and len(outcomes) != 1:
        problems.add(node.place, f"an example says one of {', '.join(Outcome)}")
    if len(problems.found) > before:
        return None
    (expected,) = outcomes
    known = Circumstances(
        principal=Principal(name=found["principal"]) if "principal" in found else None,
        run=Run(name=found.get("run"), labels=dict(found.get("labels", ()))),
        address=found.get("address"),
        tls=found.get("tls"),
        database=found.get("database"),
        user=found.get("user"),
    )
    try:
        action = written_action(found[expected], known)
    except ValueError as error:
        problems.add(node.place, str(error))
        return None
    return Example(expected=expected, written=found[expected], action=action, by=found.get("by"), place=node.place)
