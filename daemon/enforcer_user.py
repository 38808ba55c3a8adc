"""Which user the enforcer is: its own, since the rules know capd's traffic by it.

What lives here: the choice, and that it is none of those who are forced. What must not: becoming it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from typing import Final

from capd.daemon.errors import ConfigurationError
from capd.daemon.recorder_user import FREE_IDS

PACKAGE_USER: Final = "capd-enforcer"
"""Made by the package through sysusers.d."""


def choose(configured: str | None) -> int:
    """Give the number: as configured, else of `capd-enforcer`, else a free one that the recorder does not take either.

    Raises:
        ConfigurationError: the configured user does not exist, or is root.
    """
    if configured is not None:
        found = number_of(configured, "enforcement.user")
        if found == 0:
            raise ConfigurationError("enforcement.user: must not be root")
        return found
    try:
        return pwd.getpwnam(PACKAGE_USER).pw_uid
    except KeyError:
        return _free()


def is_named(uid: int) -> bool:
    """Say whether a number is that of a user who exists."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def identity(configured: str | None) -> tuple[int, int]:
    """Give the numbers of the user and its group to become: one's own when not root, as a unit with `User=` is.

    Raises:
        ConfigurationError: as `choose`.
    """
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    uid = choose(configured)
    try:
        return uid, pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid, uid


def number_of(user: str, key: str) -> int:
    """Give a user's number by name or number.

    Args:
        user: as the configuration has it.
        key: of the configuration, for the message.

    Raises:
        ConfigurationError: there is no user of that name.
    """
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigurationError(f"{key}: there is no user {user!r}") from error


def forced(users: Sequence[str], own: int) -> tuple[int, ...]:
    """Give the numbers of the users of `enforcement.users`.

    Args:
        users: as the configuration has them.
        own: number of the enforcer's user.

    Raises:
        ConfigurationError: one does not exist, or capd itself needs the network by it.
    """
    numbers = {number_of(user, "enforcement.users") for user in users}
    for mine in {0, own}.intersection(numbers):
        raise ConfigurationError(f"enforcement.users: user {mine} must not be forced: capd itself needs the network by it")
    return tuple(sorted(numbers))


def _free() -> int:
    """Give the last free number of the range of which the recorder takes the first."""
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    return next(number for number in reversed(FREE_IDS) if number not in taken)
