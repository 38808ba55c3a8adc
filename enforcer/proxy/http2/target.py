"""What the agent's streams are forwarded to: a connection to the target, whatever version of HTTP it speaks.

What lives here: what both kinds have in common, and what they tell. What must not: any version (target_http2.py,
target_http1.py).

A stream is named by the agent's number for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http2.answer import Head
from capd.enforcer.proxy.http2.request import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The head of an answer, interim or final; `ends`: it is all there is."""

    stream: int
    head: Head
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A part of an answer's body.

    Attributes:
        stream: whose.
        data: may be empty.
        credit: what the target may send more, once this went on.
    """

    stream: int
    data: bytes
    credit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """An answer is whole."""

    stream: int
    trailers: Fields = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """The target ended a stream before it was whole, with a code; `reason`: it broke the protocol, and was told."""

    stream: int
    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The target takes no new streams; it never looked at these."""

    unseen: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The connection is of no use any more."""

    reason: str


Told = Answered | Content | Complete | GivenUp | Leaving | Lost


class Target(ABC):
    """One connection to a target."""

    @abstractmethod
    def accepts(self) -> bool:
        """Say whether another stream can be forwarded now."""

    @abstractmethod
    def open(self, stream: int, incoming: Incoming, *, trailers: bool, expects: bool, ends: bool) -> None:
        """Forward a head; `ends`: there is no body. Raises FieldsError: it has no form there, and nothing was sent."""

    @abstractmethod
    def room(self, stream: int) -> int:
        """Say how many bytes of a body can be forwarded now."""

    @abstractmethod
    def body(self, stream: int, data: bytes, *, ends: bool) -> None:
        """Forward a part of a body, `room` at most."""

    @abstractmethod
    def give_up(self, stream: int, code: int) -> None:
        """The stream is of no interest any more."""

    @abstractmethod
    def forget(self, stream: int) -> None:
        """The stream is over on both sides."""

    @abstractmethod
    def took(self, stream: int, credit: int) -> None:
        """A part of an answer went on; the stream may be over by now."""

    @abstractmethod
    def receive(self, data: bytes) -> list[Told]:
        """Take bytes of the target."""

    @abstractmethod
    def end(self, *, clean: bool) -> list[Told]:
        """Take its end; not `clean`: it was cut."""

    @abstractmethod
    def take(self) -> bytes:
        """Give the bytes for it."""

    @property
    def spent(self) -> bool:
        """Whether it takes no streams any more, and has none."""
        return False

    def calm(self) -> None:  # noqa: B027 - only one kind counts
        """Forget what was counted of floods."""

    @property
    def held(self) -> int:
        """Bytes that wait for more of their message."""
        return 0

    @property
    def counting(self) -> bool:
        """Whether `calm` has anything to forget."""
        return False
