"""The request target: what it names, and how it is written anew.

What lives here: RFC 9112 section 3.2, RFC 3986 section 6.2.2. What must not: how a path is judged (policy/http_path.py).

What is sent is not the text that was judged, since decoding it loses which reserved characters were encoded (`%2B` and `+` are
two keys to an object store), but it is held to mean the same: both have the same readings (policy/http_path.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from capd.enforcer.policy.http_path import PathError, is_plain, read_path, without_dots

_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?(.*))?", re.IGNORECASE | re.DOTALL)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ILLEGAL: Final = re.compile(r"[^!$%&'()*+,\-./0-9:;=@A-Z_a-z~]")
_ILLEGAL_IN_QUERY: Final = re.compile(r"[\x00-\x20\x7f-\U0010ffff]")


class TargetError(ValueError):
    """There is no one thing that the target means."""


@dataclass(slots=True, kw_only=True)
class Target:
    """A target, read. Nobody changes it; freezing is slow.

    Attributes:
        scheme, authority: of the absolute form, the scheme in lower case; else None.
        path: as it is to be sent; "*" of OPTIONS.
        query: as it is to be sent; None: there is none.
    """

    scheme: str | None = None
    authority: str | None = None
    path: str
    query: str | None = None

    @property
    def origin_form(self) -> str:
        """Give what stands in the request line."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


def read_target(method: str, text: str) -> Target:
    """Read a target of any method but CONNECT.

    Raises:
        TargetError: it is none, or one that servers read differently.
    """
    if text == "*":
        if method != "OPTIONS":
            raise TargetError(f"the target * is for OPTIONS, not for {method}")
        return Target(path="*")
    absolute = None if text.startswith("/") else _ABSOLUTE.fullmatch(text)
    if absolute is None:
        path, mark, query = text.partition("?")
        return Target(path=_sent(path), query=_query(query) if mark else None)
    scheme, authority, path, query = absolute.groups()
    return Target(
        scheme=scheme.lower(), authority=authority, path=_sent(path or "/"), query=None if query is None else _query(query)
    )


def _sent(path: str) -> str:
    if is_plain(path):
        return path
    try:
        judged = read_path(path)
        decoded = _ESCAPE.sub(_canonical_escape, path)
        sent = without_dots(_ILLEGAL.sub(lambda found: f"%{ord(found[0]):02X}", decoded))
        same = read_path(sent) == judged
    except PathError as error:
        raise TargetError(str(error)) from error
    if not same:
        raise TargetError("the path has no one form")
    return sent


def _canonical_escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else f"%{found[1].upper()}"


def _query(text: str) -> str:
    if "#" in text:
        raise TargetError("the target has a #, which no client sends")
    return _ILLEGAL_IN_QUERY.sub(lambda found: f"%{ord(found[0]):02X}", text)
