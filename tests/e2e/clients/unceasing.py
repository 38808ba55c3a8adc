"""Agent: talks without a pause, until a file appears: numbered requests over TLS and in the clear, and between its own threads.

unceasing.py CA TLS_PORT PLAIN_PORT STOP_FILE PAUSE

PAUSE is in seconds, between two brief connections. Prints how many connections it had: over TLS, in the clear.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

BODY_BYTES = 1500


def body_of(number: int) -> bytes:
    """Give what a numbered request carries."""
    return f"message {number} ".encode().ljust(BODY_BYTES, b".")


def keep_on(connect: Callable[[], http.client.HTTPConnection], done: Callable[[], bool], name: str) -> int:
    """Talk on one connection."""
    connection = connect()
    number = 0
    while not done():
        connection.request("POST", f"/{name}.{number}/700", body=body_of(number))
        assert 700 == len(connection.getresponse().read())
        number += 1
    connection.close()
    return 1


def again_and_again(
    connect: Callable[[], http.client.HTTPConnection], done: Callable[[], bool], name: str, pause: float
) -> int:
    """Talk on one connection after the other."""
    count = 0
    while not done():
        keep_on(connect, iter([False, False, True]).__next__, f"{name}.{count}")
        count += 1
        threading.Event().wait(pause)
    return count


async def through_memory(ca: str, port: int, done: Callable[[], bool]) -> int:
    """Talk with asyncio, whose TLS goes through memory BIOs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context(cafile=ca))
    number = 0
    while not done():
        head = f"POST /memory.{number}/700 HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        writer.write(head.encode() + body_of(number))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(700)
        number += 1
    writer.close()
    await writer.wait_closed()
    return 1


def among_ourselves(done: Callable[[], bool]) -> int:
    """Talk on a socket pair, which no server counts."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = 0
        while not done():
            ours.sendall(body_of(number))
            theirs.sendall(theirs.recv(BODY_BYTES, socket.MSG_WAITALL))
            assert ours.recv(BODY_BYTES, socket.MSG_WAITALL) == body_of(number)
            number += 1
            threading.Event().wait(0.01)
    return 0


def main(ca: str, tls_port: str, plain_port: str, stop: str, pause: str) -> None:
    """Talk in all ways at once."""
    context = ssl.create_default_context(cafile=ca)

    def done() -> bool:
        return Path(stop).exists()

    def tls() -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("127.0.0.1", int(tls_port), context=context)

    def plain() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", int(plain_port))

    counts = {"tls": 0, "plain": 0}
    ways: dict[str, Callable[[], tuple[str, int]]] = {
        "steady": lambda: ("tls", keep_on(tls, done, "steady")),
        "brief": lambda: ("tls", again_and_again(tls, done, "brief", float(pause))),
        "memory": lambda: ("tls", asyncio.run(through_memory(ca, int(tls_port), done))),
        "clear": lambda: ("plain", keep_on(plain, done, "clear")),
        "short": lambda: ("plain", again_and_again(plain, done, "short", float(pause))),
        "pair": lambda: ("plain", among_ourselves(done)),
    }

    def go(way: str) -> None:
        try:
            kind, count = ways[way]()
        except BaseException:  # noqa: BLE001 - whatever it is, the test must see it
            sys.excepthook(*sys.exc_info())
            os._exit(3)
        with lock:
            counts[kind] += count

    lock = threading.Lock()
    threads = [threading.Thread(target=go, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{counts['tls']} {counts['plain']}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
