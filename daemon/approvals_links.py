"""The desk's socket for the process of webhooks and links: what it may ask.

What lives here: its verbs. What must not: what a link is good for (enforcer/callbacks/link_counter.py), HTTP.

Only the enforcer's own user can ask. That process gets links to send, and gives back what came by them; the key it never has.
What is refused is an answer like any other, so that it can tell one refusal from another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from capd.daemon.control import Peer, Verb
from capd.daemon.errors import RequestRefusedError
from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.approvals.listing import to_json
from capd.enforcer.approvals.moment import NS_PER_SECOND, Moment
from capd.enforcer.approvals.request import Request
from capd.enforcer.callbacks.changes import Changes
from capd.enforcer.callbacks.link_counter import LinkCounter
from capd.enforcer.callbacks.notice import Notice, notice
from capd.enforcer.callbacks.webhook import Webhook
from capd.enforcer.masking.rules import Rules
from capd.recording.errors import CapdError

CHANGES_MAX: Final = 500
"""Of one answer."""
PAGE_CHARACTERS_MAX: Final = 8 * BODY_BYTES_MAX
"""All of a body, each byte of which may be shown as an escape."""


@dataclass(frozen=True, kw_only=True)
class LinkParts:
    """What the desk needs for links.

    Attributes:
        socket: where the other process asks.
        webhooks: that are told.
        masking: what is masked of what leaves this host.
    """

    socket: Path
    webhooks: tuple[Webhook, ...]
    masking: Rules


class LinkVerbs:
    """What can be asked."""

    def __init__(self, desk: Desk, counter: LinkCounter, masking: Rules, clock: Callable[[], Moment]) -> None:
        """Take what it works with."""
        self._desk, self._counter, self._masking, self._clock = desk, counter, masking, clock
        self._changes = Changes()
        self._life = os.urandom(8).hex()

    def verbs(self) -> dict[str, Verb]:
        """Give them; the socket lets nobody else ask."""
        acts = {
            "changes": self._list,
            "notice": self._notice,
            "link": self._link,
            "use_link": self._use,
            "press": self._press,
        }
        return {name: Verb(act=_answering(act), root_only=True) for name, act in acts.items()}

    def _list(self, request: Mapping[str, object]) -> dict[str, object]:
        since = request.get("since")
        number = since if isinstance(since, int) and request.get("life") == self._life else 0
        number, changed = self._changes.since(number, self._desk.requests(), CHANGES_MAX)
        changes = [self._change(one) for one in changed]
        return {"life": self._life, "next": number, "changes": changes, "more": len(changed) == CHANGES_MAX}

    def _change(self, request: Request) -> dict[str, object]:
        webhooks = [webhook.name for webhook in self._counter.webhooks.values() if webhook.serves(request)]
        left = request.deadline.left_ns(self._clock()) / NS_PER_SECOND
        return {"id": request.id, "state": request.state.value, "seconds_left": left, "webhooks": webhooks}

    def _notice(self, request: Mapping[str, object]) -> dict[str, object]:
        found, _ = self._desk.named(_text(request, "id"))
        links = self._counter.made_for(found).get(_text(request, "webhook"), {})
        return {"request": self._told(found), "links": links}

    def _link(self, request: Mapping[str, object]) -> dict[str, object]:
        opened = self._counter.open(_text(request, "token"))
        link = {"says": opened.link.says.value, "approver": opened.link.approver, "confirm": opened.confirmation}
        return {"link": link, "request": self._told(opened.request, characters_max=PAGE_CHARACTERS_MAX)}

    def _use(self, request: Mapping[str, object]) -> dict[str, object]:
        given = (_text(request, name) for name in ("token", "confirm", "reason"))
        return {"request": self._told(self._counter.use(*given))}

    def _press(self, request: Mapping[str, object]) -> dict[str, object]:
        given = (_text(request, name) for name in ("token", "webhook", "user"))
        return {"request": self._told(self._counter.press(*given))}

    def _told(self, request: Request, **more: int) -> Notice:
        _, body = self._desk.named(request.id)
        found = to_json(request, self._clock(), clients=self._desk.clients(request), body=body)
        return notice(found, self._masking, **more)


def _answering(act: Callable[[Mapping[str, object]], dict[str, object]]) -> Callable[..., dict[str, Any]]:
    def answer(_peer: Peer, request: Mapping[str, object]) -> dict[str, Any]:
        try:
            return act(request)
        except CapdError as error:
            return {"refused": type(error).__name__, "message": str(error), "hint": error.hint}

    return answer


def _text(request: Mapping[str, object], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise RequestRefusedError(f"`{name}` is missing")
    return value
