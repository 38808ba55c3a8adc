"""Giving up, for ever, writing anywhere but in a few directories: Landlock.

What lives here: the three system calls and the rights that are asked for. What must not: which directories (shipper.py), users
and system calls (confinement.py).

Reading stays as the user's rights have it, unless it is to be given up too. Kernels without Landlock (before 5.13, or switched
off) refuse, and the caller says so.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path
from typing import Final

from capd.daemon.errors import SandboxError

CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
"""The same numbers on every architecture."""
FLAG_VERSION: Final = 1
RULE_PATH_BENEATH: Final = 1


class Right(IntFlag):
    """linux/landlock.h: LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14


OF_VERSION: Final = {1: Right((1 << 13) - 1) & ~(Right.READ_FILE | Right.READ_DIR), 2: Right.REFER, 3: Right.TRUNCATE}
"""What each version of Landlock added; reading is asked for apart."""
READ: Final = Right.READ_FILE | Right.READ_DIR
KEEP_FILES: Final = Right.WRITE_FILE | Right.MAKE_REG | Right.REMOVE_FILE | Right.TRUNCATE
KEEP_TREE: Final = KEEP_FILES | Right.MAKE_DIR
REMOVE: Final = Right.REMOVE_FILE


def restrict(places: Mapping[Path, Right], *, reading: bool = False) -> None:
    """Let this thread, and all that it starts from now on, do to files only what is listed, below each place. Cannot be undone.

    Needs no_new_privs, or root. Places that do not exist, or cannot be reached, are passed over.

    Args:
        places: what may be done below each; with an open file, and to see whether something exists, no right is needed.
        reading: whether reading is held to these places as well.

    Raises:
        SandboxError: the kernel does not have it, or refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, 0, FLAG_VERSION)
    if version < 1:
        raise SandboxError("the kernel has no Landlock")
    handled = READ if reading else Right(0)
    for since, rights in OF_VERSION.items():
        if version >= since:
            handled |= rights
    attributes = struct.pack("=Q", handled)
    ruleset = _called(libc, "create a Landlock ruleset", CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for place, rights in places.items():
            _allow(libc, ruleset, place, rights & handled)
        _called(libc, "enforce a Landlock ruleset", RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, place: Path, rights: Right) -> None:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _called(libc, f"allow {place}", ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _called(libc: ctypes.CDLL, what: str, number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        raise SandboxError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
    return result
