"""What happens to a connection: everything the core is told.

What lives here: the events. What must not: what follows from them. Nobody changes them; those of every message are not frozen,
which would take twice as long to build.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    STILL = "still"
    """A client whose request is held has heard nothing for a while."""
    STATEMENT = "statement"
    """What was said must be answered."""
    CALM = "calm"
    """What was counted of a flood is forgotten."""


@dataclass(frozen=True, slots=True)
class Started:
    """The connection was accepted."""


@dataclass(slots=True)
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
    """The target can be spoken to; in TLS it chose this application protocol, or None, and proved its name with a certificate.

    Attributes:
        application_protocol: that it chose.
        certificate: DER.
    """

    application_protocol: str | None = None
    certificate: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DialFailed:
    """The target cannot be reached, or did not prove who it is; `refused` then."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Secured:
    """A side speaks TLS now, as its layer wanted.

    Attributes:
        side: which.
        server_name: of the agent: that it asked for, normalised; None: none.
        certificate: of the target: that it proved its name with; of the agent: that it was shown, DER.
    """

    side: Side
    server_name: str | None = None
    certificate: bytes | None = field(default=None, repr=False)


@dataclass(slots=True)
class Decided:
    """A question has its verdict."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Held:
    """A person is asked about a question; its verdict will follow.

    Attributes:
        number: of the question.
        approval: id of the request for approval.
    """

    number: int
    approval: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The client asked on another connection that what it waits for here be given up."""


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


Event = Started | Data | Ended | Dialled | DialFailed | Secured | Decided | Held | Interrupted | Revoked | Expired | Blocked
