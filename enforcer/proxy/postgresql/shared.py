"""What the sessions of one worker share.

What lives here: the value. What must not: what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capd.enforcer.proxy.postgresql.cancelling import Cancels
from capd.enforcer.proxy.postgresql.known_functions import KnownFunctions


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Of one worker.

    Attributes:
        cancels: keys to cancel with.
        functions: that hide a server's own.
    """

    cancels: Cancels
    functions: KnownFunctions = field(default_factory=KnownFunctions)
