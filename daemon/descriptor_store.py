"""Descriptors that the service manager keeps between two daemons: sd_notify(3), FDSTORE=1, and sd_listen_fds(3).

What lives here: giving, taking back, letting go, by name. What must not: what they are used for.

systemd keeps them over a restart and a crash, and drops them when the service stops or fails for good: what only they keep
alive ends then, without a hand.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Final

from capd.daemon.notify import notify

FIRST: Final = 3
"""SD_LISTEN_FDS_START."""
TABLE: Final = "capd-table"
"""Name of the socket that owns the nftables table; it is here for those that do not want it."""
DESCRIPTORS_MAX: Final = 4096
"""More than any of our units may keep."""


def there() -> bool:
    """Say whether there is a service manager that may keep something."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def keep(name: str, descriptors: Sequence[int]) -> None:
    """Have descriptors kept under a name. One that is kept already stays what it is."""
    # Not polled: an error that waits on it, such as a full buffer, is no reason to close it.
    notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptors)


def let_go(name: str) -> None:
    """Have all descriptors of a name closed by the service manager (systemd 236)."""
    notify(f"FDSTOREREMOVE=1\nFDNAME={name}")


def received(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    """Take what was kept, by name; children are not told and do not inherit it.

    Args:
        environment: of this process; the variables of the protocol are removed from it.
    """
    pid, count, names = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[int]] = {}
    for descriptor, name in zip(range(FIRST, FIRST + min(int(count), DESCRIPTORS_MAX)), names.split(":"), strict=False):
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
            found.setdefault(name, []).append(descriptor)
    return found


def close_all(descriptors: Sequence[int]) -> None:
    """Close this process's copies."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
