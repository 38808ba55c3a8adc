"""The process of the enforcer that answers the DNS of runs.

What lives here: what the resolver needs of this host, put together. What must not: the resolver (enforcer/resolver/), users and
confinement (enforcer_role.py).

It is a process of its own because asyncio's datagrams are not uvloop's, and so that a flood of queries takes nothing from the
proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon.enforced_runs import EnforcedRuns
from capd.daemon.namespace_client import NamespaceClient
from capd.daemon.namespace_message import RESOLVER
from capd.enforcer.forcing.socket_owner import SocketOwners
from capd.enforcer.policy.lookups import Says, lookups
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.proxy import flow
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.resolver.service import Resolver, Rules
from capd.enforcer.resolver.telling import Teller
from capd.enforcer.resolver.upstream import RESOLV_CONF, servers
from capd.recording.durable import replace_content

EVERY_SECONDS: Final = 1.0
RUNS_MAX: Final = 4096
"""For which it is remembered what they may ask for: as many as can be live; above it all are forgotten, and found anew."""


@dataclass(frozen=True, kw_only=True)
class ResolverParts:
    """What it is given.

    Attributes:
        sockets: bound ones of UDP, listening ones of TCP.
        workers: the way to each worker of the proxy, to tell which name gave which address.
        policies: holds the policy; loaded already.
        stamp: tells whether the policy on disk has changed.
        loaded: what that told before `policies` was loaded; None: that did not succeed.
        runs: directory of the files of live runs.
        hierarchy: where cgroup2 is mounted.
        status: file for its counters.
        namespaces: socket at which the daemon hands over sockets of other network namespaces.
        observe: every name may be asked for.
        beat: gives a sign of life.
    """

    sockets: Sequence[socket.socket]
    workers: Sequence[socket.socket]
    policies: PolicySet
    stamp: Callable[[], object]
    loaded: object
    runs: Path
    hierarchy: Path
    status: Path
    namespaces: Path
    observe: bool
    beat: Callable[[], None] = lambda: None


def run_resolver(parts: ResolverParts) -> None:
    """Work until SIGTERM."""
    asyncio.run(_Process(parts).run())


class Askers:
    """Says which run asks, in one network namespace."""

    def __init__(self, runs: EnforcedRuns, of_datagrams: SocketOwners, of_streams: flow.SocketOwners) -> None:
        self._runs, self._of_datagrams, self._of_streams = runs, of_datagrams, of_streams

    async def run_of(self, connection: socket.socket, peer: tuple[str, int]) -> str | None:
        """Give the run of who sent a datagram, or opened a connection, that came to a socket; None: of none."""
        owner = self._sender(connection, peer) if connection.type == socket.SOCK_DGRAM else self._client(connection, peer)
        agent = None if owner is None else self._runs.agent(owner)
        return None if agent is None else agent.run.id

    def close(self) -> None:
        """Ask no more."""
        self._of_datagrams.close()
        self._of_streams.close()

    def _sender(self, bound: socket.socket, peer: tuple[str, int]) -> Owner | None:
        found = self._of_datagrams.of_datagram(bound.family, peer)
        return None if found is None else Owner(uid=found.user, cookie=0, cgroup=found.cgroup)

    def _client(self, connection: socket.socket, peer: tuple[str, int]) -> Owner | None:
        wanted = flow.original_destination(connection)
        return None if wanted is None else self._of_streams.find(peer, wanted)


async def _serve(resolver: Resolver, sockets: Sequence[socket.socket], askers: Askers) -> None:
    datagrams = [one for one in sockets if one.type == socket.SOCK_DGRAM]
    await resolver.serve(datagrams, [one for one in sockets if one.type == socket.SOCK_STREAM], askers.run_of)


class _Process:
    def __init__(self, parts: ResolverParts) -> None:
        self._parts = parts
        self._stamp = parts.loaded  # a resolver that is started anew has what was loaded at the begin
        self._says: dict[str, Says] = {}
        self._runs = EnforcedRuns(parts.runs, parts.hierarchy)
        self._teller = Teller(parts.workers)
        rules = Rules(could_allow=lambda run, name: parts.observe or self._could_allow(run, name))
        text = RESOLV_CONF.read_text(encoding="utf-8", errors="replace") if RESOLV_CONF.exists() else ""
        self._resolver = Resolver(rules, servers(text), self._teller.tell)
        self._elsewhere: dict[int, asyncio.Task[None]] = {}
        self._client = NamespaceClient(parts.namespaces, RESOLVER, self._take, self._drop)

    async def run(self) -> None:
        """Serve until told to stop."""
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with asyncio.TaskGroup() as self._tasks:
            here = Askers(self._runs, SocketOwners(), flow.SocketOwners())
            serving = self._tasks.create_task(_serve(self._resolver, self._parts.sockets, here), name="resolver")
            while not stopping.is_set():
                self._client.attend()
                self._every()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_SECONDS):
                        await stopping.wait()
            self._client.close()
            serving.cancel()

    def _take(self, number: int, sockets: list[socket.socket], asking: list[socket.socket]) -> None:
        askers = Askers(self._runs, SocketOwners(asking[0]), flow.SocketOwners(asking[1]))
        task = self._serve_elsewhere(sockets, askers)
        self._elsewhere[number] = self._tasks.create_task(task, name=f"resolver in {number}")

    def _drop(self, number: int) -> None:
        self._elsewhere.pop(number).cancel()

    async def _serve_elsewhere(self, sockets: Sequence[socket.socket], askers: Askers) -> None:
        """Serve a namespace until it is over, or its root has shut our sockets: then nobody there gets an answer."""
        try:
            await _serve(self._resolver, sockets, askers)
        except* OSError:
            self._resolver.counters["shut"] += 1
        finally:
            askers.close()
            for one in sockets:
                one.close()

    def _every(self) -> None:
        self._parts.beat()
        stamp = self._parts.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        told = {"queries": dict(self._resolver.counters), "untold": self._teller.untold, "namespaces": len(self._elsewhere)}
        status = {"pid": os.getpid(), "time": time.time(), **told}
        with suppress(OSError):  # it is late then, and whoever reads it says so
            replace_content(self._parts.status, json.dumps(status).encode(), mode=0o644, sync=False)

    def _reload(self) -> None:
        self._parts.policies.reload()
        self._says.clear()

    def _could_allow(self, run: str, name: str) -> bool:
        says = self._says.get(run)
        if says is None:
            agent = self._runs.named(run)
            if agent is None:
                return False
            if len(self._says) >= RUNS_MAX:
                self._says.clear()
            says = self._says[run] = lookups(self._parts.policies.current, agent.principal, agent.run)
        return says(name)
