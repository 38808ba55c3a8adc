"""A client and a server of MySQL that do no more than sign in.

What lives here: the shell around the state machines: sockets and packets. What must not: cases.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.mysql_client import MysqlClient
from capd.enforcer.sign_in.mysql_server import MysqlServer
from tests.e2e.certificates import Certificates
from tests.enforcer.sign_in.postgresql_wire import SECONDS_MAX, exactly

PROTOCOL_41, LONG_PASSWORD, SECURE, PLUGIN_AUTH, SSL, TRANSACTIONS = 1 << 9, 1, 1 << 15, 1 << 19, 1 << 11, 1 << 13
CAPABILITIES = PROTOCOL_41 | LONG_PASSWORD | SECURE | PLUGIN_AUTH | TRANSACTIONS
OK = b"\0\0\0\x02\0\0\0"
UTF8 = 45


@dataclass(slots=True)
class Packets:
    """Packets of one connection, with their numbers."""

    stream: socket.socket
    number: int = 0

    def read(self) -> bytes:
        """Read one."""
        head = exactly(self.stream, 4)
        self.number = head[3] + 1
        return exactly(self.stream, int.from_bytes(head[:3], "little"))

    def write(self, content: bytes) -> None:
        """Write one."""
        self.stream.sendall(len(content).to_bytes(3, "little") + bytes([self.number & 0xFF]) + content)
        self.number += 1


def greeting(packet: bytes) -> tuple[str, bytes, int]:
    """Read plugin, challenge and capabilities of a greeting (dev.mysql.com, Protocol::HandshakeV10)."""
    rest = packet[packet.index(b"\0", 1) + 5 :]
    first, rest = rest[:8], rest[9:]
    (lower, upper, length) = (*struct.unpack_from("<H", rest), *struct.unpack_from("<HB", rest, 5))
    second = rest[18 : 18 + max(13, length - 8)]
    return rest[18 + len(second) :].split(b"\0")[0].decode(), first + second, lower | upper << 16


def sign_in(port: int, made: SignIn, *, tls: Certificates | None, prove: bool = True) -> tuple[MysqlClient, list[str], bytes]:
    """Sign in to a server by our client; give it, what the server asked for by name, and the packet behind its success.

    A refusal of the server raises SignInError, as ours do.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as plain, contextlib.ExitStack() as held:
        packets = Packets(plain)
        plugin, challenge, capabilities = greeting(packets.read())
        flags, channel = CAPABILITIES & capabilities, Channel()
        if tls is not None:
            flags |= SSL
            packets.write(struct.pack("<IIB23x", flags, 1 << 24, UTF8))
            context = ssl.create_default_context(cafile=str(tls.authority))
            packets.stream = held.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            channel = Channel(encrypted=True, proven=prove)
        assert made.user is not None
        client, asked = MysqlClient(made, channel), [plugin]
        named, response = client.begin(plugin, challenge)
        who = made.user.encode() + b"\0" + bytes([len(response)]) + response + named.encode() + b"\0"
        packets.write(struct.pack("<IIB23x", flags, 1 << 24, UTF8) + who)
        while not client.done:
            packet = packets.read()
            if packet[:1] == b"\xfe":
                asked.append(packet[1:].split(b"\0")[0].decode())
            answer = client.answer(packet)
            if answer is not None:
                packets.write(answer)
        packets.number = 0
        packets.write(b"\x03SELECT CURRENT_USER()")
        return client, asked, b"".join(packets.read() for _ in range(4))


@contextlib.contextmanager
def letting_in(plugin: str) -> Iterator[tuple[int, list[str]]]:
    """Listen, greet with a plugin, and let clients in by our server; give the port and what became of each."""
    listener = socket.create_server(("127.0.0.1", 0))
    outcomes: list[str] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(SECONDS_MAX)
                with connection, contextlib.suppress(EOFError, OSError):
                    _serve(Packets(connection), plugin, outcomes)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], outcomes
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS_MAX)
        listener.close()


def _serve(packets: Packets, plugin: str, outcomes: list[str]) -> None:
    challenge = bytes(1 + one % 127 for one in os.urandom(20))
    lower, upper = CAPABILITIES & 0xFFFF, CAPABILITIES >> 16
    middle = struct.pack("<HBHHB10x", lower, UTF8, 2, upper, 21)
    head = b"\x0a8.0.40\0" + struct.pack("<I", 1) + challenge[:8] + b"\0"
    server = MysqlServer(plugin, challenge)
    packets.write(head + middle + challenge[8:] + b"\0" + server.plugin.encode() + b"\0")
    response = packets.read()
    user, _, rest = response[32:].partition(b"\0")
    answer, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    named = rest.split(b"\0")[0].decode()
    try:
        for one in server.begin(named, answer):
            packets.write(one)
        if not server.done:
            for one in server.answer(packets.read()):
                packets.write(one)
    except SignInError as error:
        outcomes.append(str(error))
        return
    packets.write(OK)
    outcomes.append(f"{user.decode()} by {named}")
    with contextlib.suppress(EOFError, OSError):
        while True:  # what clients say first: variables, SELECTs; each is answered with an OK
            packets.read()
            packets.write(OK)
