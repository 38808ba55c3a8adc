"""Paths of HTTP in the one form in which they are judged.

What lives here: RFC 3986 sections 2.4, 5.2.4 and 6.2.2, and what is refused because servers differ about it. What must not:
hosts, methods, queries.

A path is decoded once and its dot segments are removed. Refused, because one server reads another path than the next: `%5C`,
control characters, what is still encoded after decoding (`%252e`), `%` without two digits, bytes that are no UTF-8,
backslashes, parameters (`;`), `#`.

Two oddities are in earnest use, and what servers make of them is known: an encoded slash (`%2F`, in npm) separates
or does not, an empty segment (`//`, keys of object stores) stays or goes. A path with them has all its readings; in
one in which `%2F` does not separate it stays `%2F`, which no other path has after decoding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PATH_BYTES_MAX: Final = 8_192
"""Longer request lines are refused by most servers (RFC 9112 section 3 asks for 8,000)."""
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_REFUSED: Final = (
    (re.compile(r"[\x00-\x1f\x7f-\x9f]"), "control characters"),
    (re.compile(r"\\"), "a backslash, which some servers take for a slash"),
    (re.compile(r"%[0-9A-Fa-f]{2}"), "something that is encoded twice"),
    (re.compile(r";"), "parameters (;), which some servers cut off"),
    (re.compile(r"[\u2024\u2025\u2044\u2215\u29f8\uff0e\uff0f\uff3c\ufe52\ufe68]"), "a character that some take for . / or \\"),
)


ENCODED_SLASHES: Final = "encoded_slashes"
EMPTY_SEGMENTS: Final = "empty_segments"
ODDITIES: Final = {
    EMPTY_SEGMENTS: "the path has an empty segment (//), which some servers remove",
    ENCODED_SLASHES: "the path has an encoded slash (%2F), which separates for some servers and not for others",
}
"""What makes servers differ in a way that is known; a rule may accept it."""
ENCODED_SLASH: Final = "%2F"
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,200}+){1,30}+/?|/", re.ASCII)
"""Most paths: nothing is encoded, no segment is empty or begins with a dot, so there is nothing to normalise."""
_SLASH: Final = re.compile(rb"%2[Ff]")
_EMPTY: Final = re.compile(r"//+")


class PathError(ValueError):
    """Servers may read different paths here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPath:
    """A path in the ways in which servers read it.

    Attributes:
        readings: all of them, normalised, each once; one unless there are oddities.
        oddities: names in ODDITIES, sorted.
    """

    readings: tuple[str, ...]
    oddities: tuple[str, ...] = ()


def is_plain(raw: str) -> bool:
    """Say whether a path is surely its own one reading; False is not certain."""
    return _PLAIN.fullmatch(raw) is not None


def normal_path(raw: str) -> str:
    """Give a path normalised; arguments as `read_path` has.

    Raises:
        PathError: there is no one form of it.
    """
    read = read_path(raw)
    if read.oddities:
        raise PathError(ODDITIES[read.oddities[0]])
    return read.readings[0]


def read_path(raw: str) -> ReadPath:
    """Read a path in all ways.

    Args:
        raw: as on the wire, up to the question mark; bytes beyond ASCII as Latin-1 characters, as decoders give them.

    Raises:
        PathError: it is not known how servers read it.
    """
    pieces = _decoded(raw)
    text = "/".join(pieces)
    for pattern, what in _REFUSED:
        if pattern.search(text):
            raise PathError(f"the path has {what}")
    kept = ENCODED_SLASH.join(pieces)
    if len(pieces) == 1 and "//" not in text:
        return ReadPath(readings=(without_dots(text),))
    return _odd(kept, text)


def _odd(kept: str, split: str) -> ReadPath:
    """Give the readings of a path with an oddity: encoded slashes kept or not, empty segments kept or not."""
    if split.startswith("//"):
        raise PathError("the path begins with two slashes, which some take for the begin of a host")
    merged = _EMPTY.sub("/", kept)
    first_merged = merged.replace(ENCODED_SLASH, "/")  # a proxy removes empty segments, the server behind it decodes
    readings = dict.fromkeys((kept, merged, first_merged, split, _EMPTY.sub("/", split)))
    if any(without_dots(one) != one for one in readings):
        raise PathError("the path has dot segments beside an encoded slash or an empty segment")
    found = {ENCODED_SLASHES: kept != split, EMPTY_SEGMENTS: "//" in split}
    return ReadPath(readings=tuple(readings), oddities=tuple(sorted(name for name, there in found.items() if there)))


def _decoded(raw: str) -> list[str]:
    """Give what stands between encoded slashes, decoded once."""
    try:
        encoded = raw.encode("latin-1")
    except UnicodeEncodeError as error:
        raise PathError("the path has characters that cannot be on the wire") from error
    if len(encoded) > PATH_BYTES_MAX:
        raise PathError(f"the path is longer than {PATH_BYTES_MAX} bytes")
    if not encoded.startswith(b"/"):
        raise PathError("the path does not begin with /")
    if b"#" in encoded:
        raise PathError("the path has a #, which no client sends")
    if _BROKEN.search(encoded):
        raise PathError("the path has a % that encodes nothing")
    if any(int(found[1], 16) in b"\\\x00" for found in _ESCAPE.finditer(encoded)):
        raise PathError("the path has an encoded backslash (%5C) or an encoded NUL")
    try:
        return [_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), one).decode("utf-8") for one in _SLASH.split(encoded)]
    except UnicodeDecodeError as error:
        raise PathError("the path is not UTF-8") from error


def without_dots(path: str) -> str:
    """Remove `.` and `..` segments (RFC 3986 section 5.2.4); what would go above the root stays there.

    Args:
        path: decoded, begins with a slash.
    """
    *above, last = path.split("/")[1:]
    kept: list[str] = []
    for segment in (*above, last):
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if last in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
