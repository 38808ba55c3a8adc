"""Paths of HTTP in the one form in which they are judged.

What lives here: RFC 3986 sections 2.4, 5.2.4 and 6.2.2, and what is refused because servers differ about it. What must not:
hosts, methods, queries.

A path is decoded once and its dot segments are removed. Refused, because one server reads another path than the next: encoded
separators (`%2F`, `%5C`), control characters, what is still encoded after decoding (`%252e`), `%` without two digits, bytes
that are no UTF-8, backslashes, empty segments (`//`), parameters (`;`), `#`.
"""

from __future__ import annotations

import re
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
    (re.compile(r"//"), "an empty segment (//), which some servers remove"),
    (re.compile(r"[\u2024\u2025\u2044\u2215\u29f8\uff0e\uff0f\uff3c\ufe52\ufe68]"), "a character that some take for . / or \\"),
)


class PathError(ValueError):
    """Servers may read different paths here; the message says why."""


def normal_path(raw: str) -> str:
    """Give a path normalised.

    Args:
        raw: as on the wire, up to the question mark; bytes beyond ASCII as Latin-1 characters, as decoders give them.

    Raises:
        PathError: there is no one form of it.
    """
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
    if any(int(found[1], 16) in b"/\\\x00" for found in _ESCAPE.finditer(encoded)):
        raise PathError("the path has an encoded separator (%2F, %5C) or an encoded NUL")
    try:
        text = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), encoded).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PathError("the path is not UTF-8") from error
    for pattern, what in _REFUSED:
        if pattern.search(text):
            raise PathError(f"the path has {what}")
    return without_dots(text)


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
