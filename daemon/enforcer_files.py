"""What the enforcer and agents need on disk before the enforcer starts.

What lives here: making it, as root. What must not: the role, which gives that up (enforcer_role.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from capd.daemon import enforcer_user, recorder_user, state_directory, trust
from capd.enforcer.tls.errors import AuthorityUnusableError, TrustStoreError
from capd.recording.errors import CapdError

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration


def prepare(configuration: Configuration) -> CapdError | None:
    """Make what the enforcer and agents need on disk, as root: directories, the authority, what agents trust.

    Gives why there is nothing that agents could trust, or None. It is for the caller to say what that means: the enforcer does
    not start then, but who records goes on.

    Raises:
        CapdError: something else of it cannot be made.
    """
    uid, gid = enforcer_user.identity(configuration.enforcement.user)
    reader = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    state_directory.prepare_enforcer(configuration, uid, gid, reader.gid)
    try:
        trust.prepare(configuration, uid, datetime.now(UTC))
    except (AuthorityUnusableError, TrustStoreError) as error:
        return error
    return None
