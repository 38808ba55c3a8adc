"""A request and its answer as a verdict's obligations have them, whatever the version of HTTP.

What lives here: which request is sent, and the way of its answer. What must not: framing, and how obligations are met
(enforcer/obligations).
"""

from __future__ import annotations

from dataclasses import replace

from capd.enforcer.obligations.answer import Fields
from capd.enforcer.obligations.obligation import CannotCarryOutError, CarriedOut
from capd.enforcer.proxy.question import Request, Verdict


class Obliged:
    """One exchange. All but `request` raise CannotCarryOutError where nothing more may go on."""

    def __init__(self, verdict: Verdict) -> None:
        """Take an allowing verdict with obligations.

        Raises:
            CannotCarryOutError: it was not made ready: it is no permission then.
        """
        if verdict.provision is None:
            raise CannotCarryOutError("what its rules ask for was not made ready")
        self._provision = verdict.provision
        self._answer = verdict.provision.answer(verdict.obligations)

    @property
    def carried_out(self) -> CarriedOut:
        """What was done so far."""
        return self._answer.carried_out

    def request(self, request: Request) -> Request:
        """Give the request as it is sent."""
        return replace(request, fields=self._provision.fields, query=self._provision.query)

    def interim(self, fields: Fields) -> list[tuple[str, str]]:
        """Give the fields of an interim answer, or trailers."""
        return self._answer.interim(fields)

    def head(self, status: int, fields: Fields, *, has_body: bool) -> list[tuple[str, str]]:
        """Give the fields of the final answer."""
        return self._answer.head(status, fields, has_body=has_body)

    def text(self, text: str) -> str:
        """Give a reason phrase."""
        return self._answer.text(text)

    def body(self, content: bytes) -> bytes:
        """Take a part of the answer's body and give what can go on."""
        return self._answer.body(content)

    def end(self) -> bytes:
        """Give what still waits, at the end of the body."""
        return self._answer.end()
