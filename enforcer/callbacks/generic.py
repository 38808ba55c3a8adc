"""The generic form of a notice: a JSON object (docs/json.md, "message to a webhook").

What lives here: that, and the id of a delivery. What must not: sending.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from capd.enforcer.callbacks.notice import Notice

ID_LETTERS: Final = 32
LINKS: Final = "/link/"
"""Begins the path of a link below the public address."""


def delivery_id(host: str, webhook: str, request: str, event: str) -> str:
    """Give the id of a delivery: the same however often it is tried, also after a restart, so that a receiver can tell."""
    text = f"capd-delivery-1\0{host}\0{webhook}\0{request}\0{event}"
    return sha256(text.encode()).hexdigest()[:ID_LETTERS]


def body(
    found: Notice, *, event: str, delivery: str, webhook: str, host: str, links: Mapping[str, str], base_url: str, approver: str
) -> dict[str, Any]:
    """Give the object.

    Args:
        found: the request.
        event: what happened.
        delivery: id of this delivery.
        webhook: name of the receiver.
        host: name of this host.
        links: tokens by what they say.
        base_url: public address of the listener.
        approver: for whom the links speak.
    """
    urls = {says: f"{base_url}{LINKS}{token}" for says, token in links.items()}
    return {
        "event": event,
        "delivery": delivery,
        "webhook": webhook,
        "host": host,
        "links": {**urls, "approver": approver, "expires": found["expires"]} if urls else None,
        "request": found,
    }
