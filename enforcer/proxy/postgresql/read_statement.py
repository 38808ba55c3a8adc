"""A statement as it was read, and what of it matters for those after it.

What lives here: the value. What must not: reading (enforcer/sql).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.sql import effect
from capd.enforcer.sql.lexeme import Reading
from capd.enforcer.sql.message import SEPARATOR, Message

_NAMING: Final = frozenset({"PREPARE", "DEALLOCATE", "DISCARD", "DECLARE", "CLOSE"})
"""Change what stands behind names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One.

    Attributes:
        message: what it does.
        moves: whether it changes what later ones mean: they wait for it.
        begins: whether all that it changes is that a transaction begins.
        copies: whether it copies, so that what comes next depends on what the server says.
        may_copy: whether it may.
        prepares: name and text of what a PREPARE makes, and how it was read: not how the session reads once it is run.
        gives_up: name that a DEALLOCATE gives up.
        tied: of an EXECUTE that is known by what was prepared: the text of that.
    """

    message: Message
    moves: bool
    begins: bool
    copies: bool
    may_copy: bool
    prepares: tuple[bytes, bytes, Reading] | None = None
    gives_up: bytes | None = None
    tied: bytes | None = None


def as_read(message: Message) -> Read:
    """Give what of a message matters for those after it."""
    changes = [change for one in message.statements for change in one.changes]
    commands = frozenset(message.command.split(SEPARATOR))
    naming = not _NAMING.isdisjoint(commands)
    begins = bool(changes) and not message.problems and all(change.setting == effect.BEGIN for change in changes)
    return Read(
        message=message,
        moves=bool(changes or message.problems or naming or "define" in (message.effects or ())),
        begins=begins and not naming,
        copies="COPY" in commands,
        may_copy="COPY" in commands or bool(message.problems),
    )


def together(prepared: Message, arguments: Message) -> Message:
    """Give what an EXECUTE does: what was prepared does, and its arguments."""
    effects = None if prepared.effects is None else prepared.effects | (arguments.effects or frozenset())
    resources = None if prepared.resources is None else tuple({*prepared.resources, *(arguments.resources or ())})
    return replace(
        prepared,
        effects=effects,
        resources=resources,
        functions=tuple({*prepared.functions, *arguments.functions}),
        problems=tuple(dict.fromkeys((*prepared.problems, *arguments.problems))),
        statements=(*arguments.statements, *prepared.statements),
    )
