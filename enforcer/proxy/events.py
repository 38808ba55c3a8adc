"""What happens to a connection: everything the core is told.

What lives here: the events. What must not: what follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from capd.enforcer.proxy.question import Verdict


class Side(IntEnum):
    """Whose end of the conversation: the agent's or the target's."""

    CLIENT = 0
    UPSTREAM = 1

    @property
    def other(self) -> Side:
        """Give the one across."""
        return Side.UPSTREAM if self is Side.CLIENT else Side.CLIENT


class Timer(Enum):
    """What can be waited for. The seconds are in `Arm`."""

    SILENCE = "silence"
    """The client has said nothing: the server may speak first."""
    DEADLINE = "deadline"
    """What has begun must be whole: a ClientHello, a handshake, a request's head, a last flight."""
    TURN = "turn"
    """What waits for others has waited long enough."""
    CALM = "calm"
    """What was counted of a flood is forgotten."""


@dataclass(frozen=True, slots=True)
class Started:
    """The connection was accepted."""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes came; never empty."""

    side: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A side will send nothing more; `clean`: it meant to, as far as its protocol can say."""

    side: Side
    clean: bool = True


@dataclass(frozen=True, slots=True)
class Dialled:
    """The target can be spoken to; in TLS it chose this application protocol, or None."""

    application_protocol: str | None = None


@dataclass(frozen=True, slots=True)
class DialFailed:
    """The target cannot be reached, or did not prove who it is; `refused` then."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """A question has its verdict."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was allowed is not any more. Only said of decisions that stand side by side; else the connection is cut."""

    number: int


@dataclass(frozen=True, slots=True)
class Expired:
    """A timer that was armed has run out."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Blocked:
    """More than enough waits to be sent to a side, or (`False`) no longer."""

    side: Side
    blocked: bool


Event = Started | Data | Ended | Dialled | DialFailed | Decided | Revoked | Expired | Blocked
