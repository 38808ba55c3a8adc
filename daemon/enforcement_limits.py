"""What forcing does not close, in words, so that who asks for the status need not know the documentation by heart.

What lives here: the sentences (docs/enforcement.md has the long form). What must not: what can be found out (canary.py).
"""

from __future__ import annotations

from typing import Final

LIMITS: Final = (
    "what programs outside of a run do for it, by a unix socket (path or abstract) or D-Bus, is not forced: an alarm",
    "a connection that a program outside opened and passed to a run is not forced; bytes on it are an alarm (`undecided flow`)",
    "packet sockets (CAP_NET_RAW) and AF_VSOCK pass by both layers",
    "who has CAP_NET_ADMIN in a network namespace with a way out can lead packets there, behind both layers",
    "a process that leaves its run's cgroup, as root can, makes new sockets outside; it is named in `escaped`",
)
