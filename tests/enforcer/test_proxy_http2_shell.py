"""Streams in the proxy's shell, with real sockets on loopback: several held at once, given up, revoked; what the log has.

What lives here: the shell with a client of the h2 library. What must not: frames (test_proxy_http2.py), redirects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import h2.connection
import h2.events

from capd.enforcer.approvals.hold import Hold
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Question, Verdict
from capd.enforcer.proxy.questions import HELD_MAX, JUDGED_MAX
from tests.enforcer.asking import hold
from tests.enforcer.rehearsal import allow
from tests.enforcer.streams import connection, head
from tests.enforcer.test_proxy_shell import Log, Scene, run, scene

SECONDS = 120


@dataclass
class Client:
    """A client of HTTP/2 in clear."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    h2: h2.connection.H2Connection
    port: int
    statuses: dict[int, str] = field(default_factory=dict)

    async def ask(self, path: str) -> int:
        """Ask something; give the stream's number."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, head(path=path, host=f"127.0.0.1:{self.port}"), end_stream=True)
        await self.say()
        return number

    async def say(self) -> None:
        """Send what waits."""
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def answer(self, number: int) -> str:
        """Wait for the status of a stream, or its reset."""
        async with asyncio.timeout(SECONDS):
            while number not in self.statuses:
                for event in self.h2.receive_data(await self.reader.read(65_536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        self.statuses[event.stream_id] = next(
                            str(value) for name, value in event.headers if str(name) == ":status"
                        )
                    elif isinstance(event, h2.events.StreamReset):
                        self.statuses.setdefault(event.stream_id, f"reset {int(event.error_code)}")
        return self.statuses[number]


@dataclass
class Persons:
    """Those who are asked; each question waits until it is answered."""

    asked: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    async def hold(self, _agent: Agent, question: Question, held: Verdict, waits: Callable[[str], None]) -> Verdict:
        """Wait for the answer."""
        assert question.request is not None
        path = question.request.path
        waits(f"id of {path}")
        self.asked[path] = asyncio.get_running_loop().create_future()
        try:
            return replace(held, held=None, allowed=await self.asked[path], reason="")
        except asyncio.CancelledError:
            self.left.append(path)
            raise

    async def until_asked(self, *paths: str) -> None:
        """Wait until they were asked about these."""
        await until(lambda: set(paths) <= set(self.asked))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 - what is waited for is other tasks' and has no event
            await asyncio.sleep(0.01)


def judge(_agent: Agent, question: Question) -> Verdict:
    """Hold what begins with /held, deny /no, allow all else."""
    assert question.request is not None
    waits: Hold | None = hold() if question.request.path.startswith("/held") else None
    allowed = waits is None and question.request.path != "/no"
    return replace(allow(question), allowed=allowed, held=waits, reason="" if allowed else "approval_needed")


@asynccontextmanager
async def talk(persons: Persons, judging: Callable[[Agent, Question], object] = judge) -> AsyncIterator[tuple[Scene, Client]]:
    """Begin one: the target is another of h2's, which answers everything with 204."""
    target = connection(client=False)
    target.initiate_connection()

    def serve(data: bytes) -> bytes:
        for event in target.receive_data(data):
            if isinstance(event, h2.events.RequestReceived) and "/slow" not in str(event.headers):
                target.send_headers(event.stream_id, [(":status", "204")], end_stream=True)
        return target.data_to_send()

    async with scene(judge=judging, log=Log(), hold=persons.hold, answers=serve) as made:
        reader, writer = await made.connect()
        client = Client(reader, writer, connection(client=True), made.target_port)
        client.h2.initiate_connection()
        yield made, client
        writer.close()


def test_persons_are_asked_side_by_side() -> None:
    """Two streams wait for persons, a third goes through meanwhile; each goes when its own answer comes, in any order."""

    async def story() -> None:
        persons = Persons()
        async with talk(persons) as (made, client):
            first, second = await client.ask("/held/1"), await client.ask("/held/2")
            assert "204" == await client.answer(await client.ask("/quick"))
            await persons.until_asked("/held/1", "/held/2")
            persons.asked["/held/2"].set_result(True)
            assert "204" == await client.answer(second)
            persons.asked["/held/1"].set_result(False)
            assert "403" == await client.answer(first)
            told = [(entry["kind"], entry.get("exchange")) for entry in made.log.written]
            assert [("held", first), ("held", second)] == [one for one in told if one[0] == "held"]
            assert [("decision", 5), ("decision", 3), ("decision", 1)] == [one for one in told if one[0] == "decision"]

    run(story)


def test_whoever_gives_up_is_not_waited_for() -> None:
    """RST_STREAM takes a question back from the person; the client's other questions stay, and its leaving takes those."""

    async def story() -> None:
        persons = Persons()
        async with talk(persons) as (made, client):
            first = await client.ask("/held/1")
            await client.ask("/held/2")
            await persons.until_asked("/held/1", "/held/2")
            client.h2.reset_stream(first, 8)
            await client.say()
            await until(lambda: persons.left == ["/held/1"])
            assert "204" == await client.answer(await client.ask("/quick"))
            assert ["/held/1"] == persons.left
            client.writer.close()
            await until(lambda: persons.left == ["/held/1", "/held/2"])
            await until(lambda: not made.shell.sessions)
            refused = [entry["reason"] for entry in made.log.written if entry["kind"] == "refused"]
            assert ["the client left while a person was asked"] * 2 == refused
            assert 0 == made.shell.counters.defects

    run(story)


def test_few_are_asked_about_at_once() -> None:
    """Of more streams than persons are asked about at once the others are told so, and nothing waits for them."""

    async def story() -> None:
        persons = Persons()
        async with talk(persons) as (made, client):
            numbers = [await client.ask(f"/held/{turn}") for turn in range(HELD_MAX + 2)]
            assert ["403", "403"] == [await client.answer(number) for number in numbers[HELD_MAX:]]
            assert HELD_MAX == len(persons.asked)
            told = [entry["reason"] for entry in made.log.written if entry["kind"] == "decision"]
            assert ["approval_too_many"] * 2 == told
            persons.asked["/held/0"].set_result(True)
            assert "204" == await client.answer(numbers[0])

    run(story)


def test_few_are_looked_up_at_once() -> None:
    """Questions that wait for something else than persons take turns; each is answered, one that is given up is not asked."""

    async def story() -> None:
        opened, at_once, asked = asyncio.Event(), [0, 0], list[str]()

        async def look(question: Question) -> Verdict:
            at_once[0] += 1
            at_once[1] = max(at_once)
            await opened.wait()
            at_once[0] -= 1
            return allow(question)

        def judging(_agent: Agent, question: Question) -> Awaitable[Verdict]:
            assert question.request is not None
            asked.append(question.request.path)
            return look(question)

        async with talk(Persons(), judging) as (_made, client):
            numbers = [await client.ask(f"/{turn}") for turn in range(4 * JUDGED_MAX)]
            await until(lambda: at_once[0] == JUDGED_MAX)
            client.h2.reset_stream(numbers[-1], 8)
            await client.say()
            opened.set()
            assert {"204"} == {await client.answer(number) for number in numbers[:-1]}
            assert (JUDGED_MAX, False) == (at_once[1], f"/{4 * JUDGED_MAX - 1}" in asked)

    run(story)


def test_a_new_policy_ends_streams_not_connections() -> None:
    """What a new policy does not allow any more is ended while it is under way; the connection and its other streams live."""

    async def story() -> None:
        denied: set[str] = set()

        def judging(_agent: Agent, question: Question) -> Verdict:
            assert question.request is not None
            return replace(allow(question), allowed=question.request.path not in denied)

        async with talk(Persons(), judging) as (made, client):
            gone, stays = await client.ask("/slow/1"), await client.ask("/slow/2")
            await until(lambda: made.shell.counters.allowed == 2)
            denied.add("/slow/1")
            made.shell.reconsider()
            assert "403" == await client.answer(gone)
            assert "204" == await client.answer(await client.ask("/quick"))
            assert stays not in client.statuses
            (session,) = made.shell.sessions
            assert 1 == len(session.questions.standing)

    run(story)


def test_what_is_over_is_forgotten() -> None:
    """Streams that are over leave nothing behind, however many there were."""

    async def story() -> None:
        async with talk(Persons()) as (made, client):
            for _ in range(300):
                assert "204" == await client.answer(await client.ask("/quick"))
            assert "403" == await client.answer(await client.ask("/no"))
            (session,) = made.shell.sessions
            assert {} == session.questions.standing
            assert {} == session._core._gate._standing

    run(story)


def test_what_was_given_up_at_once_is_forgotten() -> None:
    """A stream that is given up before its decision was told leaves nothing behind."""

    async def story() -> None:
        async with talk(Persons()) as (made, client):
            for _ in range(5):
                number = client.h2.get_next_available_stream_id()
                client.h2.send_headers(number, head(path="/slow", host=f"127.0.0.1:{client.port}"), end_stream=True)
                client.h2.reset_stream(number, 8)
                await client.say()
            assert "204" == await client.answer(await client.ask("/quick"))
            (session,) = made.shell.sessions
            assert ({}, {}) == (session.questions.standing, session.questions._open)

    run(story)


def test_a_policy_that_changes_before_a_decision_is_told() -> None:
    """What the former policy allowed, and is told only when the next one is in force, is asked about again."""

    async def story() -> None:
        denied: set[str] = set()

        def change() -> None:
            denied.add("/slow/1")
            (session,) = made.shell.sessions
            assert {} == session.questions.standing
            made.shell.reconsider()

        def judging(_agent: Agent, question: Question) -> Verdict:
            assert question.request is not None
            if not denied:
                asyncio.get_running_loop().call_soon(change)
            return replace(allow(question), allowed=question.request.path not in denied)

        async with talk(Persons(), judging) as (made, client):
            assert "403" == await client.answer(await client.ask("/slow/1"))

    run(story)
