"""The resolver at work: datagrams and connections in, questions to upstream servers out.

What lives here: asyncio, limits, time-outs. What must not: any decision (core.py), any policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.accepting import PAUSE_SECONDS, words_of
from capd.enforcer.proxy.socket_options import is_over
from capd.enforcer.resolver import core
from capd.enforcer.resolver.binding import Address, Binding
from capd.enforcer.resolver.core import QUERY_BYTES_MAX, Answer, Lookup, Resolved
from capd.enforcer.resolver.stream import LENGTH, Stream
from capd.enforcer.resolver.upstream import Server

UPSTREAM_SECONDS_MAX: Final = 2.0
"""For one server; then the next one is asked."""
QUERIES_MAX: Final = 256
"""At work at once; what is above is dropped, as a network would, and counted."""
QUERIES_PER_RUN_MAX: Final = 32
"""Of one run, so that none keeps others from being answered."""
CONNECTIONS_MAX: Final = 128
CONNECTIONS_PER_RUN_MAX: Final = 16
"""A resolver needs one (RFC 7766 section 6.2.2); a run has several processes."""
PASSING: Final = {errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Of accept(2): it can be tried again."""
ANSWER_BYTES_MAX: Final = 0xFFFF
"""Over TCP."""

RunOf = Callable[[socket.socket, tuple[str, int]], Awaitable[str | None]]
"""Gives the run whose socket is at the other end: of the bound socket that a datagram came to, or of a connection; and the
address of that end. None if it is none of a run."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the policy says of names.

    Attributes:
        could_allow: whether some rule could allow a connection of a run to a name.
        may_give: whether a name may give an address.
    """

    could_allow: Callable[[str, str], bool]
    may_give: Callable[[str, Address], bool] = core.is_ordinary


class Resolver:
    """Answers queries of runs. One event loop runs all of it."""

    def __init__(self, rules: Rules, servers: Sequence[Server], bound: Callable[[Binding], None]) -> None:
        """Take what it works with.

        Args:
            rules: of the policy.
            servers: who is asked, in order.
            bound: is told what a run is told, before the run is.
        """
        self._rules = rules
        self._servers = tuple(servers)
        self._bound = bound
        self._working: Counter[str] = Counter()
        self._connections = 0
        self._connections_of: Counter[str] = Counter()
        self._datagrams = 0
        self.counters: Counter[str] = Counter()
        """What queries came to: `resolved`, `denied`, `no_data`, `refused`, `malformed`, `failed`, `dropped`, `no_run`."""

    async def serve(self, datagrams: Sequence[socket.socket], streams: Sequence[socket.socket], run_of: RunOf) -> None:
        """Serve bound sockets until cancelled. May be called for several sets of sockets at the same time.

        Args:
            datagrams: UDP.
            streams: TCP, listening.
            run_of: says whose a query that comes to them is.
        """
        async with asyncio.TaskGroup() as tasks:
            for listening in streams:
                listening.setblocking(False)
                tasks.create_task(self._accept(run_of, listening, tasks), name="resolver-streams")
            for bound in datagrams:
                bound.setblocking(False)
                tasks.create_task(self._serve_datagrams(run_of, bound, tasks), name="resolver-datagrams")

    async def _accept(self, run_of: RunOf, listening: socket.socket, tasks: asyncio.TaskGroup) -> None:
        """Take connections. Not asyncio's server: that one goes on for ever with a socket that somebody shut."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                self.counters[words_of(error)] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if self._connections >= CONNECTIONS_MAX:
                self.counters["dropped"] += 1
                connection.close()
                continue
            self._connections += 1
            tasks.create_task(self._serve_connection(run_of, connection, peer[:2]), name="resolver-connection")

    async def _serve_datagrams(self, run_of: RunOf, bound: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wire, peer = await loop.sock_recvfrom(bound, QUERY_BYTES_MAX + 1)
            if self._datagrams >= QUERIES_MAX:
                self.counters["dropped"] += 1
                continue
            self._datagrams += 1
            tasks.create_task(self._answer_datagram(run_of, bound, wire, peer), name="resolver-query")

    async def _answer_datagram(self, run_of: RunOf, bound: socket.socket, wire: bytes, peer: tuple[str, int]) -> None:
        try:
            run = await self._run(run_of, bound, peer)
            answer = None if run is None else await self._answer(run, wire, None)
        finally:
            self._datagrams -= 1
        if answer is not None:
            with contextlib.suppress(OSError):  # who asked is gone
                await asyncio.get_running_loop().sock_sendto(bound, answer, peer)

    async def _run(self, run_of: RunOf, connection: socket.socket, peer: tuple[str, int]) -> str | None:
        try:
            run = await run_of(connection, peer[:2])
        except OSError:  # the kernel does not say
            run = None
        # Looked at afterwards: as long as it is not over, nobody else can be connected with its ends.
        if run is None or (connection.type == socket.SOCK_STREAM and is_over(connection)):
            self.counters["no_run"] += 1
            return None
        return run

    async def _serve_connection(self, run_of: RunOf, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            run = await self._run(run_of, connection, peer)
            if run is not None:
                reader, writer = await asyncio.open_connection(sock=connection, limit=2 * QUERY_BYTES_MAX)
                try:
                    await self._serve_run(run, reader, writer)
                finally:
                    writer.transport.abort()
        except OSError:
            pass  # it went away: there is nobody to tell
        finally:
            self._connections -= 1
            connection.close()

    async def _serve_run(self, run: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections_of[run] >= CONNECTIONS_PER_RUN_MAX:
            self.counters["dropped"] += 1
            return
        self._connections_of[run] += 1
        try:
            await self._serve_stream(run, reader, writer)
        finally:
            self._connections_of[run] -= 1
            if not self._connections_of[run]:
                del self._connections_of[run]

    async def _serve_stream(self, run: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await Stream(reader, writer, lambda wire: self._answer(run, wire, ANSWER_BYTES_MAX)).serve():
            self.counters["malformed"] += 1

    async def _answer(self, run: str, wire: bytes, length_max: int | None) -> bytes | None:
        if len(wire) > QUERY_BYTES_MAX:
            self.counters["malformed"] += 1
            return None
        decided = core.receive(wire, lambda name: self._rules.could_allow(run, name), secrets.randbits(16))
        if isinstance(decided, Lookup):
            return await self._look_up(run, decided, length_max)
        self.counters["malformed" if decided is None else decided.reason] += 1
        return decided.wire if isinstance(decided, Answer) else None

    async def _look_up(self, run: str, lookup: Lookup, length_max: int | None) -> bytes:
        if self._working[run] >= QUERIES_PER_RUN_MAX:
            self.counters["dropped"] += 1
            return core.failed(lookup)
        self._working[run] += 1
        try:
            resolved = await self._ask_all(lookup, length_max)
        finally:
            self._working[run] -= 1
            if not self._working[run]:
                del self._working[run]
        if resolved is None:
            self.counters["failed"] += 1
            return core.failed(lookup)
        self.counters["resolved"] += 1
        # Bound before it is told, so that no connection comes before its name.
        if resolved.addresses:
            self._bound(Binding(run=run, name=lookup.name, addresses=resolved.addresses, seconds=resolved.seconds))
        return resolved.wire

    async def _ask_all(self, lookup: Lookup, length_max: int | None) -> Resolved | None:
        """Ask one server after the other until one can say."""
        for server in self._servers:
            found = await self._ask(server, lookup, length_max)
            if found is not None and not found.failed and not found.truncated:
                return found
        return None

    async def _ask(self, server: Server, lookup: Lookup, length_max: int | None) -> Resolved | None:
        try:
            async with asyncio.timeout(UPSTREAM_SECONDS_MAX):
                found: Resolved | None = await _ask_datagram(server, lookup, self._rules.may_give, length_max)
                if found is not None and found.truncated:
                    found = await _ask_stream(server, lookup, self._rules.may_give, length_max)
                return found
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None


class _Exchange(asyncio.DatagramProtocol):
    """One question to one server over UDP: what is no answer to it is passed over, as if it had not come."""

    def __init__(self, judge: Callable[[bytes], Resolved | None]) -> None:
        self._judge = judge
        self.result: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's signature
        """Take a datagram; the socket is connected, so it comes from the server's address."""
        found = self._judge(data)
        if found is not None and not self.result.done():
            self.result.set_result(found)

    def error_received(self, exc: Exception) -> None:
        """Take an error of the socket, such as a port that nobody listens on."""
        if not self.result.done():
            self.result.set_exception(exc)


async def _ask_datagram(
    server: Server, lookup: Lookup, may_give: Callable[[str, Address], bool], length_max: int | None
) -> Resolved | None:
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_datagram_endpoint(
        lambda: _Exchange(lambda wire: core.complete(lookup, wire, may_give, length_max=length_max)),
        remote_addr=(server.host, server.port),
    )
    try:
        transport.sendto(lookup.wire)
        return await exchange.result
    finally:
        transport.close()


async def _ask_stream(
    server: Server, lookup: Lookup, may_give: Callable[[str, Address], bool], length_max: int | None
) -> Resolved | None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(LENGTH.pack(len(lookup.wire)) + lookup.wire)
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return core.complete(lookup, await reader.readexactly(length), may_give, length_max=length_max)
    finally:
        writer.close()
