"""The proxy's shell with real sockets on loopback: what it lets in, writes down, and limits.

What lives here: the shell in a test's own event loop, told where connections go. What must not: redirects (test_enforcer.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgpack
import pytest
import uvloop

from capd.enforcer.entry_form import Form
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.obligations.provision import Provision
from capd.enforcer.policy.action import Run
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.policy.rule import Mask
from capd.enforcer.proxy import room, session
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import Equipping, Holding, World, nobody, unequipped
from tests.enforcer.rehearsal import NoTls, allow

REQUEST = b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OWNER = Owner(uid=1, cookie=2, cgroup=3)
SECONDS_MAX = 120


@dataclass
class Log:
    """Keeps entries; may be full, or fail."""

    full: bool = False
    fails: bool = False
    left_out: int = 0
    queued: list[Mapping[str, object]] = field(default_factory=list)
    written: list[Mapping[str, object]] = field(default_factory=list)

    def append(self, entry: Mapping[str, object]) -> None:
        """Queue."""
        self.queued.append(entry)

    def append_filled(self, form: Form, values: Sequence[bytes]) -> None:
        """Queue, as the real one would."""
        self.queued.append(msgpack.unpackb(form.filled(0, values)))

    def leave_out(self) -> None:
        """Count what has no room."""
        self.left_out += 1

    def flush(self) -> None:
        """Write, or fail."""
        queued, self.queued = self.queued, []
        if self.fails:
            raise OSError(28, "no space")
        self.written += queued


@dataclass
class Scene:
    """A shell with a target behind it.

    Attributes:
        target: what the target was sent.
        forwarded_unwritten: whether the target ever got a byte whose decision was not yet written.
    """

    shell: Shell
    log: Log
    port: int
    target_port: int
    target: bytearray
    early: list[bool]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as an agent."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> bytes:
        """Send one request and read until there is an answer or an end."""
        try:
            reader, writer = await self.connect()
            writer.write(REQUEST % self.target_port)
            return await reader.read(65536)
        except ConnectionError:
            return b"reset"


@asynccontextmanager
async def scene(
    *,
    judge: Callable[[Agent, Question], object] | None = None,
    log: Log | None = None,
    owner: Callable[..., Owner | None] = lambda *_: OWNER,
    agent: Callable[[Owner], Agent | None] = lambda _: Agent(run=Run(id="r"), principal=None),
    destination: Callable[[socket.socket], tuple[str, int] | None] | None = None,
    answer: bytes = OK,
    answers: Callable[[bytes], bytes] | None = None,
    hold: Holding = nobody,
    equip: Equipping = unequipped,
    connection: Callable[[Destination, Opened], object] | None = None,
) -> AsyncIterator[Scene]:
    """Make one."""
    kept = log or Log()
    target, early = bytearray(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            early.append(not any(entry["kind"] == "decision" for entry in kept.written))
            target.extend(data)
            writer.write(answer if answers is None else answers(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target_port = server.sockets[0].getsockname()[1]
    world = World(
        judge=judge or (lambda _, question: allow(question)),  # type: ignore[arg-type] # a test may answer nonsense
        log=kept,
        owner=owner,
        agent=agent,
        connection=connection or _connection,  # type: ignore[arg-type] # a test's own core may be less
        session=lambda: "s",
        hold=hold,
        equip=equip,
        destination=destination or (lambda _: ("127.0.0.1", target_port)),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            shell = Shell(world, tasks)
            shell.listen(listener)
            try:
                yield Scene(shell, kept, listener.getsockname()[1], target_port, target, early)
            finally:
                shell.close()
                server.close()


def _connection(destination: Destination, opened: Opened) -> Connection:
    return open_connection(destination, opened, Means(contexts=NoTls(), normalise=normal_host))


def run(story: Callable[[], object]) -> None:
    """Run in the loop that the enforcer has."""
    uvloop.run(story())  # type: ignore[arg-type] # an async function


def test_what_is_forwarded_was_written_down_before() -> None:
    """A target's first byte comes after the decision is in the log, and the log tells the connection's life."""

    async def story() -> None:
        async with scene() as made:
            assert (await made.ask()).endswith(b"ok")
        assert [False] == made.early
        assert ["open", "decision", "close"] == [entry["kind"] for entry in made.log.written + made.log.queued]

    run(story)


@pytest.mark.parametrize("log", [Log(full=True), Log(fails=True)])
def test_what_cannot_be_written_down_does_not_happen(log: Log) -> None:
    """With a log that is full or fails, nothing is let in or everything is denied, and the target never hears of it."""

    async def story() -> None:
        async with scene(log=log) as made:
            said = await made.ask()
            assert said == b"reset" if log.full else b"decision_log_unwritable" in said
            assert b"" == bytes(made.target)
            assert made.shell.counters.unlogged >= 1

    run(story)


@pytest.mark.parametrize(
    ("turned", "reason"),
    [
        ({"destination": lambda _: None}, "not redirected"),
        ({"owner": lambda *_: None}, "of no run"),
        ({"agent": lambda _: None}, "of no run"),
        ({"owner": None}, "owner not told"),
    ],
)
def test_strangers_are_reset(turned: dict[str, object], reason: str) -> None:
    """A connection that was not redirected, or of which nobody knows whose it is, is reset and counted."""

    def fails(*_: object) -> Owner:
        raise OSError

    async def story() -> None:
        async with scene(**{key: value or fails for key, value in turned.items()}) as made:  # type: ignore[arg-type]
            assert b"reset" == await made.ask()
            assert {reason: 1} == dict(made.shell.counters.turned_away)
            assert 0 == len(made.shell.sessions)

    run(story)


def test_a_loop_is_cut() -> None:
    """A connection that leads back to the enforcer itself is reset, not dialled."""

    async def story() -> None:
        async with scene(destination=lambda connection: connection.getsockname()) as made:
            assert b"reset" == await made.ask()
            assert {"not redirected": 1} == dict(made.shell.counters.turned_away)

    run(story)


def test_one_run_cannot_take_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has a limit of its own, and gets its room back when connections end."""
    monkeypatch.setattr(room, "CONNECTIONS_PER_RUN_MAX", 2)

    async def story() -> None:
        async with scene() as made:
            first = [await made.connect() for _ in range(2)]
            assert b"reset" == await made.ask()
            for _, writer in first:
                writer.close()
            await until(lambda: not made.shell.sessions)
            assert (await made.ask()).endswith(b"ok")

    run(story)


def test_verdicts_may_take_their_time() -> None:
    """A verdict that has to be waited for holds the request, and a failing one denies it."""

    async def later(question: Question) -> Verdict:
        await asyncio.sleep(0.05)
        if question.number > 1:
            raise KeyError(question.number)
        return allow(question)

    async def story() -> None:
        async with scene(judge=lambda _, question: later(question)) as made:
            reader, writer = await made.connect()
            writer.write(REQUEST % made.target_port * 2)
            said = b""
            while b"not_decided" not in said:
                said += await asyncio.wait_for(reader.read(65536), SECONDS_MAX)
            assert 1 == bytes(made.target).count(b"GET")
            writer.close()

    run(story)


def test_a_defect_costs_one_connection() -> None:
    """A mistake of ours resets its own connection and no other."""

    def broken(_: Agent, question: Question) -> Verdict:
        if question.request is not None and question.request.path == "/bad":
            raise ZeroDivisionError
        return allow(question)

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with scene(judge=broken) as made:
            reader, writer = await made.connect()
            writer.write((REQUEST % made.target_port).replace(b"/x", b"/bad"))
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()
            assert (await made.ask()).endswith(b"ok")
            assert 1 == made.shell.counters.defects

    run(story)


def test_a_tightened_policy_ends_what_stands_on_it() -> None:
    """A relayed connection is cut when the policy in force does not allow it any more."""
    allowed = True

    def judge(_: Agent, question: Question) -> Verdict:
        return Verdict(number=question.number, allowed=allowed)

    async def story() -> None:
        nonlocal allowed
        async with scene(judge=judge, answer=b"pong") as made:
            reader, writer = await made.connect()
            writer.write(b"\xff\xfe\xfd\xfc")
            assert b"pong" == await reader.read(10)
            made.shell.reconsider()
            await asyncio.sleep(0.05)
            writer.write(b"more")
            assert b"pong" == await reader.read(10)
            allowed = False
            made.shell.reconsider()
            with pytest.raises(ConnectionResetError):
                await reader.read(10)
            writer.close()

    run(story)


async def until(holds: Callable[[], object]) -> None:
    """Wait for something."""
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110 - what is looked at is other tasks' and has no event
            await asyncio.sleep(0.005)


async def arrived(made: Scene, data: bytes) -> None:
    """Wait until the target has got it."""
    await until(lambda: data in made.target)


def test_a_tightened_policy_ends_a_request_under_way() -> None:
    """A body that an agent never ends does not go on under a policy that is no more: the connection is cut."""
    allowed = True

    def judge(_: Agent, question: Question) -> Verdict:
        return Verdict(number=question.number, allowed=allowed)

    async def story() -> None:
        nonlocal allowed
        async with scene(judge=judge, answer=b"") as made:
            reader, writer = await made.connect()
            head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head % made.target_port + b"1\r\na\r\n")
            await arrived(made, b"1\r\na\r\n")
            made.shell.reconsider()
            await asyncio.sleep(0.02)
            writer.write(b"1\r\nb\r\n")
            await arrived(made, b"1\r\nb\r\n")
            allowed = False
            made.shell.reconsider()
            async with asyncio.timeout(SECONDS_MAX):
                with pytest.raises(ConnectionResetError):
                    await reader.read(100)
            writer.close()

    run(story)


MASKED = Obligations(masks=(("hide", Mask(headers=("x-key",))),))


async def ready(_agent: Agent, question: Question, verdict: Verdict) -> Verdict:
    """Make ready what needs nothing."""
    assert question.request is not None
    provision = Provision(fields=question.request.fields, query=None)
    return replace(verdict, provision=provision)


def test_obligations_are_made_ready_or_the_request_is_denied() -> None:
    """Between verdict and first byte what obligations need is fetched; what cannot be fetched denies, and is told."""

    async def story() -> None:
        for equip, status, kinds in ((ready, b"200", ["decision", "carried_out"]), (unequipped, b"403", ["decision"])):
            async with scene(judge=lambda _, question: replace(allow(question), obligations=MASKED), equip=equip) as made:
                assert status in (await made.ask()).split(b"\r\n")[0]
                await until(lambda: made.log.written[-1]["kind"] == kinds[-1])  # noqa: B023 - called at once
                assert kinds == [entry["kind"] for entry in made.log.written if entry["kind"] != "open"]
                told = next(entry for entry in made.log.written if entry["kind"] == "decision")
                assert (status == b"200") is ("obligations" in told)

    run(story)


def test_a_policy_that_wants_something_masked_ends_a_request_under_way() -> None:
    """An answer that is not masked does not go on under a policy that wants it masked, nor one with other masks."""
    obliged = NOTHING

    async def story() -> None:
        nonlocal obliged
        judge = lambda _, question: replace(allow(question), obligations=obliged)  # noqa: E731 - it is of the moment
        for before, after in ((NOTHING, MASKED), (MASKED, NOTHING)):
            obliged = before
            async with scene(judge=judge, equip=ready, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst") as made:
                reader, writer = await made.connect()
                writer.write(REQUEST % made.target_port)
                await reader.readuntil(b"first")
                made.shell.reconsider()
                await asyncio.sleep(0.02)
                assert not reader.at_eof()
                obliged = after
                made.shell.reconsider()
                async with asyncio.timeout(SECONDS_MAX):
                    with pytest.raises(ConnectionResetError):
                        await reader.read(100)
                writer.close()

    run(story)


@pytest.mark.parametrize(("after", "status"), [(MASKED, b"200"), (NOTHING, b"403"), (None, b"403")])
def test_a_policy_that_comes_while_obligations_are_fetched(after: Obligations | None, status: bytes) -> None:
    """What is fetched under one policy is put in only if the next one, which came meanwhile, allows the same."""
    in_force: Obligations | None = MASKED

    async def story() -> None:
        async def slow(agent: Agent, question: Question, verdict: Verdict) -> Verdict:
            nonlocal in_force
            in_force = after
            made.shell.reconsider()
            return await ready(agent, question, verdict)

        def judge(_agent: Agent, question: Question) -> Verdict:
            verdict = replace(allow(question), obligations=in_force or NOTHING)
            return replace(verdict, allowed=in_force is not None)

        async with scene(judge=judge, equip=slow) as made:
            assert status in (await made.ask()).split(b"\r\n")[0]
            assert (status == b"200") is bool(made.target)

    run(story)


def test_a_slow_reader_holds_up_its_target() -> None:
    """What an agent does not read is not read from its target either, beyond what buffers hold."""

    async def story() -> None:
        big = b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n" + bytes(64 << 20)
        async with scene(answer=big) as made:
            _, writer = await made.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined] # of every transport that reads
            writer.write(REQUEST % made.target_port)
            sent = [0]
            while not sent[-1] or sent[-1] != sent[-2]:
                await asyncio.sleep(0.2)
                sent.append(made.shell.counters.bytes[Side.CLIENT])
            assert sent[-1] < 32 << 20
            writer.transport.abort()

    run(story)


def test_idle_connections_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing happens for long is reset by the sweep."""

    async def story() -> None:
        async with scene() as made:
            reader, writer = await made.connect()
            await until(lambda: made.shell.sessions)
            made.shell.sweep()
            assert 1 == len(made.shell.sessions)
            monkeypatch.setattr(session, "IDLE_SECONDS", -1.0)
            made.shell.sweep()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()

    run(story)
