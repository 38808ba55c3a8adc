"""Texts that come in messages of a protocol: each is judged at once, and a secret may be cut by where one ends.

What lives here: what goes on from one message to the next. What must not: which messages.

Nothing waits: what may be the beginning of something at the end of a message is masked, and then the beginning of what follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner


class InMessages:
    """One such text."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._scanner = Scanner(rules)

    def feed(self, data: bytes, start: int) -> list[Place]:
        """Take what the next message has of it, at an offset in the stream; give what is masked."""
        scanner = self._scanner
        scanner.decided = start  # nothing waits, so what stands between two messages is passed over
        places = scanner.feed(data)
        if scanner.waiting:
            places += scanner.gap(0)
        return places

    @property
    def open(self) -> bool:
        """Whether what comes next may be the rest of something."""
        return self._scanner.open

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return self._scanner.save()

    @classmethod
    def restored(cls, rules: Rules, saved: Sequence[object]) -> InMessages:
        """Give one as it was saved."""
        text = cls(rules)
        text._scanner = Scanner.restored(rules, saved)
        return text
