"""Which names gave a run which addresses: what lets the proxy judge a connection to an address by a name.

What lives here: the memory, bounded. What must not: looking anything up, clocks: the time comes in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.resolver.binding import Address, Binding

SECONDS_MIN: Final = 60.0
"""Programs connect to an address for some time after it was to be forgotten: pools, retries, a JVM's own cache."""
SECONDS_MAX: Final = 3600.0
"""A name that is used for longer is asked for again; the resolver gives no longer time to live either."""
ADDRESSES_PER_RUN_MAX: Final = 4096
NAMES_PER_ADDRESS_MAX: Final = 64
"""Names that one address stands for: large hosters. The latest count."""
RUNS_MAX: Final = 4096
"""As many as can be live (daemon/runs.py)."""


@dataclass
class _Run:
    """For each address its names, with the time at which each is forgotten; the address that was bound last is last."""

    addresses: OrderedDict[Address, OrderedDict[str, float]] = field(default_factory=OrderedDict)


class Bindings:
    """Names by run and address."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    def bind(self, binding: Binding, now: float) -> None:
        """Remember what a run was told; `now`: monotonic time. What does not fit pushes out what was bound longest ago."""
        found = self._runs.setdefault(binding.run, _Run()).addresses
        self._runs.move_to_end(binding.run)
        over = now + min(max(binding.seconds, SECONDS_MIN), SECONDS_MAX)
        for address in binding.addresses:
            names: OrderedDict[str, float] = found.setdefault(address, OrderedDict())
            found.move_to_end(address)
            names[binding.name] = max(over, names.get(binding.name, 0.0))
            names.move_to_end(binding.name)
            if len(names) > NAMES_PER_ADDRESS_MAX:
                names.popitem(last=False)
        while len(found) > ADDRESSES_PER_RUN_MAX:
            found.popitem(last=False)
        while len(self._runs) > RUNS_MAX:
            self._runs.popitem(last=False)

    def counts(self, run: str, address: Address, name: str, now: float) -> bool:
        """Say whether a run came to an address by a name, and it still counts."""
        found = self._runs.get(run)
        names = None if found is None else found.addresses.get(address)
        return names is not None and names.get(name, now) > now

    def names_of(self, run: str, address: Address, now: float) -> tuple[str, ...]:
        """Give the names by which a run came to an address and that still count, the latest first."""
        found = self._runs.get(run)
        names = None if found is None else found.addresses.get(address)
        return tuple(name for name, over in reversed(names.items()) if over > now) if names else ()
