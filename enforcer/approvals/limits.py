"""The limits of approvals. Beyond them an action is denied, never let through.

What lives here: numbers, each with its reason. What must not: anything else.
"""

from __future__ import annotations

from typing import Final

BODY_BYTES_MAX: Final = 256 * 1024
"""Of what a person shall approve; nobody reads more, and what is not shown in full is not approved."""
PENDING_MAX: Final = 256
"""Requests that wait, of all runs: with bodies 64 MiB on disk at worst."""
PENDING_PER_RUN_MAX: Final = 16
"""Of one run: more at once is no work that a person could follow. Those above are denied by themselves."""
PENDING_PER_USER_MAX: Final = 64
"""Of all runs of one user, who may start as many as he likes: others find room."""
ASKED_PER_RUN_MAX: Final = 60
"""New requests of one run within ASKED_SECONDS: one every ten seconds keeps a person busy without a pause."""
ASKED_SECONDS: Final = 600
WAITERS_PER_REQUEST_MAX: Final = 8
"""Clients that wait for the same thing."""
ENDED_MAX: Final = 2_000
"""Requests that are over and still listed, the latest."""
RULES_MAX: Final = 16
"""Rules that want one action approved; each is shown."""
SHOWN_BYTES_MAX: Final = 64 * 1024
"""Of the facts beside a body, as the store has them."""
REASON_CHARACTERS_MAX: Final = 500
"""Of a denial: the agent reads it."""
GROUPS_MAX: Final = 256
"""Of a person, that are kept with a vote."""
STORE_BYTES_MAX: Final = 32 << 20
"""Then the store is written anew without what is no longer listed."""
