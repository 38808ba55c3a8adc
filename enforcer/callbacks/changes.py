"""Requests that changed since somebody looked last.

What lives here: numbering changes, so that whoever tells others can be away and miss nothing. What must not: who is told.

Nothing waits here: a request has the number of its latest change, and one that changed twice is told once.
"""

from __future__ import annotations

from collections.abc import Iterable

from capd.enforcer.approvals.request import Request
from capd.enforcer.approvals.state import State


class Changes:
    """The changes of one life of the desk."""

    def __init__(self) -> None:
        self._number = 0
        self._states: dict[str, tuple[State, int]] = {}

    def since(self, number: int, requests: Iterable[Request], count_max: int) -> tuple[int, list[Request]]:
        """Give the next number to ask with, and requests whose state changed after `number`, those that changed first first.

        Args:
            number: 0, or what was given before.
            requests: all there are now.
            count_max: how many are given at most.
        """
        known = self._states
        self._states = {}
        changed = []
        for request in requests:
            state, since = known.get(request.id, (None, 0))
            if state is not request.state:
                self._number += 1
                since = self._number
            self._states[request.id] = (request.state, since)
            if since > number:
                changed.append((since, request))
        changed.sort(key=lambda one: one[0])
        given = changed[:count_max]
        return given[-1][0] if given else max(number, 0), [request for _, request in given]
