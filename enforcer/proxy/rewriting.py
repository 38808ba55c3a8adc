"""What a verdict has changed in a request and in its answer on their way: the place for it.

What lives here: the calls, and that nothing is changed. What must not: what is changed, and why.
"""

from __future__ import annotations

from typing import Final, Protocol

from capd.enforcer.proxy.question import Request

Fields = list[tuple[str, str]]


class Rewriting(Protocol):
    """For one request and its answer. The length of a body never changes."""

    def request(self, request: Request) -> Request:
        """Give the request as it is sent."""

    def interim(self, fields: Fields) -> Fields:
        """Give the fields of an interim answer, or trailers."""

    def head(self, status: int, fields: Fields, *, has_body: bool) -> Fields:
        """Give the fields of the final answer."""

    def body(self, content: bytes) -> bytes:
        """Take a part of the answer's body and give what can go on."""

    def end(self) -> bytes:
        """Give what still waits, at the end of the body."""


class Unchanged:
    """Changes nothing."""

    def request(self, request: Request) -> Request:
        """Give it as it is."""
        return request

    def interim(self, fields: Fields) -> Fields:
        """Give them as they are."""
        return fields

    def head(self, status: int, fields: Fields, *, has_body: bool) -> Fields:  # noqa: ARG002 - others look at it
        """Give them as they are."""
        return fields

    def body(self, content: bytes) -> bytes:
        """Give it as it is."""
        return content

    def end(self) -> bytes:
        """Give nothing: nothing waits."""
        return b""


UNCHANGED: Final = Unchanged()
