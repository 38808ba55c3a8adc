"""Signatures over whole messages: ours under what webhooks get, Slack's under what Slack sends.

What lives here: both, and how old a message may be. What must not: HTTP, JSON.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

AGE_SECONDS_MAX: Final = 300
"""Of a message of Slack, either way: its documentation asks for five minutes
(https://docs.slack.dev/authentication/verifying-requests-from-slack)."""
TIMESTAMP: Final = "x-capd-timestamp"
SIGNATURE: Final = "x-capd-signature"
DELIVERY: Final = "x-capd-delivery"
EVENT: Final = "x-capd-event"
SLACK_TIMESTAMP: Final = "x-slack-request-timestamp"
SLACK_SIGNATURE: Final = "x-slack-signature"
_DIGITS_MAX: Final = 12


def signed(secret: bytes, timestamp_s: int, body: bytes) -> str:
    """Give the value of `x-capd-signature`: `v1=` and HMAC-SHA-256 over `v1:TIMESTAMP:` and the body, in hexadecimal."""
    return _signature("v1", secret, str(timestamp_s), body)


def is_from_slack(secret: bytes, fields: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Say whether Slack signed a message with our secret, lately.

    Args:
        secret: the app's signing secret.
        fields: header fields by their names in lower case.
        body: exactly as it came.
        now_s: wall time in seconds since 1970.
    """
    timestamp, given = fields.get(SLACK_TIMESTAMP, ""), fields.get(SLACK_SIGNATURE, "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= _DIGITS_MAX):
        return False
    expected = _signature("v0", secret, timestamp, body)
    genuine = hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
    return genuine and abs(now_s - int(timestamp)) <= AGE_SECONDS_MAX


def _signature(version: str, secret: bytes, timestamp: str, body: bytes) -> str:
    return f"{version}={hmac.digest(secret, f'{version}:{timestamp}:'.encode() + body, 'sha256').hex()}"
