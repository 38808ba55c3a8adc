"""What `capd status` shows of webhooks, as an unprivileged process wrote it.

What lives here: lines. What must not: the rest of the status.
"""

from __future__ import annotations

import pytest

from capd.cli.status import _webhooks

GOOD = {"name": "bot", "delivered": 3, "waiting": 1, "failed": 0, "dropped": 0, "last_error": ""}


@pytest.mark.parametrize(
    ("callbacks", "lines"),
    [
        (None, []),
        ({"webhooks": []}, []),
        ({"webhooks": [GOOD]}, ["bot: 3 delivered, 1 waiting"]),
        ({"webhooks": [GOOD | {"failed": 2, "dropped": 1}]}, ["bot: 3 delivered, 1 waiting, 3 given up"]),
        ({"webhooks": [GOOD | {"last_error": "k3: no"}]}, ["bot: 3 delivered, 1 waiting; failing: k3: no"]),
        ({"webhooks": [GOOD | {"name": 7}, "x", None]}, []),
        ({"webhooks": [GOOD | {"failed": "x"}]}, []),
        ({"webhooks": "x"}, []),
        ([], []),
    ],
)
def test_webhooks_in_the_status(callbacks: object, lines: list[str]) -> None:
    """Each webhook has a line that says what was delivered, waits and was given up, and why it fails; nonsense has none."""
    assert lines == ["".join(span.text for span in line[1:]) for line in _webhooks(callbacks)]
