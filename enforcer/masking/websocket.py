"""What is masked in WebSocket: one direction of a connection, message by message, as decoders/websocket tells them.

What lives here: the way from what a message says to its bytes, which are scrambled or packed. What must not: decoding.

A part of a message that is not its last is judged as if nothing followed: what may be the beginning of something is masked, and
the beginning of what follows too. Nothing of a packed message can be masked in place: a hit hides all of its payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from capd.enforcer.masking.body import BodyMask
from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.rules import Rules

DATA: Final = frozenset({"text", "binary"})
NOT_UNPACKED: Final = "not unpacked"
PACKED: Final = "compressed message"


class WebsocketMask:
    """One direction."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._body: BodyMask | None = None
        self._said = 0
        self.decided = 0
        """Everything before is judged."""
        self.pieces: list[tuple[int, int]] = []
        """As in `HttpMask`; no message here is a part of a body."""
        self.content: bytes | None = None
        """What the next message says, where it does not stand in its bytes."""
        self.shown: bytes | None = None
        """What the latest message says, masked; None if it is as it was."""

    def message(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool = True) -> list[Place]:
        """Judge a message; see `HttpMask.message`."""
        self.decided = max(self.decided, start + len(raw))
        self.shown = None
        pieces = cast("Sequence[tuple[int, int]]", fields.get("pieces", ()))
        size = sum(length for _, length in pieces)
        content, self.content = self.content, None
        if content is None:
            content = b"".join(raw[at - start : at - start + length] for at, length in pieces)
        packed = bool(fields.get("packed"))
        if not whole or (not packed and len(content) != size) or (packed and size and not content):
            self._body = None
            self.shown = b""
            return [Place(at, at + length, "undecided", NOT_UNPACKED) for at, length in pieces]
        places = self._judge(kind, fields, content)
        if not places:
            return []
        self.shown = filled(content, places)
        if packed:
            return [Place(at, at + length, places[0].kind, f"{PACKED}, {places[0].rule}") for at, length in pieces]
        return _placed(places, pieces)

    def _judge(self, kind: str, fields: Mapping[str, object], content: bytes) -> list[Place]:
        """Give places in what a message says."""
        if kind not in DATA:
            body, before, final = BodyMask(self._rules), 0, True
        else:
            if self._body is None or not fields.get("part"):
                self._body, self._said = BodyMask(self._rules), 0
                if fields.get("part"):
                    self._body.gap(0)
            body, before, final = self._body, self._said, bool(fields.get("final"))
            self._said += len(content)
            self._body = None if final else body
        body.take(content, before)
        places = body.judge(final=final)
        if not final:
            places += body.gap(0)
        return joined(place.moved(-before) for place in places)

    def judge(self) -> list[Place]:
        """Nothing waits."""
        return []

    def passed_over(self, end: int) -> None:
        """Bytes up to an offset are no message."""
        self.decided = max(self.decided, end)

    def other_said(self, _kind: str, _fields: Mapping[str, object]) -> list[Place]:
        """Nothing that the other direction says matters here."""
        return []

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing: what follows in a message may be the rest of something."""
        return [] if self._body is None else self._body.gap(length)

    def harmless(self, _tail: bytes) -> bool:
        """Say whether bytes that belong to no message yet are nothing but framing: who knows."""
        return False

    def end(self) -> list[Place]:
        """Nothing waits."""
        return []

    def cut(self) -> list[Place]:
        """Nothing waits; what follows in a message may be the rest of something."""
        return self.gap(0)

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [self.decided, self._said, None if self._body is None else self._body.save()]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        self.decided, self._said, body = cast("tuple[int, int, Sequence[object] | None]", tuple(saved))
        self._body = None if body is None else BodyMask.restored(self._rules, body)


def _placed(places: Sequence[Place], pieces: Sequence[tuple[int, int]]) -> list[Place]:
    """Give places in what is said as places in the stream; both are in order."""
    found: list[Place] = []
    before = number = 0
    for at, length in pieces:
        while number < len(places) and places[number].end <= before:
            number += 1
        for place in places[number:]:
            if place.start >= before + length:
                break
            start, end = max(place.start, before), min(place.end, before + length)
            found.append(place._replace(start=start - before + at, end=end - before + at))
        before += length
    return found
