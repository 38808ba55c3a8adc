"""Names and where they lead: whether an address is one that the host's own resolver gives for a name.

What lives here: a bounded cache before a resolver. What must not: the agent's word for it, DNS itself.

Of TLS the certificate proves the name. In clear there is only the agent's Host field, which it could write on any connection;
so the name counts only when it leads to where the connection goes. Whoever serves the name's zone says where that is, so it
never counts for this host itself, the link or a group (DNS rebinding): there, a rule has to permit the address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from capd.enforcer.policy.address_range import address, is_ordinary

NAMES_MAX: Final = 4_096
"""An agent chooses names; the oldest go."""
KNOWN_SECONDS: Final = 30.0
"""Below the usual life of a record that moves; an address that was right before stays right as long."""
ADDRESSES_MAX: Final = 64
"""Of one name, over time: services that are reached under many addresses give a few in each answer."""

LOCALHOST: Final = "localhost"
"""The one name of loopback that no zone is asked for (RFC 6761 6.3)."""

Resolve = Callable[[str], Awaitable[Iterable[str]]]
"""Gives the addresses of a name in text, none when there is no such name."""


class Names:
    """Remembers answers."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolve, self._clock = resolve, clock
        self._known: OrderedDict[str, dict[str, float]] = OrderedDict()

    def remembers(self, name: str, address: str) -> bool:
        """Say whether the name led there a short time ago."""
        until = self._known.get(name, {}).get(address)
        return until is not None and self._clock() < until

    async def leads_to(self, name: str, wanted: str) -> bool:
        """Ask the resolver, and say whether the name leads there."""
        found = [one for one in await self._resolve(name) if _may_lead(name, one)]
        until = self._clock() + KNOWN_SECONDS
        known = self._known.setdefault(name, {})
        self._known.move_to_end(name)
        known.update(dict.fromkeys(found, until))
        for old in sorted(known, key=known.__getitem__)[: max(0, len(known) - ADDRESSES_MAX)]:
            del known[old]
        while len(self._known) > NAMES_MAX:
            self._known.popitem(last=False)
        return self.remembers(name, wanted)


def _may_lead(name: str, text: str) -> bool:
    found = address(text)
    return found is not None and (is_ordinary(found) or (name == LOCALHOST and found.is_loopback))
