"""What a verdict has changed in a request and in its answer on their way: the place for it.

What lives here: the calls, and that nothing is changed. What must not: what is changed, and why.
"""

from __future__ import annotations

from typing import Final, Protocol

from capd.enforcer.proxy.question import Request

Fields = list[tuple[str, str]]


class Rewriting(Protocol):
    """For one request. Every call may be made once or in its order only."""

    def request(self, request: Request) -> Request:
        """Give the request as it is sent."""

    def answer(self, status: int, fields: Fields) -> Fields:
        """Give the fields of the final answer; without content-length, if `body` will change what it counts."""

    def body(self, data: bytes, *, final: bool) -> bytes:
        """Give what can be sent of the answer's body so far; `final`: nothing comes behind this, which may be empty."""


class Unchanged:
    """Changes nothing."""

    def request(self, request: Request) -> Request:
        """Give it as it is."""
        return request

    def answer(self, status: int, fields: Fields) -> Fields:  # noqa: ARG002 - others look at it
        """Give them as they are."""
        return fields

    def body(self, data: bytes, *, final: bool) -> bytes:  # noqa: ARG002 - as above
        """Give it as it is."""
        return data


UNCHANGED: Final = Unchanged()
