"""The resolver at work, with real sockets: a server in the place of the upstream, clients that ask by UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from capd.enforcer.proxy.socket_options import is_over, reset
from capd.enforcer.resolver import service, stream
from capd.enforcer.resolver.binding import Binding
from capd.enforcer.resolver.service import Resolver, Rules
from capd.enforcer.resolver.upstream import Server
from tests.daemon.conftest import READY_SECONDS, wait_until

ALLOWED = {"api.example.com", "large.example.com", "slow.example.com", "broken.example.com"}
MANY = [f"10.0.{number}.1" for number in range(200)]


class Upstream(asyncio.DatagramProtocol):
    """A name server for a few names, that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer, with what does not fit cut off."""
        answer = self.answer(data, 512)
        if answer is not None:
            self.transport.sendto(answer, addr)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question whole."""
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = self.answer(data, 65_535) or b""
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    def answer(self, data: bytes, room: int) -> bytes | None:
        """Give an answer; None: silence."""
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        self.asked.append(name)
        self.heard.set()
        response = dns.message.make_response(query)
        if name.startswith("slow"):
            return None
        if name.startswith("broken"):
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        addresses = MANY if name.startswith("large") else ["192.0.2.7"]
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", addresses))
        wire = response.to_wire(max_size=65_535)
        if len(wire) > room:
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        return wire


def bound(kind: socket.SocketKind) -> socket.socket:
    """Give a socket on a free port of loopback."""
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def pair() -> tuple[socket.socket, socket.socket]:
    """Give two sockets, UDP and TCP, with the same free port."""
    while True:
        datagrams = bound(socket.SOCK_DGRAM)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            streams.bind(datagrams.getsockname())
        except OSError:
            datagrams.close()
            streams.close()
            continue
        return datagrams, streams


@asynccontextmanager
async def at_work(
    run: str | None = "run",
    told: Callable[[Binding], None] = lambda _binding: None,
    asked: Callable[[socket.socket], None] = lambda _connection: None,
) -> AsyncIterator[tuple[Resolver, Upstream, int, int]]:
    """Give a resolver, its upstream, and the ports for UDP and TCP; `told` is told of bindings, `asked` whose run is asked."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        datagrams, streams = pair()
        port = datagrams.getsockname()[1]
        transport, upstream = await loop.create_datagram_endpoint(Upstream, sock=datagrams)
        stack.callback(transport.close)
        await stack.enter_async_context(await asyncio.start_server(upstream.connected, sock=streams))

        async def run_of(connection: socket.socket, _peer: tuple[str, int]) -> str | None:
            asked(connection)
            return run

        rules = Rules(could_allow=lambda who, name: who == "run" and name in ALLOWED)
        resolver = Resolver(rules, [Server(host="127.0.0.1", port=port)], told)
        sockets = bound(socket.SOCK_DGRAM), bound(socket.SOCK_STREAM)
        for made in sockets:
            stack.callback(made.close)
        ports = [made.getsockname()[1] for made in sockets]
        serving = loop.create_task(resolver.serve([sockets[0]], [sockets[1]], run_of))
        try:
            yield resolver, upstream, ports[0], ports[1]
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def addresses(message: dns.message.Message) -> list[str]:
    """Give the addresses of an answer."""
    return [record.to_text() for part in message.answer for record in part]


Ask = Callable[..., Awaitable[dns.message.Message]]


@pytest.mark.parametrize("ask", [dns.asyncquery.udp, dns.asyncquery.tcp])
def test_names_are_answered_bound_or_denied(ask: Ask) -> None:
    """An allowed name is answered and bound to the run; another one is NXDOMAIN, and the upstream never hears of it."""

    async def case() -> None:
        told: list[Binding] = []
        async with at_work(told=told.append) as (resolver, upstream, udp, tcp):
            port = udp if ask is dns.asyncquery.udp else tcp
            done = await ask(dns.message.make_query("api.example.com", "A"), "127.0.0.1", port=port, timeout=READY_SECONDS)
            assert ["192.0.2.7"] == addresses(done)
            given = Binding(run="run", name="api.example.com", addresses=(ip_address("192.0.2.7"),), seconds=60)
            assert [given] == told
            denied = await ask(
                dns.message.make_query("payload.evil.example", "A"), "127.0.0.1", port=port, timeout=READY_SECONDS
            )
            assert dns.rcode.NXDOMAIN == denied.rcode()
            assert ["api.example.com."] == upstream.asked
            assert {"resolved": 1, "denied": 1} == dict(resolver.counters)

    asyncio.run(case())


def test_a_large_answer_is_asked_for_over_tcp() -> None:
    """What the upstream cuts is asked for again over TCP, and what does not fit for the client is cut and says so."""

    async def case() -> None:
        async with at_work() as (_resolver, upstream, udp, tcp):
            query = dns.message.make_query("large.example.com", "A")
            cut = await dns.asyncquery.udp(query, "127.0.0.1", port=udp, timeout=READY_SECONDS)
            assert cut.flags & dns.flags.TC
            whole = await dns.asyncquery.tcp(query, "127.0.0.1", port=tcp, timeout=READY_SECONDS)
            assert 64 == len(set(MANY) & set(addresses(whole)))
            assert 4 == len(upstream.asked)

    asyncio.run(case())


def test_an_upstream_that_fails_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent, or says that it cannot, makes SERVFAIL in bounded time and binds nothing."""
    monkeypatch.setattr(service, "UPSTREAM_SECONDS_MAX", 0.1)

    async def case() -> None:
        async with at_work() as (resolver, _upstream, udp, _tcp):
            for name in ("slow.example.com", "broken.example.com"):
                done = await dns.asyncquery.udp(dns.message.make_query(name, "A"), "127.0.0.1", port=udp, timeout=READY_SECONDS)
                assert dns.rcode.SERVFAIL == done.rcode()
            assert {"failed": 2} == dict(resolver.counters)

    asyncio.run(case())


def framed(name: str, number: int) -> bytes:
    """Give a question as a connection carries it."""
    wire = dns.message.make_query(name, "A", id=number).to_wire()
    return len(wire).to_bytes(2, "big") + wire


async def answer(reader: asyncio.StreamReader) -> dns.message.Message:
    """Read one answer of a connection."""
    length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), READY_SECONDS), "big")
    return dns.message.from_wire(await asyncio.wait_for(reader.readexactly(length), READY_SECONDS))


def test_questions_of_a_connection_do_not_wait_for_each_other() -> None:
    """Of questions sent at once, cut anywhere, the ready ones are answered first; those after the end of sending still are."""

    async def case() -> None:
        async with at_work() as (_resolver, upstream, _udp, tcp):
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            data = framed("slow.example.com", 1) + framed("api.example.com", 2) + framed("payload.evil.example", 3)
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
            done = [await answer(reader), await answer(reader)]
            assert {2: dns.rcode.NOERROR, 3: dns.rcode.NXDOMAIN} == {one.id: one.rcode() for one in done}
            writer.write_eof()
            last = await answer(reader)
            assert (1, dns.rcode.SERVFAIL, b"") == (last.id, last.rcode(), await reader.read())
            assert "payload.evil.example." not in upstream.asked
            writer.close()

    asyncio.run(case())


def test_a_connection_asks_only_so_much_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the bound of one connection waits in it, and is answered when there is room."""
    monkeypatch.setattr(stream, "PIPELINED_MAX", 1)

    async def case() -> None:
        async with at_work() as (_resolver, _upstream, _udp, tcp):
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            writer.write(framed("slow.example.com", 1) + framed("api.example.com", 2))
            assert [1, 2] == [(await answer(reader)).id, (await answer(reader)).id]
            writer.close()

    asyncio.run(case())


NO_QUESTIONS = {
    "empty": b"\0\0",
    "short": b"\0\x0b12345678901",
    "long": b"\xff\xff" + bytes(65_535),
    "HTTP": b"GET / HTTP/1\r\n",
}


@pytest.mark.parametrize("data", NO_QUESTIONS.values(), ids=NO_QUESTIONS)
def test_what_is_no_question_ends_a_connection(data: bytes) -> None:
    """A length that no question has is not waited for, and what follows it is not taken for one."""

    async def case() -> None:
        async with at_work() as (resolver, _upstream, _udp, tcp):
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            with contextlib.suppress(OSError):
                writer.write(data + framed("api.example.com", 2))
                assert b"" == await asyncio.wait_for(reader.read(), READY_SECONDS)
            writer.transport.abort()
            assert {"malformed": 1} == dict(resolver.counters)

    asyncio.run(case())


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that begins a question and does not end it has its connection closed in bounded time."""
    monkeypatch.setattr(stream, "IDLE_SECONDS_MAX", 0.1)

    async def case() -> None:
        async with at_work() as (_resolver, _upstream, _udp, tcp):
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            writer.write(framed("api.example.com", 2)[:-1])
            assert b"" == await asyncio.wait_for(reader.read(), READY_SECONDS)
            writer.close()

    asyncio.run(case())


def test_connections_of_one_run_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its share a run's connection is cut, and with one of it gone the next is served."""
    monkeypatch.setattr(service, "CONNECTIONS_PER_RUN_MAX", 1)

    async def case() -> None:
        async with at_work() as (resolver, _upstream, _udp, tcp):
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            writer.write(framed("api.example.com", 1))
            assert 1 == (await answer(reader)).id
            second, other = await asyncio.open_connection("127.0.0.1", tcp)
            with contextlib.suppress(ConnectionResetError):
                assert b"" == await asyncio.wait_for(second.read(), READY_SECONDS)
            assert 1 == resolver.counters["dropped"]
            for each in (writer, other):
                each.close()
            query, found = dns.message.make_query("api.example.com", "A"), list[str]()
            while not found:  # the end of the first is seen when the loop comes to it
                with contextlib.suppress(EOFError, OSError):
                    found = addresses(await dns.asyncquery.tcp(query, "127.0.0.1", port=tcp, timeout=READY_SECONDS))
            assert ["192.0.2.7"] == found

    asyncio.run(case())


def test_who_is_no_run_hears_nothing() -> None:
    """A query of a process that belongs to no run is not answered, and counted."""

    async def case() -> None:
        async with at_work(run=None) as (resolver, upstream, udp, _tcp):
            with pytest.raises(dns.exception.Timeout):
                await dns.asyncquery.udp(dns.message.make_query("api.example.com", "A"), "127.0.0.1", port=udp, timeout=0.2)
            async with asyncio.timeout(READY_SECONDS):
                while not resolver.counters:  # noqa: ASYNC110 - counters are no events
                    await asyncio.sleep(0.01)
            assert ({"no_run": 1}, []) == (dict(resolver.counters), upstream.asked)

    asyncio.run(case())


def test_who_left_before_it_was_known_is_not_taken_for_another() -> None:
    """A connection that was reset gives its ends free: what it had asked is not asked for whoever has them by then."""

    async def case() -> None:
        agents: list[socket.socket] = []

        def leave(connection: socket.socket) -> None:
            reset(agents.pop())
            wait_until(lambda: is_over(connection), "the resolver's own socket has heard of it")

        async with at_work(asked=leave) as (resolver, upstream, _udp, tcp):
            agents.append(socket.create_connection(("127.0.0.1", tcp)))
            agents[0].sendall(framed("api.example.com", 1))
            async with asyncio.timeout(READY_SECONDS):
                while not resolver.counters:  # noqa: ASYNC110 - counters are no events
                    await asyncio.sleep(0.01)
            assert ({"no_run": 1}, []) == (dict(resolver.counters), upstream.asked)

    asyncio.run(case())


def test_one_run_does_not_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one run only so many lookups are at work; what is above fails at once instead of waiting."""
    monkeypatch.setattr(service, "QUERIES_PER_RUN_MAX", 1)
    monkeypatch.setattr(service, "UPSTREAM_SECONDS_MAX", READY_SECONDS)

    async def case() -> None:
        async with at_work() as (resolver, upstream, udp, _tcp), asyncio.TaskGroup() as tasks:
            slow = dns.message.make_query("slow.example.com", "A")
            waits = tasks.create_task(dns.asyncquery.udp(slow, "127.0.0.1", port=udp, timeout=READY_SECONDS))
            await asyncio.wait_for(upstream.heard.wait(), READY_SECONDS)
            done = await dns.asyncquery.udp(
                dns.message.make_query("api.example.com", "A"), "127.0.0.1", port=udp, timeout=READY_SECONDS
            )
            assert (dns.rcode.SERVFAIL, 1) == (done.rcode(), resolver.counters["dropped"])
            waits.cancel()

    asyncio.run(case())
