"""Errors that say what is not allowed, or cannot be done as it is.

What lives here: their words. What must not: when they are said.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.proxy.commands import Refused
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.judging import GIVEN_UP, Judging
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Verdict

_CANNOT: Final = "cannot_be_carried_out"


class Refusals:
    """Of one session."""

    def __init__(self, session: str, judging: Judging, outbox: Outbox) -> None:
        """Take the session's id, what knows its encoding, and where it is noted."""
        self._session, self._judging, self._outbox = session, judging, outbox

    def of(self, verdict: Verdict) -> bytes | None:
        """Give the error for what is not allowed; None: it goes on."""
        if verdict.allowed:
            return None
        facts = {"reason": verdict.reason, "rule": verdict.rule or "default", **verdict.facts}
        code = messages.CANCELLED if verdict.reason == GIVEN_UP else messages.DENIED
        return self._error(code, verdict.message or verdict.reason, facts)

    def not_hidden(self, reason: str | bytes, verdict: Verdict) -> bytes:
        """Give the error for what is allowed with something hidden, which cannot be done; or the server's own, of its body."""
        if isinstance(reason, bytes):
            return messages.frame(b"E", reason)
        self._outbox.do(Refused(verdict.number, f"{_CANNOT}: {reason}", ""))
        return self._error(messages.DENIED, reason, {"reason": _CANNOT, "rule": verdict.rule})

    def _error(self, code: str, message: str, facts: dict[str, str]) -> bytes:
        detail = messages.facts_text({**facts, "session": self._session})
        return messages.error(code, f"capd: {message}", detail=detail, encoding=self._judging.encoding)
