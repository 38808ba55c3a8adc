"""Prepared statements and portals of one session, as its server has them.

What lives here: what stands behind each name, and how that is taken back when the server did not come to it. What must not: who
sends what.

A name that stood for another statement at the server than here would be judged as one thing and run as another. So what is
noted when a message is sent is taken back when the server says that it failed, or passed over it; and a name that is not here
is never run, whether the server has it or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from capd.enforcer.masking.rows.known import Masks
from capd.enforcer.proxy.postgresql.masked import MaskedAnswers
from capd.enforcer.proxy.postgresql.metered import Metered
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.sql.lexeme import Reading

NAMES_MAX: Final = 4_096
"""Of prepared statements, or portals, in one session; drivers keep a few hundred."""
NAMED_BYTES_MAX: Final = 64 << 20
"""Of text and values behind all of them; a single statement may have 16 MiB."""
UNNAMED: Final = b""
NAME_BYTES_MAX: Final = 63
"""What is beyond, the server does not compare (NAMEDATALEN): two names would be one there."""

Undo = Callable[[], object]


class NamesFullError(Exception):
    """There are more names than a session may have."""


@dataclass(slots=True, kw_only=True, eq=False)
class Prepared:
    """A statement that is kept.

    Attributes:
        sql: its text.
        types: of its parameters, as Parse has them.
        reading: how the session read text when it was prepared.
        doubt: why another may stand behind the name; "": none can.
    """

    sql: bytes
    types: bytes
    reading: Reading
    doubt: str = ""

    @property
    def size(self) -> int:
        """How much is kept, in bytes."""
        return len(self.sql) + len(self.types)


@dataclass(slots=True, kw_only=True, eq=False)
class Portal:
    """A statement with its values.

    Attributes:
        prepared: the statement.
        read: what it does.
        content: every byte that decides what.
        decision: the number of the decision that allowed it.
        group: of messages up to a Sync: if no transaction is open then, it is gone.
        formats: of its result, as Bind has them.
        masks: that hide something of its rows.
        rewriting: what they go through.
        metered: what counts them; None: nobody does.
        approved: version of the policy under which a person approved it; "": nobody was asked.
    """

    prepared: Prepared
    read: Read
    content: bytes
    decision: int
    group: int
    approved: str = ""
    formats: bytes = b""
    masks: Masks = ()
    rewriting: MaskedAnswers | None = None
    metered: Metered | None = None

    @property
    def size(self) -> int:
        """How much is kept, in bytes."""
        return len(self.content)


T = TypeVar("T", Prepared, Portal)


class Names(Generic[T]):
    """Those of one kind."""

    def __init__(self) -> None:
        self._known: dict[bytes, T] = {}
        self._bytes = 0

    @property
    def size(self) -> int:
        """How much is kept, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def get(self, name: bytes) -> T | None:
        """Give what stands behind a name."""
        return self._known.get(name)

    def put(self, name: bytes, value: T) -> Undo:
        """Note what a name stands for from now on; give what takes that back.

        Raises:
            NamesFullError: there is no room.
        """
        former = self._known.get(name)
        size = self._bytes + value.size - (former.size if former is not None else 0)
        if size > NAMED_BYTES_MAX or (former is None and len(self._known) >= NAMES_MAX):
            raise NamesFullError
        self._known[name], self._bytes = value, size
        return lambda: self._restore(name, former)

    def drop(self, name: bytes) -> Undo:
        """Note that a name stands for nothing; give what takes that back."""
        former = self._known.get(name)
        self._restore(name, None)
        return lambda: self._restore(name, former)

    def clear(self) -> None:
        """Note that no name stands for anything."""
        self._known.clear()
        self._bytes = 0

    def keep(self, which: Callable[[T], bool]) -> None:
        """Note that only some names stand for what they did."""
        for name in [name for name, value in self._known.items() if not which(value)]:
            self.drop(name)

    def all(self) -> list[T]:
        """Give everything that a name stands for."""
        return list(self._known.values())

    def _restore(self, name: bytes, value: T | None) -> None:
        now = self._known.pop(name, None)
        self._bytes -= now.size if now is not None else 0
        if value is not None:
            self._known[name] = value
            self._bytes += value.size
