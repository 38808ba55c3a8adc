"""Links at the desk: making them for what waits, and taking what persons say by them.

What lives here: what has to be true of a link before its person is asked about; the one way from there to the desk. What
must not: HTTP, sockets, who a person is.

That a link was used is nowhere but in the vote or the denial that it made, which is on disk before anybody is told of it: there
is no moment at which one of the two is there and the other is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.errors import AlreadyDecidedError, UnknownRequestError
from capd.enforcer.approvals.limits import REASON_CHARACTERS_MAX
from capd.enforcer.approvals.moment import NS_PER_SECOND, Moment
from capd.enforcer.approvals.request import Channel, Person, Request
from capd.enforcer.approvals.state import State
from capd.enforcer.callbacks.errors import (
    LinkElsewhereError,
    LinkExpiredError,
    LinkUnconfirmedError,
    LinkUsedError,
    UnknownChatUserError,
)
from capd.enforcer.callbacks.link import Link, Says, confirmation, confirms, read_token, token
from capd.enforcer.callbacks.webhook import Webhook
from capd.enforcer.policy.rule import ApprovalScope

NO_REASON: Final = "no reason was given"

Named = Callable[[str], Person]
"""Finds a user of this host by name, with the groups that he is in and what runs as him now. Raises CapdError."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A link that can be used now.

    Attributes:
        link: what it says.
        request: to what.
        confirmation: what its page has to send along.
    """

    link: Link
    request: Request
    confirmation: str


class LinkCounter:
    """Of one desk. Not thread-safe."""

    def __init__(self, desk: Desk, key: bytes, webhooks: Sequence[Webhook], person: Named, clock: Callable[[], Moment]) -> None:
        """Take what it works with; the key is for links alone."""
        self._desk, self._key, self._person, self._clock = desk, key, person, clock
        self.webhooks = {webhook.name: webhook for webhook in webhooks}

    def made_for(self, request: Request) -> dict[str, dict[str, str]]:
        """Give, for each webhook that a request is told to, its links by what they say; none once it does not wait."""
        served = [webhook for webhook in self.webhooks.values() if webhook.serves(request)]
        return {webhook.name: self._links(webhook, request) for webhook in served}

    def _links(self, webhook: Webhook, request: Request) -> dict[str, str]:
        if request.state is not State.PENDING or (webhook.approver is None and not webhook.users):
            return {}
        until_s = request.deadline.wall_ns // NS_PER_SECOND

        def link(says: Says) -> Link:
            return Link(
                request=request.id,
                action=request.asked.fingerprint,
                says=says,
                webhook=webhook.name,
                approver=webhook.approver or "",
                until_s=until_s,
            )

        return {says.value: token(self._key, link(says)) for says in Says}

    # -- links -----------------------------------------------------------------------------------------------------------------

    def open(self, text: str) -> Opened:
        """Look at a link without using it.

        Raises:
            CapdError: it cannot be used.
        """
        link = read_token(self._key, text)
        if not link.approver:
            raise LinkElsewhereError("this is for a button of the chat tool, and no link")
        request = self._request(link, self._channel(link))
        self._person(link.approver)  # who may not see what is asked any more is shown nothing
        return Opened(link=link, request=request, confirmation=confirmation(self._key, link))

    def use(self, text: str, given: str, reason: str) -> Request:
        """Take what a person says by a link.

        Args:
            text: the link.
            given: what its page had.
            reason: of a denial, in his words.

        Raises:
            CapdError: it does not count, and nothing changed.
        """
        opened = self.open(text)
        if not confirms(self._key, opened.link, given):
            raise LinkUnconfirmedError
        return self._say(opened.link, opened.link.approver, self._channel(opened.link), reason)

    # -- buttons ---------------------------------------------------------------------------------------------------------------

    def press(self, text: str, webhook: str, user: str) -> Request:
        """Take what a user of the chat tool says by a button, which has no room for a reason.

        Args:
            text: the button's value.
            webhook: by whose secret the chat tool proved itself.
            user: as the chat tool calls him.

        Raises:
            CapdError: it does not count, and nothing changed.
        """
        link = read_token(self._key, text)
        if link.approver or link.webhook != webhook:
            raise LinkElsewhereError("this button was made for another webhook")
        known = self.webhooks.get(webhook)
        name = None if known is None else known.users.get(user)
        if name is None:
            raise UnknownChatUserError(user, webhook)
        channel = replace(self._channel(link), user=user)
        self._request(link, channel)
        return self._say(link, name, channel, "")

    # -- both ------------------------------------------------------------------------------------------------------------------

    def _request(self, link: Link, channel: Channel) -> Request:
        """Give the request of a link, if the link still counts."""
        now = self._clock()
        webhook = self.webhooks.get(link.webhook)
        if webhook is None or (webhook.approver or "") != link.approver:
            raise LinkElsewhereError(f"webhook {link.webhook} does not speak for {link.approver or 'users of a chat tool'}")
        try:
            request = self._desk.named(link.request)[0]
        except UnknownRequestError:  # it was over for long enough to be forgotten
            raise LinkExpiredError(link.request) from None
        if request.id != link.request or request.asked.fingerprint != link.action:
            raise LinkElsewhereError("this link was made for another action")
        if any(person.channel == channel for person in request.spoken()):
            raise LinkUsedError(request.id)
        if request.state is not State.PENDING:
            by = "" if request.by is None else f", by {request.by.name}"
            raise AlreadyDecidedError(request.id, request.state, by)
        if request.deadline.over(now) or now.wall_ns >= link.until_s * NS_PER_SECOND:
            raise LinkExpiredError(link.request)
        return request

    def _say(self, link: Link, name: str, channel: Channel, reason: str) -> Request:
        """Say it to the desk as the person whom the link, or the button, speaks for."""
        person = replace(self._person(name), channel=channel)
        if link.says is Says.APPROVE:
            return self._desk.approve(link.request, person, ApprovalScope.ONCE)
        words = " ".join(reason.split())[:REASON_CHARACTERS_MAX]
        return self._desk.deny(link.request, person, words if words.isprintable() and words else NO_REASON)

    def _channel(self, link: Link) -> Channel:
        return Channel(webhook=link.webhook, link=link.id)
