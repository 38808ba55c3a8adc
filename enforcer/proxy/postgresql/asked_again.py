"""What is asked about a statement of PostgreSQL that a session says again and again.

What lives here: what is the same each time. What must not: asking (judging.py), knowing the statement again (lane.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.proxy.question import Question


@dataclass(slots=True)
class Asks:
    """What is asked about a statement that comes again, but for its values.

    Attributes:
        read: what it does.
        first, later: the question, with any values; those about others of a group than the first are kin of their own, and how
            much they are about cannot be found out.
        may_call, looks_up: what judging.is_stale has to know of it.
        before: of what is bound: what stands before its values in what decides what it does.
    """

    read: Read
    first: Question
    later: Question
    may_call: bool
    looks_up: bool
    before: bytes = b""
