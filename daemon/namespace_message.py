"""What the daemon and the enforcer's processes say to each other about network namespaces.

What lives here: the messages and their bytes. What must not: sockets.

A packet of a unix socket each, as JSON. A process begins with who it is. The daemon then tells it what is open, and later what
opens and what is over; with what opens come descriptors: listeners, then sockets that ask sock_diag(7) there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

BYTES_MAX: Final = 256
DESCRIPTORS_MAX: Final = 8
"""With one message: of the resolver two families of TCP and of UDP, and two that ask."""
WORKER, RESOLVER = "worker", "resolver"
DIAGNOSES: Final = {WORKER: 1, RESOLVER: 2}
"""Sockets that ask, at the end of the descriptors: the resolver asks about datagrams and about connections."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the daemon says.

    Attributes:
        what: `open` or `over`.
        namespace: its number.
    """

    what: Literal["open", "over"]
    namespace: int

    def encode(self) -> bytes:
        """Give its bytes."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Told:
        """Read it.

        Raises:
            ValueError: it is none.
        """
        found = json.loads(data)
        if not isinstance(found, dict) or found.get("what") not in {"open", "over"} or type(found.get("namespace")) is not int:
            raise ValueError("it tells of no namespace")
        return cls(what=found["what"], namespace=found["namespace"])
