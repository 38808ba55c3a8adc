"""A command of Redis as an action.

What lives here: from what is known of a command (enforcer/redis) to the facts that rules ask for. What must not: reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from capd.enforcer.policy.action import Action, Resource
from capd.enforcer.redis.command import read
from capd.recording.record import Value

LEFT_OUT: Final = "the recording has nothing of some of its arguments"
_PASSWORD: Final = b"*"
"""In the place of an argument that no decoder tells, which is no key and no word that decides anything."""


def redis_action(arguments: Sequence[bytes], problems: tuple[str, ...], opening: Action) -> Action:
    """Give the action of a command.

    Args:
        arguments: its words, the name first.
        problems: why they are not all that was sent.
        opening: the action of its session.
    """
    found = read(arguments)
    known = found.resources
    return replace(
        opening,
        operation=found.name,
        effects=found.effects,
        resources=None if known is None else tuple(Resource(name=name, access=access) for name, access in known),
        problems=(*problems, *found.problems),
    )


def recorded_arguments(fields: Mapping[str, Value]) -> list[bytes] | None:
    """Give the words of a recorded command; None: they are not all there."""
    name, given = fields.get("command"), fields.get("arguments")
    if (
        not isinstance(name, str)
        or not name
        or not isinstance(given, Sequence)
        or isinstance(given, str)
        or fields.get("omitted")
    ):
        return None
    words = [name.encode("utf-8", "surrogatepass")]
    for item in given:
        word = _word(item)
        if word is None:
            return None
        words.append(word)
    return words


def _word(item: Value) -> bytes | None:
    if isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if not isinstance(item, Mapping):
        return None
    if "hidden" in item:
        return _PASSWORD
    binary = item.get("binary")
    try:
        return bytes.fromhex(binary) if isinstance(binary, str) else None
    except ValueError:
        return None
