"""Actions as JSON: what `capd policy explain --json` prints and `--action FILE` takes.

What lives here: both ways of it. What must not: what an action means.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from capd.enforcer.policy.action import UNREADABLE_HOST, Action
from capd.enforcer.policy.host_name import HostNameError, normal_host
from capd.enforcer.policy.protocol import EFFECTS, FACTS, PROTOCOLS
from capd.recording.errors import CapdError, ExitStatus


class ActionError(CapdError):
    """What was given is no action that could be judged."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "`capd policy explain --http 'GET https://api.example.com/' --json` shows one, below `action`"


def to_json(action: Action) -> dict[str, Any]:
    """Give the public form (docs/json.md)."""
    found = asdict(action)
    target = action.target
    found["target"] |= {"address": None if target.address is None else str(target.address), "tls": target.tls.value}
    found["effects"] = None if action.effects is None else sorted(action.effects)
    for owner, name in (
        (found, "problems"),
        (found, "readings"),
        (found, "oddities"),
        (found["target"], "aliases"),
        (found, "resources"),
    ):
        owner[name] = None if owner[name] is None else list(owner[name])
    if action.principal is not None:
        found["principal"]["groups"] = list(action.principal.groups)
    return {**found, "complete": action.complete}


def from_json(text: str | bytes) -> Action:
    """Read the public form.

    Raises:
        ActionError: it is none; every problem is listed.
    """
    adapter = TypeAdapter(dict[str, Any])
    try:
        found = adapter.validate_json(text)
        found.pop("complete", None)
        action = TypeAdapter(Action).validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc']) or 'the text'}: {item['msg']}" for item in error.errors()]
        raise ActionError("\n".join(lines)) from error
    _check(action)
    return action


def _check(action: Action) -> None:
    """Refuse what no message becomes: an action that is not normalised would be judged by other rules than the message is."""
    if action.protocol not in PROTOCOLS:
        raise ActionError(f"protocol: there is no {action.protocol!r}; there are {', '.join(PROTOCOLS)}")
    for word, table, what in (
        *((one, EFFECTS, "effect") for one in action.effects or ()),
        *((one, FACTS, "fact") for one in action.facts),
    ):
        if word not in table:
            raise ActionError(f"there is no {what} {word!r}; there are {', '.join(table)}")
    for name in set(action.target.names) - {UNREADABLE_HOST}:
        try:
            normal = normal_host(f"[{name}]" if ":" in name else name)
        except HostNameError as error:
            raise ActionError(f"target.host: {error}") from error
        if normal != name:
            raise ActionError(f"target.host: {name!r} is not normalised; write {normal!r}")
