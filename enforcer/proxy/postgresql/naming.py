"""Reading statements of one session once it is known what their names mean: the server is asked, where that can be done.

What lives here: when it is asked, and how often. What must not: what is asked (inquiry.py), what follows from it (judging.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.due import Due
from capd.enforcer.proxy.postgresql.read_statement import Read

if TYPE_CHECKING:  # it makes this
    from capd.enforcer.proxy.postgresql.conversation import Conversation

ASKED_MAX: Final = 3
"""Times that a server is asked before one statement: where others define on and on, it is judged as not known in full."""


class Naming:
    """Of one session."""

    def __init__(self, hub: Conversation) -> None:
        self._hub = hub

    def judge(self, reads: Callable[[], Read], then: Callable[[Read], None]) -> None:
        """Read a statement, after the server was asked about names where that tells more and can be done."""
        hub, read = self._hub, reads()
        idle = not hub.answers.due and not hub.extended.open
        if idle and hub.judging.lacks_names(read.message, hub.status):
            self._judge_told(reads, then, ASKED_MAX)
        else:
            then(hub.judging.doubted(read))

    def _judge_told(self, reads: Callable[[], Read], then: Callable[[Read], None], left: int) -> None:
        """Read a statement once the server was asked, and once more where something was defined meanwhile."""

        def told() -> None:
            read = reads()
            known = self._hub.judging.doubted(read)
            if known is read or left == 1:
                then(known)
            else:
                self._judge_told(reads, then, left - 1)

        self.ask(told)

    def ask(self, then: Callable[[], None]) -> None:
        """Ask the server where names are looked for; it must be idle."""
        hub = self._hub

        def told(due: Due) -> None:
            if due.failed:
                hub.judging.untold()
            else:
                hub.judging.learn(due.rows)
            then()

        within = hub.status != messages.IDLE
        hub.asks([one.encode() for one in hub.judging.names_queries(within=within)], told)
