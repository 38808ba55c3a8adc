"""Who connects to the listener of links, as the kernel says: agents are turned away, whatever they have found.

What lives here: that. What must not: what is answered.

A run's connection is forced through the enforcer, whose policy denies it (enforcer/policy). This is for what a rule let through
all the same, which then comes from the enforcer itself, and for unix sockets and mode `observe`, where it comes from the run.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from capd.daemon.approver_identity import cgroup_of, is_of, live_runs
from capd.daemon.enforced_runs import EnforcedRuns
from capd.enforcer.peer_credentials import peer_credentials
from capd.enforcer.proxy.flow import Owner, SocketOwners

ROOT: Final = 0


class Peers:
    """Judges connections. One thread calls it."""

    def __init__(self, runs: Path, hierarchy: Path, own_uid: int) -> None:
        """Prepare.

        Args:
            runs: directory of the files of live runs.
            hierarchy: where cgroup2 is mounted.
            own_uid: of the enforcer.

        Raises:
            OSError: the kernel has no sock_diag.
        """
        self._runs, self._own_uid = runs, own_uid
        self._enforced = EnforcedRuns(runs, hierarchy)
        self._owners = SocketOwners()

    def close(self) -> None:
        """Let go of the kernel's socket."""
        self._owners.close()

    def refusal(self, connection: socket.socket) -> str:
        """Say why a connection is turned away; "" when it is not."""
        try:
            return self._local(connection) if connection.family == socket.AF_UNIX else self._internet(connection)
        except OSError as error:
            return f"it is not known whose it is: {error.strerror or error}"

    def _local(self, connection: socket.socket) -> str:
        peer = peer_credentials(connection)
        in_run = is_of(cgroup_of(peer.pid), live_runs(self._runs))
        return self._judge(peer.uid, in_run=in_run)

    def _internet(self, connection: socket.socket) -> str:
        own, peer = connection.getsockname()[:2], connection.getpeername()[:2]
        found = self._owners.find(peer, own)
        if found is None:
            return "it is not known whose it is: its socket is not on this host, or closed"
        return self._judge(found.uid, in_run=self._is_agent(found))

    def _is_agent(self, owner: Owner) -> bool:
        return self._enforced.agent(owner) is not None

    def _judge(self, uid: int, *, in_run: bool) -> str:
        if in_run:
            return "it is part of a run"
        if uid == self._own_uid:
            return "it comes through the enforcer, so from a run"
        if uid != ROOT and any(run.uid == uid for run in live_runs(self._runs)):
            return f"agents run as user {uid}"
        return ""
