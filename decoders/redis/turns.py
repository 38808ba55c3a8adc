"""Whose turn it is.

What lives here: noticing that a client takes turns with its server, and what that shows after bytes were lost. What must not:
reading.

While a client has waited for all answers, whole, before it spoke again, and nobody told it anything unasked, it is taken to
go on so. Then, after lost bytes: where it speaks again after the server spoke, a command begins, and with the next that the
server says, its answer.
"""

from __future__ import annotations

from typing import Protocol

from capd.decoders.message import Gap
from capd.decoders.redis.answers import Answers


class Speaker(Protocol):
    """One direction."""

    @property
    def at_rest(self) -> bool:
        """Whether nothing is there whose end is not."""

    def begins_here(self) -> None:
        """What is said next begins something new."""


class Turns:
    """Both directions, in the order in which they speak."""

    request: Speaker
    response: Speaker

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._answered = False

    def request_speaks(self, item: bytes | Gap) -> None:
        """The client says something, or something that it said was lost."""
        if not self._answered:
            return
        answers = self._answers
        if isinstance(item, Gap):
            # It may have spoken earlier than that was noticed.
            return
        if not item:
            return
        self._answered = False
        if answers.lost:
            if answers.turns and item.startswith(b"*"):
                self.request.begins_here()
                self.response.begins_here()
                answers.turn()
        elif answers.waiting or not (self.request.at_rest and self.response.at_rest):
            answers.turns = False

    def response_speaks(self, item: bytes | Gap) -> None:
        """The server says something, or something that it said was lost."""
        if isinstance(item, Gap) or item:
            self._answered = True
