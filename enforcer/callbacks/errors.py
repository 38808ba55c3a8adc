"""What can be wrong with an answer that comes by a link or a button.

What lives here: error classes with the words for the person. What must not: HTTP.
"""

from __future__ import annotations

from typing import ClassVar

from capd.recording.errors import CapdError, ExitStatus


class LinkExpiredError(CapdError):
    """The time of a link is over."""

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = "`capd approvals` lists what still waits"

    def __init__(self, request: str) -> None:
        super().__init__(f"this link to request {request} has expired")


class LinkUsedError(CapdError):
    """A link, or a button by the same person, was used before: each counts once."""

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = "nothing has to be done; `capd approvals ID` says what became of the request"

    def __init__(self, request: str) -> None:
        super().__init__(f"this link to request {request} was used already")


class LinkElsewhereError(CapdError):
    """A link was made for another action, or for a webhook or person that the configuration does not have any more."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "decide with `capd approve` or `capd deny`"


class LinkUnconfirmedError(CapdError):
    """Somebody answered who did not see the page of the link."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "open the link and use the button on its page"

    def __init__(self) -> None:
        super().__init__("the answer does not come from the page of this link")


class UnknownChatUserError(CapdError):
    """A user of the chat tool is nobody whom the configuration knows."""

    exit_status: ClassVar[int] = ExitStatus.NOT_PERMITTED
    hint: ClassVar[str] = "`slack_users` of the webhook says for whom users of Slack speak"

    def __init__(self, user: str, webhook: str) -> None:
        super().__init__(f"user {user} speaks for nobody at webhook {webhook}")
