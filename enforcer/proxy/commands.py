"""What the core wants done: everything it can do to the world.

What lives here: the commands. What must not: doing them (shell.py). Commands of one list are done in their order. Nobody
changes them; those of every message are not frozen, which would take twice as long to build.
"""

from __future__ import annotations

from dataclasses import dataclass

from capd.enforcer.limits.meter import Exceeded
from capd.enforcer.obligations.obligation import CarriedOut
from capd.enforcer.proxy.events import Side, Timer
from capd.enforcer.proxy.question import Question


@dataclass(slots=True)
class Ask:
    """Judge, write the decision down, then answer with `Decided`. Until then nothing that hangs on it is forwarded."""

    question: Question


@dataclass(frozen=True, slots=True)
class Refused:
    """The core itself refused something, which no policy could have allowed; write it down.

    Attributes:
        number: in the place of a decision's.
        reason: for a person.
        summary: what was refused, as far as it is known.
    """

    number: int
    reason: str
    summary: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to the destination; answered with `Dialled` or `DialFailed`. A former connection to it is given up."""

    decision: int


@dataclass(slots=True)
class Send:
    """Send bytes.

    Attributes:
        side: to whom.
        data: never empty.
        decision: for the target: number of the allowing decision that these bytes belong to. For the agent: 0.
    """

    side: Side
    data: bytes
    decision: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """Send what waits, then say that nothing more will come; the other direction stays open."""

    side: Side


@dataclass(frozen=True, slots=True)
class Close:
    """Close both sides and forget the connection: after what waits is sent, or (`abort`) at once, as a cut."""

    abort: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Go on reading from a side, or (`False`) leave it to wait."""

    side: Side
    reading: bool


@dataclass(frozen=True, slots=True)
class Arm:
    """Tell `Expired` after so many seconds; a timer of that name that runs is replaced. None: stop it."""

    timer: Timer
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Write down what was done to an answer.

    Attributes:
        number: of the decision whose obligations were carried out.
        carried_out: how often.
    """

    number: int
    carried_out: CarriedOut


@dataclass(frozen=True, slots=True)
class Exceed:
    """Write down that a limit was reached, by what was said under a decision.

    Attributes:
        number: of the decision, or of a later one of the same session.
        exceeded: which.
    """

    number: int
    exceeded: Exceeded


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nobody waits for the answer to a question any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more will be sent under a decision. Only said where several stand side by side."""

    number: int


@dataclass(frozen=True, slots=True)
class Secure:
    """From here on a side speaks TLS; answered with `Secured`, or of the target `DialFailed`, of the agent `Ended`.

    For the layer around (in_band_tls.py); nobody else does it.

    Attributes:
        side: which; the agent is shown a leaf, the target is verified.
        decision: for the target: as of `Send`.
        server_name: for the target: what it must prove; None: its address.
        data: ciphertext that came already.
    """

    side: Side
    decision: int = 0
    server_name: str | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A decision that allowed something is over, and nothing was sent under it; write that down."""

    number: int


Command = Ask | Withdraw | Over | Refused | Report | Exceed | Dial | Send | Finish | Close | Read | Arm | Secure | Unsent
