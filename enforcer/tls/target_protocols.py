"""Which targets do not speak HTTP/2, as they said when they were dialled.

What lives here: a bounded memory. What must not: TLS, what follows from it (proxy/secured.py).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

TARGETS_MAX: Final = 4_096
"""An agent chooses names; the oldest go."""
KNOWN_SECONDS: Final = 3_600.0
"""Then it is asked again: servers are given HTTP/2 one day. A wrong guess costs a client one connection more."""

Key = tuple[str, str, int]
"""Name, address, port: of one name some servers may be newer than others."""


class TargetProtocols:
    """Remembers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._without: OrderedDict[Key, float] = OrderedDict()

    def speaks_http2(self, key: Key) -> bool:
        """Say whether a target may."""
        until = self._without.get(key)
        return until is None or self._clock() >= until

    def learn(self, key: Key, *, http2: bool) -> None:
        """Remember what a target chose."""
        self._without.pop(key, None)
        if not http2:
            self._without[key] = self._clock() + KNOWN_SECONDS
            if len(self._without) > TARGETS_MAX:
                self._without.popitem(last=False)
