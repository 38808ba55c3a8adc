"""Addresses of HTTP: what is compared of them.

What lives here: that. What must not: which are allowed (daemon/approvals_section.py).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def port_of(parts: SplitResult) -> int:
    """Give the port of an address."""
    return parts.port or DEFAULT_PORTS[parts.scheme]


def same_origin(url: str, other: str) -> bool:
    """Say whether two addresses have one scheme, host and port (RFC 6454 section 5); one that is none has no other's."""
    try:
        return _origin(url) == _origin(other)
    except (ValueError, KeyError):
        return False


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, port_of(parts)
