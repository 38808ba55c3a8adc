"""Agent: moves bytes, or ends connections, in ways of which less than everything can be seen.

unseen.py given                 says "said" on its standard input, a socket, and reads one answer
unseen.py splice PORT           vmsplice and splice into a TCP connection whose peer echoes, and splice out of it
unseen.py uring                 speaks on a unix socket by io_uring and by write
unseen.py reset PORT FILE       a child's connection is reset, the child ends without close(); lives until FILE is there
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
TCP_CLOSE = 7
URING_SETUP, URING_ENTER, URING_SEND = 425, 426, 26
ENTRIES_OFFSET = 0x10000000


def given() -> None:
    """Use a socket that somebody else made."""
    os.write(0, b"said")
    assert os.read(0, 64) == b"answer"


def splice(port: str) -> None:
    """Move bytes that never are in a buffer of a socket call."""
    reader, writer = os.pipe()
    text = ctypes.create_string_buffer(b"s" * 3000, 3000)
    assert LIBC.vmsplice(writer, struct.pack("QQ", ctypes.addressof(text), 3000), 1, 0) == len(text)
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        assert os.splice(reader, connection.fileno(), 3000) == len(text)
        left = len(text)
        while left:
            moved = os.splice(connection.fileno(), writer, left)
            left -= len(os.read(reader, moved))
        connection.sendall(b"after")
        assert connection.recv(5) == b"after"


def uring() -> None:
    """Send by io_uring, with nothing but the system calls."""
    parameters = ctypes.create_string_buffer(120)
    ring = LIBC.syscall(URING_SETUP, 4, parameters)
    if ring < 0:
        sys.stdout.write("refused\n")
        return
    numbers = struct.unpack("30I", parameters.raw)
    tail, array = numbers[11], numbers[16]
    indices, entries = mmap.mmap(ring, array + 16), mmap.mmap(ring, 256, offset=ENTRIES_OFFSET)
    ours, theirs = socket.socketpair()
    text = ctypes.create_string_buffer(b"by the ring", 11)
    head = (URING_SEND, 0, 0, ours.fileno(), 0, ctypes.addressof(text), 11, 0, 1)
    entries[:64] = struct.pack("<BBHiQQIIQ24x", *head)
    struct.pack_into("I", indices, array, 0)
    struct.pack_into("I", indices, tail, 1)
    assert LIBC.syscall(URING_ENTER, ring, 1, 0, 0, None, 0) == 1
    assert theirs.recv(11) == text.raw
    ours.sendall(b"by a call")
    assert theirs.recv(9) == b"by a call"


def reset(port: str, file: str) -> None:
    """Let a child's connection be over before the child is, and outlive it."""
    if os.fork() == 0:
        connection = socket.create_connection(("127.0.0.1", int(port)))
        connection.sendall(b"asked")
        while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE:
            time.sleep(0.01)
        os._exit(0)
    os.wait()
    while not Path(file).exists():
        time.sleep(0.05)


WAYS: dict[str, Callable[..., None]] = {"given": given, "splice": splice, "uring": uring, "reset": reset}

if __name__ == "__main__":
    WAYS[sys.argv[1]](*sys.argv[2:])
