"""Read single facts out of a record's body, whatever is really in it.

What lives here: typed look-ups that never fail, because a record may come from a newer version or a damaged file.
What must not: layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from capd.cli.safe_text import from_bytes
from capd.recording.record import Value

Facts = Mapping[str, Value]
NOTHING: Final[Facts] = {}
UUID_BYTES: Final = 16


def text_of(value: Value) -> str:
    """Give any value as words; bytes as UTF-8 with what is none escaped."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return from_bytes(value) if isinstance(value, bytes) else str(value)


def text(facts: Facts, key: str) -> str:
    """Give the fact as words; empty if it is missing."""
    return text_of(facts.get(key))


def number(facts: Facts, key: str) -> int | None:
    """Give the fact if it is a whole number."""
    value = facts.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def flag(facts: Facts, key: str) -> bool:
    """Say whether the fact is there and true."""
    return facts.get(key) is True


def mapping(facts: Facts, key: str) -> Facts:
    """Give the fact if it is a map with words as keys, else an empty one."""
    return mapping_of(facts.get(key))


def mapping_of(value: Value) -> Facts:
    """Give the value if it is a map, else an empty one."""
    return value if isinstance(value, Mapping) else NOTHING


def sequence(facts: Facts, key: str) -> Sequence[Value]:
    """Give the fact if it is a list, else an empty one."""
    return sequence_of(facts.get(key))


def sequence_of(value: Value) -> Sequence[Value]:
    """Give the value if it is a list, else an empty one."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def payload(facts: Facts, key: str) -> bytes:
    """Give the fact if it is bytes, else none."""
    value = facts.get(key)
    return value if isinstance(value, bytes) else b""


def identity(facts: Facts, key: str) -> str:
    """Give a UUID stored as 16 bytes (or already as text) in its usual form; empty if it is neither."""
    value = facts.get(key)
    if isinstance(value, bytes) and len(value) == UUID_BYTES:
        return str(UUID(bytes=value))
    return value if isinstance(value, str) else ""
