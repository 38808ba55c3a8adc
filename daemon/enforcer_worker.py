"""One process of the enforcer: the proxy in an event loop, with the world as it is.

What lives here: what the proxy's shell needs of this host, put together. What must not: users, confinement, other processes
(enforcer_role.py), the proxy itself (enforcer/proxy/).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

import uvloop

from capd.daemon.approvals import Approvals
from capd.daemon.enforced_runs import EnforcedRuns
from capd.daemon.namespace_doors import NamespaceDoors
from capd.daemon.run_context import RunContext
from capd.enforcer.approvals.hold_client import Holds
from capd.enforcer.credentials.credential import Credential
from capd.enforcer.credentials.keeper_client import Values
from capd.enforcer.decision_log import DecisionLog
from capd.enforcer.limits.meter import admitted
from capd.enforcer.limits.totals import Totals
from capd.enforcer.obligations.equipment import Equipment
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import SocketOwners
from capd.enforcer.proxy.interim import Interim
from capd.enforcer.proxy.judge import Agent, judge, name_of, needs_proof, observed, parsed_address
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.load import Load
from capd.enforcer.proxy.names import Names
from capd.enforcer.proxy.postgresql.cancel_channel import CancelChannel
from capd.enforcer.proxy.postgresql.cancelling import Cancels
from capd.enforcer.proxy.postgresql.known_functions import KnownFunctions, Stamps
from capd.enforcer.proxy.postgresql.shared import Shared
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.proxy.remembered import Remembered, decided_again, keep_decided
from capd.enforcer.proxy.shell import Shell, work
from capd.enforcer.proxy.world import World
from capd.enforcer.resolver.telling import Told
from capd.enforcer.tls.authority import Authority
from capd.enforcer.tls.contexts import Leaves, TlsContexts, Upstreams
from capd.recording.durable import read_regular, replace_content
from capd.recording.identity import uuid7_from

RESOLVE_SECONDS: Final = 5.0
"""A name in clear that cannot be resolved by then leads nowhere."""
NS_PER_MS: Final = 1_000_000
DONE_BYTES_MAX: Final = 65_536
"""Names of some thousand files; there are at most FILES_MAX of each worker."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a worker is given.

    Attributes:
        number: tells it from the others.
        listeners: sockets that listen, from which all workers accept.
        load: how many connections each of them has.
        names: the way from the resolver.
        authority: signs leaves.
        upstreams: verifies targets.
        policies: holds the policy; loaded already.
        decisions: directory of its log.
        done: file in which the recorder says which files of that it has done with.
        runs: directory of the files of live runs.
        hierarchy: where cgroup2 is mounted.
        status: file for its counters.
        stamp: tells whether the policy on disk has changed.
        loaded: what that told before `policies` was loaded; None: that did not succeed.
        holds: socket of the desk of approvals.
        namespaces: socket at which the daemon hands over listeners of other network namespaces.
        observe: what would be denied is let through, and written down.
        credentials: that rules may put into requests, by name.
        keeper: socket of the process that has their values.
        cancelled: its end of the channel by which workers tell of clients that give up.
        cancels: the ends by which it tells all of them.
        cancel_secret: by which all workers make, and understand, keys to cancel with.
        mask_key: by which values are hashed that are hidden in answers.
        said_key: by which what agents say is digested.
        totals: what runs have had, of all workers.
        stamps: of databases in which something was defined, of all workers.
        interim: which clients of HTTP/1.1 are told while they wait.
        beat: gives a sign of life.
    """

    number: int
    listeners: Sequence[socket.socket]
    load: Load
    names: socket.socket
    authority: Authority
    upstreams: Upstreams
    policies: PolicySet
    decisions: Path
    done: Path
    runs: Path
    hierarchy: Path
    status: Path
    stamp: Callable[[], object]
    loaded: object
    holds: Path
    namespaces: Path
    observe: bool
    credentials: Mapping[str, Credential]
    keeper: Path
    cancelled: socket.socket
    cancels: Sequence[socket.socket]
    cancel_secret: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)
    said_key: bytes = field(repr=False)
    totals: Totals
    stamps: Stamps
    interim: Interim
    beat: Callable[[], None] = lambda: None


def run_worker(parts: Parts) -> None:
    """Work until SIGTERM.

    Raises:
        StateDirectoryError: the decision log cannot be begun.
    """
    uvloop.run(Worker(parts).run())


class Worker:
    """One process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._policies = parts.policies
        self._log = DecisionLog(parts.decisions, f"w{parts.number}")
        self._owners = SocketOwners()
        self._runs = EnforcedRuns(parts.runs, parts.hierarchy)
        self._names = Names(_resolve)
        self._told = Told(parts.names)
        self._remembered = Remembered()
        leaves = Leaves(parts.authority, lambda: datetime.now(UTC))
        contexts = TlsContexts(leaves=leaves, upstreams=parts.upstreams)
        self._cancelling = CancelChannel(parts.cancelled, parts.cancels)
        self._cancels = Cancels(parts.cancel_secret, self._cancelling.tell)
        shared = Shared(cancels=self._cancels, functions=KnownFunctions(parts.stamps, parts.number))
        self._means = Means(
            contexts=contexts,
            normalise=normal_host,
            postgresql=shared,
            mask_key=parts.mask_key,
            totals=parts.totals,
            interim=parts.interim,
        )
        self._stamp = parts.loaded  # what was loaded before this process was started may be of yesterday
        self._reload = self._policy_told = False
        self._approvals = Approvals(Holds(parts.holds), RunContext(parts.hierarchy), self._judge, self._version)
        self._equipment = Equipment(parts.credentials, Values(parts.keeper).value, lambda: datetime.now(UTC))
        self._problem: str | None = None
        self._doors: NamespaceDoors | None = None

    async def run(self) -> None:
        """Serve until told to stop."""
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, stopping)
        loop.add_signal_handler(signal.SIGHUP, self._ask_for_reload)
        loop.add_reader(self._told.fileno(), self._told.take)
        loop.add_reader(self._cancelling.fileno(), self._cancelling.take, self._cancels)
        try:
            await work(self.world(), self._parts.listeners, stopping, self._every)
        finally:
            with suppress(OSError):
                self._log.close()
            self._owners.close()

    def world(self) -> World:
        """Give what its shell needs of this host."""
        return World(
            judge=self._judge,
            log=self._log,
            owner=self._owners.find,
            agent=self._runs.agent,
            connection=self._connection,
            session=_session,
            hold=self._approvals.hold,
            equip=self._equip,
            admit=self._admit,
            said_key=self._parts.said_key,
            load=self._parts.load.of(self._parts.number),
        )

    def _connection(self, destination: Destination, opened: Opened) -> Connection:
        return open_connection(destination, opened, self._means)

    async def _equip(self, agent: Agent, question: Question, verdict: Verdict) -> Verdict:
        return await self._equipment.equip(agent.principal, question, verdict)

    def _admit(self, agent: Agent, question: Question, verdict: Verdict) -> Verdict:  # noqa: ARG002 - part of the protocol
        exceeded = admitted(verdict.obligations.limits, self._parts.totals, agent.run.id or "", monotonic())
        if exceeded is None:
            return verdict
        return replace(verdict, allowed=False, rule=exceeded.rule, reason="limit_exceeded", message=exceeded.words)

    def _judge(self, agent: Agent, question: Question) -> Verdict | Awaitable[Verdict]:
        """Judge at once where it does not hang on where the name leads; else ask the host's resolver first.

        Not asked for is what our own resolver told the run: it leads there.
        A name that nothing would be allowed for is not asked for: the question would be a message of the agent to its zone.
        """
        again = decided_again(self._policies.current, agent, question)
        if again is not None:
            self._approvals.notice_short(agent, again[1])
            return again[0]
        name, address = name_of(question), question.destination.address
        proven = name == address or (question.inspected and question.server_name is not None)
        if proven:
            verdict = self._decide(agent, question, proven=True)
            keep_decided(self._policies.current, agent, question, verdict)
            return verdict
        if self._told.gave(agent.run.id or "", name, parsed_address(address)) or self._names.remembers(name, address):
            return self._decide(agent, question, proven=True)
        if needs_proof(self._policies.current, agent, question):
            return self._judge_name(agent, question, name)
        return self._decide(agent, question, proven=False)

    async def _judge_name(self, agent: Agent, question: Question, name: str) -> Verdict:
        proven = False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(RESOLVE_SECONDS):
                proven = await self._names.leads_to(name, question.destination.address)
        return self._decide(agent, question, proven=proven)

    def _decide(self, agent: Agent, question: Question, *, proven: bool) -> Verdict:
        verdict = judge(self._policies.current, agent, question, proven=proven, remembered=self._remembered)
        if self._parts.observe and question.kind is not Kind.PASSTHROUGH:
            verdict = observed(verdict)
        self._approvals.notice(agent, question, verdict)
        return verdict

    def _stop(self, stopping: asyncio.Event) -> None:
        """End; what waits for a person goes on waiting, for clients that come again."""
        self._approvals.stop()
        stopping.set()

    def _version(self) -> str:
        """Give the version of the policy in force; "" when there is none."""
        return "" if self._policies.current is None else self._policies.current.version

    def _ask_for_reload(self) -> None:
        self._reload = True

    def _every(self, shell: Shell) -> None:
        """Take a changed policy into force, look after doors elsewhere, and tell how it goes."""
        self._parts.beat()
        if self._doors is None:
            self._doors = NamespaceDoors(self._parts.namespaces, shell)
        self._doors.attend()
        stamp = self._parts.stamp()
        if stamp != self._stamp or self._reload:
            self._stamp, self._reload = stamp, False
            reload = self._policies.reload()
            self._problem = None if reload.refused is None else str(reload.refused)
            self._policy_told = False
            if reload.changed:
                shell.reconsider()
        if not self._policy_told:
            self._policy_told = True
            shell.tasks.create_task(self._approvals.tell_policy(), name="tell the desk of the policy")
        with suppress(OSError, ValueError):  # not there yet; what stays is removed when there are too many
            done = json.loads(read_regular(self._parts.done, DONE_BYTES_MAX))
            self._log.let_go(done if isinstance(done, list) else [])
        with suppress(OSError):  # it is late then, and whoever reads it says so
            replace_content(self._parts.status, json.dumps(self._status(shell)).encode(), mode=0o644, sync=False)

    def _status(self, shell: Shell) -> dict[str, object]:
        counters, current = shell.counters, self._policies.current
        return {
            "pid": os.getpid(),
            "time": time.time(),
            "policy": None if current is None else current.version,
            "policy_problem": self._problem,
            "connections": len(shell.sessions),
            "accepted": counters.accepted,
            "namespaces": len(self._doors or ()),
            "waiting_bytes": shell.room.bytes,
            "runs_over_budget": shell.room.over,
            "cut_for_room": counters.cut_for_room,
            "turned_away": dict(counters.turned_away),
            "allowed": counters.allowed,
            "denied": counters.denied,
            "refused": counters.refused,
            "unlogged": counters.unlogged,
            "exceeded": dict(counters.exceeded),
            "exported_seconds": None if counters.exported_at is None else shell.loop.time() - counters.exported_at,
            "defects": counters.defects,
            "logged": self._log.sequence,
            "log_files_removed": self._log.removed,
            "bytes": {"request": counters.bytes[Side.UPSTREAM], "response": counters.bytes[Side.CLIENT]},
        }


async def _resolve(name: str) -> Iterable[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _session() -> str:
    return str(uuid7_from(time.time_ns() // NS_PER_MS, os.urandom(16)))
