"""Which part of a header field's value is hidden: the credential without its scheme, cookies without their names.

What lives here: that, for bytes on their way to the disk and for what a screen shows. What must not: which fields (names.py
has the defaults, a configuration adds to them). Light to import: `capd replay` waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from capd.enforcer.masking.names import COOKIE_HEADERS, SCHEMES
from capd.enforcer.masking.place import Place

_SCHEME: Final = re.compile(rb"[ \t]*(?:(?:%s)[ \t]+)?" % b"|".join(scheme.encode() for scheme in SCHEMES), re.IGNORECASE)
_COOKIE: Final = re.compile(rb"[ \t]*+([^=;]*+)=((?:\"[^\"]*\")?[^;]*);?|[^;]*;?")


def header_places(headers: Collection[str], cookies: Collection[str], name: str, value: bytes) -> list[Place]:
    """Give what is masked of a header field's value because of its name; offsets in the value.

    Args:
        headers: names of fields that are masked, in lower case.
        cookies: cookies that are; empty for all.
        name: of the field.
        value: of the field.
    """
    lower = name.lower()
    if lower not in headers:
        return []
    rule = f"header {lower}"
    if lower in COOKIE_HEADERS:
        return _cookies(cookies, value, rule, only_first=lower != "cookie")
    start = _SCHEME.match(value).end()  # type: ignore[union-attr]  # it always matches
    end = len(value.rstrip(b" \t"))
    return [Place(start, end, "credential", rule)] if end > start else []


def _cookies(names: Collection[str], value: bytes, rule: str, *, only_first: bool) -> list[Place]:
    places: list[Place] = []
    at = 0
    while at < len(value):
        pair = _COOKIE.match(value, at)
        if pair is None or pair.end() == at:
            break
        at = pair.end()
        if pair[2] is None:
            start, end = pair.start(), pair.end() - pair[0].endswith(b";")
            wanted = not names
        else:
            (start, end), wanted = pair.span(2), not names or pair[1].decode("latin-1") in names
        if wanted and end > start:
            places.append(Place(start, end, "cookie", rule))
        if only_first:
            break
    return places
