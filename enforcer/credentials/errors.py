"""Why a credential is not to be had.

What lives here: the error. What must not: any value; its words go to agents and into logs.
"""

from __future__ import annotations


class CredentialError(Exception):
    """A credential cannot be used now; the message says why, without its value.

    Attributes:
        reason: machine-readable: `credential_unknown`, `credential_not_bound`, `credential_unavailable`.
    """

    def __init__(self, message: str, reason: str = "credential_unavailable") -> None:
        super().__init__(message)
        self.reason = reason
