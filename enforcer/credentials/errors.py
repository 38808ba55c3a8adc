"""Why a credential is not to be had.

What lives here: the errors. What must not: any value; their words go into logs.
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


class UnknownCredentialError(CredentialError):
    """No credential has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no credential {name}", "credential_unknown")
