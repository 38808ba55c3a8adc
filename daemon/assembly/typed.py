"""Plain values, such as msgpack gives them, put back into the types that they came from.

What lives here: following annotations. What must not: what is read, bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints
from uuid import UUID

_ATOMS: Final = (bool, int, str, bytes, NoneType)
_hints: Final = lru_cache(get_type_hints)


def read(kind: Any, value: object) -> Any:  # noqa: ANN401 - an annotation is of no one type, nor is what it describes
    """Give a value as an annotation says: atoms, UUIDs, lists, sets, tuples, dicts, unions, named tuples and dataclasses.

    Raises:
        TypeError, ValueError: it is none.
    """
    if kind in _ATOMS:
        if not isinstance(value, kind):
            raise TypeError(f"a {type(value).__name__} in place of a {kind.__name__}")
        return value
    if kind is UUID:
        return UUID(bytes=read(bytes, value))
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return _one_of(get_args(kind), value)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](get_args(kind), value)
    if is_dataclass(kind):
        return _dataclass(kind, value)
    if hasattr(kind, "_fields"):
        return kind(*_each([_hints(kind)[name] for name in kind._fields], _items(value)))
    raise TypeError(f"nothing says how to read a {kind}")


def _one_of(kinds: tuple[Any, ...], value: object) -> object:
    for kind in kinds:
        try:
            return read(kind, value)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"a {type(value).__name__} in place of one of {kinds}")


def _dataclass(kind: Any, value: object) -> object:  # noqa: ANN401 - any class will do
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} in place of the fields of a {kind.__name__}")
    hints = _hints(kind)
    return kind(**{name: read(hints[name], field) if name in hints else field for name, field in value.items()})


def _items(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"a {type(value).__name__} in place of an array")
    return value


def _each(kinds: list[Any] | tuple[Any, ...], values: list[object] | tuple[object, ...]) -> list[object]:
    return [read(kind, value) for kind, value in zip(kinds, values, strict=True)]


def _tuple(kinds: tuple[Any, ...], value: object) -> object:
    if len(kinds) > 1 and kinds[1] is Ellipsis:
        return tuple(read(kinds[0], item) for item in _items(value))
    return tuple(_each(kinds, _items(value)))


def _dict(kinds: tuple[Any, ...], value: object) -> object:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} in place of a map")
    if not kinds:
        return value
    return {read(kinds[0], key): read(kinds[1], item) for key, item in value.items()}


_CONTAINERS: Final[dict[Any, Callable[[tuple[Any, ...], object], object]]] = {
    list: lambda kinds, value: [read(kinds[0], item) for item in _items(value)],
    set: lambda kinds, value: {read(kinds[0], item) for item in _items(value)},
    tuple: _tuple,
    dict: _dict,
}
