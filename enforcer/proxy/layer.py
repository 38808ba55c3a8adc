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

from capd.enforcer.proxy.commands import Command
from capd.enforcer.proxy.events import Event, Side
from capd.enforcer.proxy.question import Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known of a connection when a layer begins.

    Attributes:
        destination: where it goes.
        server_name: that TLS asked for; None: none, or no TLS.
        inspected: whether the layer runs inside TLS that capd opened.
        session: its id, for what a refused client is told.
        numbers: numbers decisions.
        random: gives random bytes.
    """

    destination: Destination
    session: str = ""
    server_name: str | None = None
    inspected: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    random: Callable[[int], bytes] = token_bytes


class Layer(ABC):
    """Events in, commands out."""

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
