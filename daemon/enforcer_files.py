"""What the enforcer and agents need on disk before the enforcer starts.

What lives here: making it, as root. What must not: the role, which gives that up (enforcer_role.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from capd.daemon import enforcer_user, state_directory, trust

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration


def prepare(configuration: Configuration) -> None:
    """Make what the enforcer and agents need on disk, as root: directories, the authority, what agents trust.

    Raises:
        CapdError: something of it cannot be made.
    """
    uid, gid = enforcer_user.identity(configuration.enforcement.user)
    state_directory.prepare_enforcer(configuration, uid, gid)
    trust.prepare(configuration, uid, datetime.now(UTC))
