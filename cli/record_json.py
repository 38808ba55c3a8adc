"""Records as JSON objects, as `replay --format json` prints them (docs/json.md).

What lives here: the mapping. What must not: layout for people.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from capd.cli import moments
from capd.recording.record import Record, Value

IDENTITIES: Final = frozenset({"run", "host", "boot", "epoch", "session", "flow"})
"""Facts that hold a UUID as 16 bytes."""
UUID_BYTES: Final = 16

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def as_json(record: Record) -> dict[str, Json]:
    """Give a record as a JSON object; bytes become `{"utf8": ...}` where they are UTF-8, else `{"base64": ...}`."""
    return {
        "kind": record.kind.name.lower(),
        "session": str(record.session),
        "time": moments.rfc3339(record.time_ns),
        "direction": None if record.direction is None else record.direction.name.lower(),
        "body": {str(key): _value(value, str(key)) for key, value in record.body.items()},
    }


def words_of(value: Value) -> Iterator[str]:
    """Give all text in a value, for `--grep`; bytes as UTF-8 with what is none escaped."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "backslashreplace")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from words_of(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from words_of(inner)
    elif value is not None:
        yield str(value)


def _value(value: Value, key: str = "") -> Json:
    if isinstance(value, bytes):
        return _identity_or_bytes(value, key)
    if isinstance(value, Mapping):
        return {str(name): _value(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _identity_or_bytes(value: bytes, key: str) -> Json:
    if key in IDENTITIES and len(value) == UUID_BYTES:
        return str(UUID(bytes=value))
    try:
        return {"utf8": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}
