"""What an instance has before it is started for the first time: directories, keys, the host's id.

What lives here: the order in which they come to be. What must not: each of them (state_directory.py, recording/keys.py).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from uuid import UUID

from capd.daemon import recorder_user, state_directory
from capd.daemon.recorder_user import RecorderUser
from capd.recording import keys
from capd.recording.errors import CapdError

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration


def directories(configuration: Configuration) -> tuple[RecorderUser, CapdError | None]:
    """Make the directories that are missing, of the enforcer too where there is one.

    Returns:
        The recorder's user; and why there is nothing that agents of this host could trust, or None. Nobody's recording depends
        on that: the enforcer refuses to start, so that what is forced stays closed off.

    Raises:
        StateDirectoryError: one cannot be made.
    """
    user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    state_directory.prepare(configuration, user)
    if configuration.enforcement.mode == "off" or _made_by_a_child(configuration):
        return user, None
    return user, _make_enforcers(configuration)


def _make_enforcers(configuration: Configuration) -> CapdError | None:
    from capd.daemon import enforcer_files  # noqa: PLC0415 - only who enforces pays for it

    return enforcer_files.prepare(configuration)


def _made_by_a_child(configuration: Configuration) -> bool:
    """Have a child make the enforcer's directories and what agents trust, and say whether it could and nothing was wrong.

    The daemon, which lives for as long as the host, needs the library of certificates and the certificates of all the world's
    authorities for this alone. What was wrong is found again by whoever asked for it.
    """
    if threading.active_count() > 1:  # a child of a process with threads may wait for a lock that nobody in it holds
        return False
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(_make_enforcers(configuration) is not None)
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def identity(configuration: Configuration, user: RecorderUser) -> UUID:
    """Make the host's keys and its id, unless they are there; give the id.

    Raises:
        StateDirectoryError, HostIdError, HostKeyError: they cannot be made, or are something else.
    """
    keys.ensure(configuration.keys_dir, group=user.gid)  # before the host's id, which the recorder waits for
    return state_directory.host_id(configuration.host_file)
