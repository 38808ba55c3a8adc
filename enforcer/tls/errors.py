"""What can go wrong with TLS.

What lives here: error classes. What must not: code that decides.
"""

from __future__ import annotations

from typing import ClassVar

from capd.recording.errors import CapdError, ExitStatus


class AuthorityUnusableError(CapdError):
    """The authority of this host cannot sign."""

    exit_status: ClassVar[int] = ExitStatus.STATE
    hint: ClassVar[str] = (
        "remove `authority.key` in `state_dir`/enforcer, then `systemctl restart capd capd-enforcer`: "
        "the daemon makes another authority, which agents must trust"
    )


class TrustStoreError(CapdError):
    """What the enforcer trusts, or shows to servers, cannot be read."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = "install the distribution's `ca-certificates`, or mend the file that is named"


class TlsFailure(Exception):  # noqa: N818 - an outcome of a conversation, told to a peer, never to the operator
    """A TLS connection failed.

    Attributes:
        reason: in words for a person; names the peer's fault as OpenSSL has it.
        unverified: the peer's certificate was not accepted.
    """

    def __init__(self, reason: str, *, unverified: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unverified = unverified
