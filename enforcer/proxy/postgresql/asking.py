"""What is asked about a statement: the planner, for the person who is asked, and whether it may go on.

What lives here: that order, and that what was judged is still so when the answer is there. What must not: what a statement does
(judging.py), what follows from the answer (conversation.py, extended.py).

A person may think for minutes. Where functions may have been defined meanwhile the server is asked about names once more, and a
statement that is another now is judged again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capd.enforcer.proxy.postgresql import estimate, messages
from capd.enforcer.proxy.postgresql.due import Due
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.proxy.question import Verdict

if TYPE_CHECKING:  # it makes this
    from capd.enforcer.proxy.postgresql.conversation import Conversation

Then = Callable[[Read, Verdict], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A statement that is to be judged.

    Attributes:
        reads: reads it in the session as it is now.
        sql: its text.
        content: every byte that decides what it does.
        prepares: it is only prepared.
        approved: as in question.Statement.
    """

    reads: Callable[[], Read]
    sql: bytes
    content: bytes
    prepares: bool = False
    approved: str = ""


class Asking:
    """Of one session."""

    def __init__(self, hub: Conversation) -> None:
        self._hub = hub

    def ask(self, said: Said, then: Then) -> None:
        """Have a statement judged; `then` is given what it is, and the verdict."""
        self._hub.naming.judge(said.reads, lambda read: self._ask(read, said, then))

    def _ask(self, read: Read, said: Said, then: Then) -> None:
        """Ask about it; if a person is to be asked, find out first how much it is about, where that can be."""
        hub, judging = self._hub, self._hub.judging
        idle = hub.status == messages.IDLE and not hub.extended.open and not hub.answers.due
        shown, text, content = hub.shown, said.sql, said.content
        if read.tied is not None:  # what it runs is no part of what it says
            text, content = read.tied + b"\n" + said.sql, read.tied + b"\0" + content

        def again(due: Due) -> None:
            found = None if due.failed else estimate.answer(due.rows)
            judging.ask(read.message, text, content, decided, shown={**shown, "estimate": found}, estimable=False)

        def decided(verdict: Verdict) -> None:
            if verdict.body_bytes:
                hub.asks(estimate.questions(said.sql), again)
            elif verdict.allowed and judging.is_outdated(read.message, hub.status):
                hub.naming.judge(said.reads, lambda anew: still(anew, verdict))
            else:
                then(read, verdict)

        def still(anew: Read, verdict: Verdict) -> None:
            if anew.message == read.message:
                then(read, verdict)
            else:
                judging.unsent()
                self._ask(anew, said, then)

        estimable = idle and estimate.estimable(read, said.sql)
        judging.ask(
            read.message,
            text,
            content,
            decided,
            shown=shown,
            estimable=estimable,
            prepares=said.prepares,
            approved=said.approved,
        )
