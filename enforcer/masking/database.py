"""What the masks of databases have in common, and which protocol has which.

What lives here: what the recorder asks of them. What must not: any protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from capd.enforcer.masking.mysql import MysqlMask
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.postgresql import PostgresqlMask
from capd.enforcer.masking.redis import RedisMask
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.values import Value, Values


class DatabaseMask(Protocol):
    """Both directions of one connection.

    Attributes:
        dialect: of its statements, as sql_secrets names it.
        quiet: messages whose summary is of another message's bytes.
        errors: messages that may repeat values.
    """

    @property
    def dialect(self) -> str:
        """Its statements' dialect."""

    @property
    def quiet(self) -> frozenset[str]:
        """Types of messages."""

    @property
    def errors(self) -> frozenset[str]:
        """Types of messages."""

    def watches(
        self, kind: str, fields: Mapping[str, object], parts: Sequence[tuple[int, bytes]], exchange: int | None
    ) -> bool:
        """Say whether a message has to be judged though the prefilter finds nothing in it."""

    def authenticates(self, kind: str) -> bool | None:
        """Say whether a message shows that the client was let in, or (False) that it has to prove itself; None: neither."""

    def hides(self, *, answers: bool) -> bool:
        """Say whether bytes that belong to no message are hidden; `answers`: of the server."""

    def message(
        self,
        kind: str,
        fields: Mapping[str, object],
        raw: bytes,
        start: int,
        *,
        whole: bool = True,
        exchange: int | None = None,
    ) -> list[Place]:
        """Judge a message."""

    def record(self, body: Mapping[str, Value], values: Values, *, touched: bool) -> Mapping[str, Value] | None:
        """Give the body of a record as only this protocol can; None: what follows, and texts, are masked as everywhere."""

    def shown(self, fields: Mapping[str, Value], values: Values) -> dict[str, Value]:
        """Give the fields of a record of rows with their cells masked by the same rules."""

    def report(self, value: Value) -> Value:
        """Give what an error says without the values in it."""

    def save(self) -> list[object]:
        """Give its state as plain values."""

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""


_MASKS: Final[Mapping[str, Callable[[Rules], DatabaseMask]]] = {
    "mysql": MysqlMask,
    "postgresql": PostgresqlMask,
    "redis": RedisMask,
}
DATABASES: Final = frozenset(_MASKS)
"""Protocols that have such a mask."""


def mask_of(protocol: str | None, rules: Rules) -> DatabaseMask | None:
    """Give the mask of a connection; None: its protocol is no database's."""
    make = _MASKS.get(protocol or "")
    return None if make is None else make(rules)
