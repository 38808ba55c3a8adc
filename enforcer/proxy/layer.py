"""A layer: one protocol's part of a connection.

What lives here: what all layers have in common. What must not: any protocol.

A layer may put another one in its place, or around it: what a layer sends is, to the one around it, plaintext to encrypt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from secrets import token_bytes
from time import monotonic
from typing import Final

from capd.enforcer.limits.totals import Totals
from capd.enforcer.proxy.commands import Command
from capd.enforcer.proxy.events import Event, Side
from capd.enforcer.proxy.interim import Interim
from capd.enforcer.proxy.question import Destination
from capd.enforcer.proxy.transcript import Transcript

UNBOUNDED: Final = 1 << 62
"""Bytes, where all that come are passed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A connection that was let in.

    Attributes:
        session: its id.
        run: whose it is.
        wake: tells it an event that came from elsewhere than its two sides, such as from another connection.
        transcript: of what is said on it.
    """

    session: str
    run: str = ""
    wake: Callable[[Event], None] = field(default=lambda _: None, repr=False)
    transcript: Transcript = field(default_factory=lambda: Transcript(b""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known of a connection when a layer begins.

    Attributes:
        destination: where it goes.
        server_name: that TLS asked for; None: none, or no TLS.
        inspected: whether the layer runs inside TLS that capd opened.
        session: its id, for what a refused client is told.
        run: whose it is.
        wake: tells the connection an event that came from elsewhere.
        numbers: numbers decisions.
        random: gives random bytes.
        now: seconds of a clock that does not go back.
        mask_key: for hashes of what is hidden.
        totals: counts what runs have had; None: it cannot be counted.
        transcript: of what agent and enforcer say to each other.
        interim: which clients of HTTP/1.1 are told while they wait.
    """

    destination: Destination
    session: str = ""
    run: str = ""
    wake: Callable[[Event], None] = field(default=lambda _: None, repr=False)
    server_name: str | None = None
    inspected: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    random: Callable[[int], bytes] = token_bytes
    now: Callable[[], float] = monotonic
    mask_key: bytes = field(default=b"", repr=False)
    totals: Totals | None = None
    transcript: Transcript = field(default_factory=lambda: Transcript(b""))
    interim: Interim = Interim.KNOWN


class Layer(ABC):
    """Events in, commands out.

    Attributes:
        reads_on: whether, since its last event, it surely wants more of both sides and stays in its place: it is not asked.
    """

    reads_on: bool = False

    def successor(self) -> Layer:
        """Give the layer that has taken its place for good: what is told it alone would be passed on unchanged."""
        return self

    @property
    def settled(self) -> bool:
        """Whether it asks nothing more of a layer around it but to pass bytes on."""
        return False

    @abstractmethod
    def handle(self, event: Event) -> list[Command]:
        """Take an event and give what follows from it. `Blocked` is not for layers."""

    def replies(self) -> bool:
        """Say whether a client may have bytes made for itself without end: it is not read while it does not take them.

        Only where its protocol has it always read what it is sent; others wait until all is taken that they say.
        """
        return False

    def wants(self, side: Side) -> bool:  # noqa: ARG002 - most layers always want
        """Say whether the layer has room for more bytes of a side."""
        return True

    def plain_bytes(self, side: Side) -> int:  # noqa: ARG002 - most layers look at all
        """Say how many of the next bytes of a side go on in one piece whatever they are, so that many cost what few do.

        Only what is certain counts, such as the rest of a body whose length was said: it lets a slice be longer (kept.py).
        """
        return 0

    def waiting_bytes(self) -> int:
        """Say how many bytes the layer keeps that wait for something: what counts in its run's budget (room.py)."""
        return 0
