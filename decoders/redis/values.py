"""Values as a reader gets them.

What lives here: how strings, arguments and answers become JSON values and lines. What must not: framing, state.

A string is a str if it is UTF-8, else {"binary": hex}. One that is not given whole is {"begins": string, "bytes": its
length}; an argument that is a secret is {"hidden": its length}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from capd.decoders.message import JsonValue

_PLAIN: Final = re.compile(r"[^\s\"'\\\x00-\x1f\x7f]+")
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b"}
_TO_ESCAPE: Final = re.compile(r"[\\\"\x00-\x1f\x7f]")


def string(raw: bytes) -> JsonValue:
    """Give a string."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"binary": raw.hex()}


def begins(raw: bytes, length: int) -> JsonValue:
    """Give the beginning of a string of a length; a letter that is cut off is left out."""
    try:
        return {"begins": raw.decode(), "bytes": length}
    except UnicodeDecodeError as error:
        if error.start >= len(raw) - 3 and error.reason == "unexpected end of data":
            return {"begins": raw[: error.start].decode(), "bytes": length}
        return {"begins": {"binary": raw.hex()}, "bytes": length}


def hidden(raw: bytes) -> JsonValue:
    """Give an argument that is a secret."""
    return {"hidden": len(raw)}


def word(value: JsonValue) -> str:
    """Give one value as a person would type it, as redis-cli quotes it."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else f'"{_TO_ESCAPE.sub(_escape, value)}"'
    if isinstance(value, Mapping):
        return _odd_word(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(word, value))}]"
    if value is None:
        return "(nil)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape(found: re.Match[str]) -> str:
    letter = found.group()
    return _ESCAPED.get(letter) or f"\\x{ord(letter):02x}"


def _odd_word(value: Mapping[str, JsonValue]) -> str:
    if "hidden" in value:
        return "(hidden)"
    if "begins" in value:
        return f"{word(value['begins'])}… ({value['bytes']} bytes)"
    if "binary" in value:
        return '"' + "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(str(value["binary"]))) + '"'
    if "map" in value:
        pairs = value["map"]
        inside = (word(pair) for pair in pairs) if isinstance(pairs, Sequence) else ()
        return f"{{{', '.join(inside)}}}"
    for name in ("set", "error", "text", "number", "value"):
        if name in value:
            return word(value[name])
    return f"({value.get('omitted', 0)} more)"


def line(value: JsonValue) -> str:
    """Give a whole answer as one line: a string or an error as it is, everything else as `word`."""
    if isinstance(value, Mapping):
        for name in ("error", "text"):
            text = value.get(name)
            if isinstance(text, str):
                return text
    return value if isinstance(value, str) else word(value)
