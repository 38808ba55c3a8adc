"""The answer of one exchange: what of it the agent is sent, in HTTP/1.1's framing.

What lives here: heads, parts and ends on their way through obligations. What must not: what becomes of the connection
(layer.py), what is masked (enforcer/obligations).
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from capd.decoders.message import Message
from capd.enforcer.obligations.obligation import CarriedOut
from capd.enforcer.proxy.http1 import fields as header
from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http1.response import SWITCHING, Outgoing, Responses
from capd.enforcer.proxy.obliged import Obliged
from capd.enforcer.proxy.question import Verdict


class Answering:
    """One answer.

    Attributes:
        begun: whether its final head was given.
        keeps: whether the connection can go on behind it.
    """

    def __init__(self, incoming: Incoming, verdict: Verdict, responses: Responses) -> None:
        """Begin.

        Args:
            incoming: the request.
            verdict: that allows it.
            responses: reads the answers of its connection.

        Raises:
            CannotCarryOutError: the verdict has obligations that were not made ready.
        """
        self._incoming, self._responses = incoming, responses
        self._obliged = Obliged(verdict) if verdict.obligations else None
        self._chunked = False
        self.begun = self.keeps = False

    @property
    def carried_out(self) -> CarriedOut | None:
        """What was done to it; None: nothing had to be."""
        return None if self._obliged is None else self._obliged.carried_out

    @property
    def looks(self) -> bool:
        """Whether bodies are looked into."""
        return self._obliged is not None

    @property
    def sent(self) -> Incoming:
        """The request as the target gets it."""
        if self._obliged is None:
            return self._incoming
        return replace(self._incoming, request=self._obliged.request(self._incoming.request))

    def head(self, message: Message, *, keeps: bool) -> Outgoing:
        """Give a head.

        Raises:
            NominationError: it has no meaning that could go across.
            CannotCarryOutError: what it announces cannot be looked into.
        """
        outgoing = self._responses.read(message, self._obliged, old=self._incoming.old, keeps=keeps)
        if not outgoing.interim and outgoing.status != SWITCHING:
            self.begun, self.keeps, self._chunked = True, outgoing.keeps, outgoing.chunked
        return outgoing

    def body(self, content: bytes) -> bytes:
        """Give what of a part can go on. Raises CannotCarryOutError."""
        if self._obliged is not None:
            content = self._obliged.body(content)
        return header.chunk(content) if self._chunked else content

    def end(self, message: Message) -> bytes:
        """Give what waited, and the end with its trailers. Raises CannotCarryOutError."""
        last = b"" if self._obliged is None else self._framed(self._obliged.end())
        if not self._chunked:
            return last
        trailers = header.trailers(cast("header.Fields", message.fields.get("trailers") or []))
        return last + header.last_chunk(trailers if self._obliged is None else self._obliged.interim(trailers))

    def _framed(self, content: bytes) -> bytes:
        return header.chunk(content) if self._chunked else content
