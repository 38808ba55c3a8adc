"""Which clients of HTTP/1.1 are told that they wait, and how often: by an interim answer, `102 Processing` (RFC 2518 10.1).

What lives here: who they are, by the name that they give themselves. What must not: writing answers (http1/patience.py).

A client must take any number of interim answers (RFC 9110 15.2), and many do not: they take a 102 for the final one, or give
up. So by default only those are told that were seen to bear it, by tests/enforcer/test_waiting_clients.py with real ones. A
client that gives itself another one's name is told what that one is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from typing import Final

PACE_SECONDS: Final = (0.0, 5.0, 10.0, 15.0)
"""Before each interim answer, from the one before it. Four: Go's client ends at the sixth, one that asked for a 100 has had it,
and the target may send one of its own."""
OFTEN_SECONDS: Final = 2.0
"""For clients that give up when they hear nothing for 5 s, and count no interim answers."""
OFTEN_MAX: Final = 30
"""A request of HTTP is held for 55 s at most."""
_PRODUCT: Final = re.compile(r"(?:Python/[0-9.]+ )?([A-Za-z-]+)/([0-9]{1,4}(?:\.[0-9]{1,4}){0,2})(?![0-9])")
"""How a User-Agent begins: a product and its version (RFC 9110 10.1.5); of aiohttp the second."""


class Interim(Enum):
    """Who is told, as configured."""

    NEVER = "never"
    KNOWN = "known"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program or library that was seen to bear it.

    Attributes:
        product: its name.
        since: its first version that does.
        until: the first one after that which does not; None: all later ones do.
        lone: it says nothing of its connection, by which others are known that borrow its name.
        often: it gives up early.
    """

    product: str
    since: tuple[int, ...]
    until: tuple[int, ...] | None = None
    lone: bool = False
    often: bool = False


KNOWN: Final = (
    Client(product="curl", since=(7,), lone=True),
    Client(product="git", since=(2,), lone=True),
    Client(product="Wget", since=(1, 21), until=(2,)),
    Client(product="python-httpx", since=(0, 20), often=True),
    Client(product="aiohttp", since=(3, 8)),
    # JDK-8292044: before, 102 was final; 18 and 19 never had it mended.
    Client(product="Java-http-client", since=(17, 0, 13), until=(18,)),
    Client(product="Java-http-client", since=(20,)),
)


def pace(told: Interim, agents: Iterable[str], *, lone: bool) -> Iterable[float]:
    """Give the seconds to wait before each interim answer, from the one before; none: the client is told nothing.

    Args:
        told: as configured.
        agents: values of User-Agent.
        lone: whether the request says nothing of its connection.
    """
    if told is Interim.NEVER:
        return ()
    client = _client(list(agents), lone=lone)
    if client is not None:
        return (0.0, *repeat(OFTEN_SECONDS, OFTEN_MAX)) if client.often else PACE_SECONDS
    return PACE_SECONDS if told is Interim.ALL else ()


def _client(agents: list[str], *, lone: bool) -> Client | None:
    found = _PRODUCT.match(agents[0]) if len(agents) == 1 else None
    if found is None:
        return None
    version = tuple(map(int, found[2].split(".")))
    for client in KNOWN:
        fits = client.since <= version and (client.until is None or version < client.until)
        if client.product == found[1] and fits and (lone or not client.lone):
            return client
    return None
