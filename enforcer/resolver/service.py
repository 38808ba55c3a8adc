"""The resolver at work: datagrams and connections in, questions to upstream servers out.

What lives here: asyncio, limits, time-outs. What must not: any decision (core.py), any policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.resolver import core
from capd.enforcer.resolver.bindings import Address, Bindings
from capd.enforcer.resolver.core import QUERY_BYTES_MAX, Answer, Lookup, Resolved
from capd.enforcer.resolver.upstream import Server

UPSTREAM_SECONDS_MAX: Final = 2.0
"""For one server; then the next one is asked."""
QUERIES_MAX: Final = 256
"""At work at once; what is above is dropped, as a network would, and counted."""
QUERIES_PER_RUN_MAX: Final = 32
"""Of one run, so that none keeps others from being answered."""
CONNECTIONS_MAX: Final = 128
CONNECTION_SECONDS_MAX: Final = 10.0
"""A connection that says nothing for so long is closed (RFC 7766 section 6.2.3: of the order of seconds)."""
TCP_BYTES_MAX: Final = 0xFFFF
_LENGTH: Final = struct.Struct(">H")

RunOf = Callable[[socket.AddressFamily, tuple[str, int], int], Awaitable[str | None]]
"""Gives the run whose socket has an address, for SOCK_DGRAM or SOCK_STREAM; None if it is none of a run."""


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

    def __init__(
        self, rules: Rules, servers: Sequence[Server], run_of: RunOf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take what it works with.

        Args:
            rules: of the policy.
            servers: who is asked, in order.
            run_of: says whose a query is.
            clock: monotonic time.
        """
        self._rules = rules
        self._servers = tuple(servers)
        self._run_of = run_of
        self._clock = clock
        self._bindings = Bindings()
        self._working: Counter[str] = Counter()
        self._connections = 0
        self._datagrams = 0
        self.counters: Counter[str] = Counter()
        """What queries came to: `resolved`, `denied`, `no_data`, `refused`, `malformed`, `failed`, `dropped`, `no_run`."""

    def names_of(self, run: str, address: Address) -> tuple[str, ...]:
        """Give the names by which a run came to an address, the latest first; empty: it asked for none."""
        return self._bindings.names_of(run, address, self._clock())

    def forget(self, run: str) -> None:
        """Forget a run that ended."""
        self._bindings.forget(run)

    async def serve(self, datagrams: Sequence[socket.socket], streams: Sequence[socket.socket]) -> None:
        """Serve bound sockets until cancelled.

        Args:
            datagrams: UDP.
            streams: TCP, listening.
        """
        async with contextlib.AsyncExitStack() as stack:
            for listening in streams:
                server = await asyncio.start_server(self._connected, sock=listening, limit=TCP_BYTES_MAX + _LENGTH.size)
                await stack.enter_async_context(server)
            async with asyncio.TaskGroup() as tasks:
                for bound in datagrams:
                    bound.setblocking(False)
                    tasks.create_task(self._serve_datagrams(bound, tasks), name="resolver-datagrams")

    async def _serve_datagrams(self, bound: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wire, peer = await loop.sock_recvfrom(bound, QUERY_BYTES_MAX + 1)
            if self._datagrams >= QUERIES_MAX:
                self.counters["dropped"] += 1
                continue
            self._datagrams += 1
            tasks.create_task(self._answer_datagram(bound, wire, peer), name="resolver-query")

    async def _answer_datagram(self, bound: socket.socket, wire: bytes, peer: tuple[str, int]) -> None:
        try:
            answer = await self._answer(wire, bound.family, peer, socket.SOCK_DGRAM, None)
        finally:
            self._datagrams -= 1
        if answer is not None:
            with contextlib.suppress(OSError):  # who asked is gone
                await asyncio.get_running_loop().sock_sendto(bound, answer, peer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                await self._serve_connection(reader, writer)
            else:
                self.counters["dropped"] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it went away, or said nothing: there is nobody to tell
        finally:
            self._connections -= 1
            writer.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        family = writer.get_extra_info("socket").family
        while True:
            async with asyncio.timeout(CONNECTION_SECONDS_MAX):
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                wire = await reader.readexactly(length)
            answer = await self._answer(wire, family, peer, socket.SOCK_STREAM, TCP_BYTES_MAX)
            if answer is None:
                return
            writer.write(_LENGTH.pack(len(answer)) + answer)
            async with asyncio.timeout(CONNECTION_SECONDS_MAX):
                await writer.drain()

    async def _answer(
        self, wire: bytes, family: socket.AddressFamily, peer: tuple[str, int], kind: int, length_max: int | None
    ) -> bytes | None:
        run = await self._run_of(family, peer, kind)
        if run is None or len(wire) > QUERY_BYTES_MAX:
            self.counters["no_run" if run is None else "malformed"] += 1
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
        self._bindings.bind(run, lookup.name, resolved.addresses, resolved.seconds, self._clock())
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
        writer.write(_LENGTH.pack(len(lookup.wire)) + lookup.wire)
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return core.complete(lookup, await reader.readexactly(length), may_give, length_max=length_max)
    finally:
        writer.close()
