"""What a server still has to answer, in the order in which it was asked.

What lives here: the values. What must not: reading answers (answers.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from capd.enforcer.masking.rows.known import Masks
from capd.enforcer.proxy.postgresql.names import Undo
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.proxy.postgresql.rewriting import Rewriting


class Asked(IntEnum):
    """What a server was asked."""

    PARSE = 1
    BIND = 2
    DESCRIBE = 3
    EXECUTE = 4
    CLOSE = 5
    SYNC = 6
    QUERY = 7
    OWN = 8
    """A query of capd's, which the client hears nothing of."""


class Due:
    """One answer, or several up to the last one of a message.

    Attributes:
        asked: what.
        read: of EXECUTE and QUERY: what it does; None: of those of capd's own.
        undo: takes back what was noted of names, when the server passes over it.
        lost: the same, when it fails itself; None: `undo` is right then too.
        instead: goes to the client in the place of the error that is due.
        rewriting: what is made of its answers.
        group: of SYNC: which group of messages it ends.
        completed: of QUERY: statements that are done.
        failed: whether an error came.
        number: of the decision under which it was asked.
        masks: that hide something of the answers.
        portal: of OWN: a portal is described within a group, and that is its last answer.
        describes: of OWN: it is a statement of the client's that is looked at: its error is the client's.
        described: of OWN: the body of the latest RowDescription.
        rows: of OWN: for each statement its rows.
        told_bytes: of OWN: how much these take.
        then: of OWN: is told of it.
    """

    read: Read | None = None
    undo: Undo | None = None
    lost: Undo | None = None
    instead: bytes | None = None
    rewriting: Rewriting | None = None
    group: int = 0
    completed: int = 0
    failed: bool = False
    number: int = 0
    masks: Masks = ()
    portal: bool = False
    told_bytes: int = 0
    describes: bool = False
    described: bytes | None = None
    error: bytes = b""
    then: Callable[[Due], None] | None = None
    rows: list[list[tuple[bytes | None, ...]]]

    def __init__(self, asked: Asked, **more: object) -> None:
        """Begin. A plain class: several are made for each statement, and most have nothing but what was asked."""
        self.asked = asked
        if more:
            self.__dict__.update(more)
        if asked is Asked.OWN:
            self.rows = []
