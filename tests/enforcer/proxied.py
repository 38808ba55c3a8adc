"""The proxy's shell in a thread, on an address of loopback beside its target: real clients before it, real servers behind.

What lives here: starting and ending it, a judge by path. What must not: redirects (yard.py), what is expected.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgpack
import uvloop

from capd.enforcer.entry_form import Form
from capd.enforcer.limits.meter import admitted
from capd.enforcer.limits.shared import SharedTotals
from capd.enforcer.policy.action import Run
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import Counters, Holding, World, nobody
from capd.enforcer.tls.authority import make_authority
from capd.enforcer.tls.contexts import Leaves, TlsContexts, Upstreams
from tests.e2e.certificates import Certificates

ADDRESS, TARGET = "127.0.0.2", "127.0.0.1"
"""The proxy listens on the first, with the port that its target has on the second: so requests name the right port."""


def by_path(question: Question) -> Verdict:
    """Allow all but paths with `denied` and TLS unopened."""
    request = question.request
    allowed = question.kind is not Kind.PASSTHROUGH and (request is None or "denied" not in request.path)
    reason = "" if allowed else "denied_by_policy"
    return Verdict(number=question.number, allowed=allowed, reason=reason, rule="by-path", policy="1", upgrade=True)


@dataclass
class Log:
    """Keeps entries."""

    full: bool = False
    entries: list[Mapping[str, object]] = field(default_factory=list)

    def append(self, entry: Mapping[str, object]) -> None:
        """Write."""
        self.entries.append(entry)

    def append_filled(self, form: Form, values: Sequence[bytes]) -> None:
        """Write, as the real one would."""
        self.entries.append(msgpack.unpackb(form.filled(0, values)))

    def leave_out(self) -> None:
        """It always has room."""

    def flush(self) -> None:
        """Nothing waits."""


@dataclass
class Proxied:
    """A running one.

    Attributes:
        port: of the proxy, and of its target.
        trust: PEM of the authority that clients must trust.
        mistakes: what the event loop was told of.
    """

    port: int
    trust: Path
    log: Log
    counters: Counters
    mistakes: list[object]

    def decisions(self, *names: str) -> list[tuple[object, ...]]:
        """Give the values of decisions about requests, in their order."""
        found = [entry for entry in self.log.entries if entry["kind"] == "decision" and entry["about"] == "http"]
        return [tuple(entry.get(name) for name in names) for entry in found]


@contextlib.contextmanager
def proxied(
    directory: Path,
    port: int,
    certificates: Certificates | None,
    judge: Callable[[Question], Verdict] = by_path,
    *,
    here: str = ADDRESS,
    there: str = TARGET,
    hold: Holding = nobody,
    watched: Callable[[Connection], Connection] = lambda connection: connection,
) -> Iterator[Proxied]:
    """Start one before a target that has a port; what has limits is counted.

    Args:
        directory: for the authority's certificate.
        port: of the target.
        certificates: of targets, where they have any.
        judge: decides.
        here: address that it listens on.
        there: address of the target.
        hold: is the person.
        watched: gives what each connection is looked at through.
    """
    now, numbers = datetime.now(UTC), count()
    authority = make_authority("capd tests", now)
    trust = directory / f"trust-{port}.pem"
    trust.write_bytes(authority.certificate_pem)
    contexts = TlsContexts(
        leaves=Leaves(authority, lambda: now),
        upstreams=Upstreams(ca_file=None if certificates is None else certificates.authority),
    )
    totals = SharedTotals(64)
    means = Means(contexts=contexts, normalise=normal_host, totals=totals)
    log, mistakes = Log(), list[object]()

    def connection(destination: Destination, opened: Opened) -> Connection:
        return watched(open_connection(destination, opened, means))

    def admit(agent: Agent, _question: Question, verdict: Verdict) -> Verdict:
        exceeded = admitted(verdict.obligations.limits, totals, agent.run.id or "", time.monotonic())
        return verdict if exceeded is None else replace(verdict, allowed=False, reason="limit", message=exceeded.words)

    world = World(
        admit=admit,
        hold=hold,
        judge=lambda _, question: judge(question),
        log=log,
        owner=lambda *_: Owner(uid=1, cookie=2, cgroup=3),
        agent=lambda _: Agent(run=Run(id="r"), principal=None),
        connection=connection,
        session=lambda: f"s{next(numbers)}",
        destination=lambda _: (there, port),
    )

    with _serving(world, (here, port), mistakes) as shell:
        yield Proxied(port, trust, log, shell.counters, mistakes)


@contextlib.contextmanager
def _serving(world: World, where: tuple[str, int], mistakes: list[object]) -> Iterator[Shell]:
    """Run a shell in a thread."""
    ready = threading.Event()
    made: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, Shell]] = []

    async def serve(listener: socket.socket) -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: mistakes.append(context))
        async with asyncio.TaskGroup() as tasks:
            shell = Shell(world, tasks)
            shell.listen(listener)
            made.append((loop, stopping, shell))
            ready.set()
            await stopping.wait()
            shell.close()

    with socket.create_server(where) as listener:
        thread = threading.Thread(target=lambda: uvloop.run(serve(listener)))
        thread.start()
        assert ready.wait(180)
        loop, stopping, shell = made[0]
        try:
            yield shell
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join(180)
            assert not thread.is_alive()
