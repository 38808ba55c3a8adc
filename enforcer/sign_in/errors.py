"""Why a sign-in goes no further.

What lives here: the error. What must not: secrets, and words of the other side that were not looked at; its text is shown.
"""

from __future__ import annotations


class SignInError(Exception):
    """The other side cannot be signed in to, or did not prove itself, or asks for what it is not given.

    Attributes:
        reason: machine-readable: `sign_in_refused` (it wants what is not allowed), `sign_in_failed` (it says no, or lies).
    """

    def __init__(self, message: str, reason: str = "sign_in_failed") -> None:
        super().__init__(message)
        self.reason = reason


class MethodRefusedError(SignInError):
    """The other side asks for a way that the credential does not allow, or that capd does not know."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "sign_in_refused")
