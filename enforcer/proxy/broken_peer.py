"""A peer that breaks its protocol so that nothing more can be made of what it says.

What lives here: the error of every protocol that tells its peer why by a number. What must not: when it is raised.
"""

from __future__ import annotations


class BrokenPeerError(Exception):
    """It broke the protocol, or a limit.

    Attributes:
        code: that it is told: of HTTP/2 RFC 9113 7, of WebSocket RFC 6455 7.4.
        reason: for a person.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
