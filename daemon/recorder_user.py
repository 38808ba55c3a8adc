"""Which user the recorder becomes, and why that one.

What lives here: the choice. What must not: becoming it (confinement.py), making directories (state_directory.py).
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from capd.daemon.errors import ConfigurationError

PACKAGE_USER: Final = "capd"
"""Made by the package through sysusers.d."""
FREE_IDS: Final = range(61184, 65520)
"""systemd's range for dynamic users (systemd.io/UIDS-GIDS): no distribution gives these numbers to people or packages."""


@dataclass(frozen=True, kw_only=True)
class RecorderUser:
    """Who the recorder is.

    Attributes:
        uid, gid: what it becomes.
        name: as the password file has it, else the number.
        reason: why this one, for the operator.
    """

    uid: int
    gid: int
    name: str
    reason: str

    def __str__(self) -> str:
        """Give one phrase for a person."""
        return f"{self.name} (uid {self.uid}, {self.reason})"


def choose(configured: str | None, segments_dir: Path) -> RecorderUser:
    """Choose: ourselves if not root, else as configured, else `capd`, else who owns the segments, else a free number.

    Raises:
        ConfigurationError: the configured user does not exist, or is root.
    """
    if os.geteuid() != 0:
        return RecorderUser(uid=os.geteuid(), gid=os.getegid(), name=_name(os.geteuid()), reason="who started it; not root")
    if configured is not None:
        return _configured(configured)
    try:
        entry = pwd.getpwnam(PACKAGE_USER)
    except KeyError:
        return _owner(segments_dir) or _free()
    return RecorderUser(uid=entry.pw_uid, gid=entry.pw_gid, name=PACKAGE_USER, reason="the package's user")


def _configured(configured: str) -> RecorderUser:
    try:
        if configured.isdecimal():
            uid = int(configured)
            user = RecorderUser(uid=uid, gid=_group(uid), name=_name(uid), reason="from recorder.user")
        else:
            entry = pwd.getpwnam(configured)
            user = RecorderUser(uid=entry.pw_uid, gid=entry.pw_gid, name=configured, reason="from recorder.user")
    except KeyError as error:
        raise ConfigurationError(f"recorder.user: there is no user {configured!r}") from error
    if user.uid == 0 or user.gid == 0:
        raise ConfigurationError("recorder.user: must not be root or of root's group")
    return user


def _owner(segments_dir: Path) -> RecorderUser | None:
    try:
        found = segments_dir.stat()
    except OSError:
        return None  # not there yet, or nothing that can be used: who makes the directories says what is wrong
    if found.st_uid == 0 or found.st_gid == 0:
        return None
    return RecorderUser(uid=found.st_uid, gid=found.st_gid, name=_name(found.st_uid), reason="owns the segments already there")


def _free() -> RecorderUser:
    users = {entry.pw_uid for entry in pwd.getpwall()}
    groups = {entry.gr_gid for entry in grp.getgrall()}
    taken = users | groups
    number = next(number for number in FREE_IDS if number not in taken)
    return RecorderUser(uid=number, gid=number, name=str(number), reason=f"no user {PACKAGE_USER!r}: a free number")


def _group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str | None:
    """Give the name of a user id, or None."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
