"""What Slack sends when somebody presses a button.

What lives here: reading it. What must not: whether Slack sent it (signature.py), what follows.

Source: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload: a form with one field, `payload`, which is
JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from capd.enforcer.callbacks.slack import ACTION

FIELDS_MAX: Final = 8
"""Slack sends one."""
NAME_CHARACTERS_MAX: Final = 128


@dataclass(frozen=True, kw_only=True)
class Press:
    """A press of one of our buttons.

    Attributes:
        user: Slack's id of who pressed.
        value: of the button.
        answer_url: where Slack takes what is to be shown; "": nowhere.
    """

    user: str
    value: str
    answer_url: str


def read_press(body: bytes) -> Press | None:
    """Read a press; None: it is another interaction, of which nothing follows.

    Raises:
        ValueError: it is nothing that Slack sends.
    """
    form = parse_qs(body.decode("utf-8"), strict_parsing=True, max_num_fields=FIELDS_MAX)
    (payload,) = form.get("payload", [""])
    try:
        found = json.loads(payload)
        return _press(found) if found["type"] == "block_actions" else None
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"no interaction of Slack: {error}") from error


def _press(found: dict[str, Any]) -> Press | None:
    (action,) = found["actions"]
    if not str(action["action_id"]).startswith(ACTION):
        return None
    user = found["user"]["id"]
    if not isinstance(user, str) or not 0 < len(user) <= NAME_CHARACTERS_MAX or not user.isalnum():
        raise ValueError("a user without an id")
    return Press(user=user, value=str(action["value"]), answer_url=str(found.get("response_url", "")))
