"""Every key of the configuration, as the model knows it: its type, default, limits and meaning.

What lives here: reading the model's schema. What must not: reading a file (configuration_files.py), how a page looks.

An element of an array of tables is written `retention[]`, a table with a name of its own `credentials.NAME`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, cast

from pydantic import BaseModel

from capd.daemon.configuration import Configuration
from capd.daemon.units import GIB, KIB, MIB

ELEMENT: Final = "[]"
NAMED: Final = "NAME"
UNITS: Final = {"bytes": "bytes", "seconds": "seconds", "days": "days", "inodes": "files", "second": "bytes per second"}
"""By a word of the key's name."""
PLURALS: Final = {"string": "strings", "whole number": "whole numbers", "absolute path": "absolute paths"}
SIZES: Final = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))

Schema = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One key.

    Attributes:
        path: of names; ELEMENT and NAMED where a file has a number or a name of its own.
        kind: what is written there, in words.
        required: whether it must be said.
        default: where it need not; None: nothing.
        limits: in words, or "".
        unit: in words, or "".
        meaning: one phrase.
    """

    path: tuple[str, ...]
    kind: str
    required: bool
    default: object
    limits: str
    unit: str
    meaning: str

    @property
    def key(self) -> str:
        """The path as it is written in words."""
        return written(self.path)

    @property
    def table(self) -> str:
        """The header of the table that the key stands in, or ""."""
        *above, _name = self.path
        if not above:
            return ""
        array = above[-1] == ELEMENT
        inner = ".".join(part for part in above if part != ELEMENT)
        return f"[[{inner}]]" if array else f"[{inner}]"

    @property
    def shown_default(self) -> str:
        """The default as TOML, or what is said where there is none."""
        if self.required:
            return "(required)"
        if self.default is None:
            return "(none)"
        return toml(self.default)


def written(path: Sequence[str | int]) -> str:
    """Give a path in words: `masking.pattern[0].name`, from the names and numbers in it."""
    text = ""
    for part in path:
        if part == ELEMENT or isinstance(part, int):
            text += ELEMENT if part == ELEMENT else f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def toml(value: object) -> str:
    """Give a value as it is written in a file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_name(str(name))} = {toml(one)}" for name, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)  # what JSON escapes, TOML's basic strings do too


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def readable(value: int) -> str:
    """Give a number of bytes with the largest unit that divides it."""
    for size, name in SIZES:
        if value and value % size == 0:
            return f"{value // size} {name}"
    return str(value)


@cache
def entries() -> tuple[Entry, ...]:
    """Give every key, in the order of the model."""
    schema = Configuration.model_json_schema()
    return tuple(_of(schema, schema, ()))


def children(path: Sequence[str | int]) -> list[str]:
    """Give the names that may stand below a path with numbers and names of a file in it."""
    fitting = [entry.path for entry in entries() if len(entry.path) > len(path) and _fits(path, entry.path)]
    return list(dict.fromkeys(found[len(path)] for found in fitting))


def entry_at(path: Sequence[str | int]) -> Entry | None:
    """Give the key that a path with numbers and names of a file means, or None."""
    return next((entry for entry in entries() if len(entry.path) == len(path) and _fits(path, entry.path)), None)


def _fits(path: Sequence[str | int], known: Sequence[str]) -> bool:
    return all(
        other in {one, NAMED} or (other == ELEMENT and isinstance(one, int)) for one, other in zip(path, known, strict=False)
    )


def _of(schema: Schema, whole: Schema, path: tuple[str, ...]) -> Iterator[Entry]:
    required = cast("Sequence[str]", schema.get("required", ()))
    for name, found in cast("Mapping[str, Schema]", schema["properties"]).items():
        here, kind = (*path, name), _resolved(found, whole)
        if "properties" in kind:
            yield from _of(kind, whole, here)
            continue
        yield _entry(here, found, whole, required=name in required)
        element = _resolved(cast("Schema", kind.get("items", {})), whole)
        if "properties" in element:
            yield from _of(element, whole, (*here, ELEMENT))
        for below in cast("Mapping[str, Schema]", kind.get("patternProperties", {})).values():
            yield from _of(_resolved(below, whole), whole, (*here, NAMED))


def _entry(path: tuple[str, ...], found: Schema, whole: Schema, *, required: bool) -> Entry:
    kind, name = _resolved(found, whole), path[-1]
    unit = next((words for word, words in reversed(UNITS.items()) if word in name.split("_")), "")
    return Entry(
        path=path,
        kind=_kind(kind, whole),
        required=required,
        default=found.get("default", [] if kind.get("type") == "array" else {} if kind.get("type") == "object" else None),
        limits=_limits(kind, in_bytes=unit == "bytes"),
        unit=unit,
        meaning=str(found.get("description", "")),
    )


def _resolved(schema: Schema, whole: Schema) -> Schema:
    """Follow a reference, and leave out that a value may be missing."""
    if "$ref" in schema:
        return cast("Mapping[str, Schema]", whole["$defs"])[str(schema["$ref"]).rpartition("/")[2]]
    if "anyOf" in schema:
        there = [one for one in cast("Sequence[Schema]", schema["anyOf"]) if one.get("type") != "null"]
        return _resolved(there[0], whole) if len(there) == 1 else schema
    return schema


def _kind(schema: Schema, whole: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f'"{one}"' for one in cast("Sequence[object]", schema["enum"]))
    match schema.get("type"):
        case "string":
            return "absolute path" if schema.get("format") == "path" else "string"
        case "integer":
            return "whole number"
        case "number":
            return "number"
        case "boolean":
            return "true or false"
        case "array":
            inner = _resolved(cast("Schema", schema["items"]), whole)
            return "array of tables" if "properties" in inner else f"array of {PLURALS.get(_kind(inner, whole), 'words')}"
        case "object":
            return "tables by name" if "patternProperties" in schema else "table of strings"
    return "value"


def _limits(schema: Schema, *, in_bytes: bool) -> str:
    """Say what of limits the schema knows; what it does not is in the meaning."""
    inner = cast("Schema", schema.get("items", {}))
    low, high, above = (schema.get(key, inner.get(key)) for key in ("minimum", "maximum", "exclusiveMinimum"))

    def number(value: object) -> str:
        return readable(value) if in_bytes and isinstance(value, int) else str(value)

    told = []
    if low is not None and high is not None:
        told.append(f"{number(low)} to {number(high)}")
    elif above is not None:
        told.append(f"more than {above}" + ("" if high is None else f", at most {number(high)}"))
    elif low is not None:
        told.append(f"at least {number(low)}")
    for key, words in (("minItems", "at least {} of them"), ("maxItems", "at most {} of them")):
        if key in schema:
            told.append(words.format(schema[key]))
    for key, words in (("minLength", "not empty"), ("maxLength", "at most {} characters")):
        if key in schema or key in inner:
            told.append(words.format(schema.get(key, inner.get(key))))
    return ", ".join(told)


def sections() -> dict[str, str]:
    """Give what each table of the configuration is for, by its header, in the order of the model."""
    found: dict[str, str] = {}
    for model in _models(Configuration):
        words = " ".join((model.__doc__ or "").split())
        header, _, meaning = words.partition(": ")
        if header.startswith("`["):
            found[header.strip("`")] = meaning
    return found


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for part in _types(field.annotation):
            yield part
            yield from _models(part)


def _types(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in getattr(annotation, "__args__", ()):
        yield from _types(part)
