"""One answer that a run was given: a name, the addresses that it gave, for how long; and how one process tells another of it.

What lives here: the value and its bytes. What must not: remembering it (bindings.py), sockets (telling.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

BYTES_MAX: Final = 8192
"""A run's id, a name of 255 bytes, and 64 addresses of at most 45 characters each (core.ADDRESSES_MAX)."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """What a run was told.

    Attributes:
        run: its id.
        name: in lower case, without a dot at its end.
        addresses: what the name gave.
        seconds: time to live as it was told to the run.
    """

    run: str
    name: str
    addresses: tuple[Address, ...]
    seconds: int

    def encode(self) -> bytes:
        """Give it as one message."""
        told = {"run": self.run, "name": self.name, "addresses": [str(one) for one in self.addresses], "seconds": self.seconds}
        return json.dumps(told, separators=(",", ":")).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Binding:
        """Read a message.

        Raises:
            ValueError: it is none.
        """
        try:
            told = json.loads(data)
            return cls(
                run=str(told["run"]),
                name=str(told["name"]),
                addresses=tuple(ip_address(one) for one in told["addresses"]),
                seconds=int(told["seconds"]),
            )
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("it tells of no binding") from error
