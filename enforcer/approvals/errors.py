"""What can go wrong between a person and a request.

What lives here: error classes with the words for the person. What must not: deciding.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from capd.enforcer.approvals.state import State
from capd.recording.errors import CapdError, ExitStatus


class UnknownRequestError(CapdError):
    """No request has the given id."""

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = "`capd approvals --all` lists the ids, of those that ended lately too"

    def __init__(self, text: str) -> None:
        super().__init__(f"there is no request {text!r}")


class AmbiguousRequestError(CapdError):
    """A shortened id fits more than one request."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "give more letters of the id"

    def __init__(self, text: str, matches: list[str]) -> None:
        super().__init__(f"request {text!r} is ambiguous: {', '.join(matches)}")


class AlreadyDecidedError(CapdError):
    """The request is over, or was decided otherwise; nothing was changed."""

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = "`capd approvals ID` says what became of it; an agent that still wants it asks again"

    def __init__(self, request: str, state: State, how: str) -> None:
        super().__init__(f"request {request} is {state.value.replace('_', ' ')} already{how}: nothing was changed")


class NotAnApproverError(CapdError):
    """That person may not decide about requests, or not about this one."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "`[enforcement] approvers` names the groups whose members may; a rule's `groups` may ask for others"


class SelfApprovalError(CapdError):
    """An agent, or whom it acts for, cannot approve what it asks for."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = (
        "have another person approve it; root may, where agents run as a user of their own (`sudo -u agent capd run -- CMD`)"
    )


class ScopeTooWideError(CapdError):
    """The rule does not let an approval be good for that much."""

    exit_status: ClassVar[int] = ExitStatus.USAGE
    hint: ClassVar[str] = "`capd approve ID` approves it once; `scope` of the rule says what more there may be (docs/policy.md)"


class ApprovalsDamagedError(CapdError):
    """The store of approvals could not be read to its end."""

    exit_status: ClassVar[int] = ExitStatus.CORRUPT
    hint: ClassVar[str] = (
        "nothing is to be done: what could be read is kept, what was approved is asked again; the old file stays"
    )

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {reason}")
        self.offset = offset


class ApprovalsUnwritableError(CapdError):
    """A decision could not be written down, so it does not count."""

    exit_status: ClassVar[int] = ExitStatus.STATE
    hint: ClassVar[str] = "free space in the state directory, then repeat it"

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}; nothing was decided")


class ApprovalsUnreachableError(CapdError):
    """Nobody answers for approvals."""

    exit_status: ClassVar[int] = ExitStatus.UNREACHABLE
    hint: ClassVar[str] = "`capd status` says whether the enforcer runs; start it with `systemctl start capd-enforcer`"
