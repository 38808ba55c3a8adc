"""Ways to hear, or to say, something else than the calls on a socket seem to: they are told."""

from __future__ import annotations

import pytest

from capd.probes.capture import Capture
from capd.probes.layouts import Absence, SocketCloseEvent
from tests.probes.test_sockets import PAIR, SOCKET, URING
from tests.probes.watching import watch

LOOKS = {
    "TCP": ("client.send(b'secret'); peer.recv(9, socket.MSG_PEEK); peer.recv(9, socket.MSG_PEEK)", [(0, 6)], 0),
    "further": (
        "client.send(b'secret'); peer.recv(2); peer.recv(1, socket.MSG_PEEK); peer.recv(2, socket.MSG_PEEK)",
        [(2, 1), (2, 2)],
        0,
    ),
    "an offset": (
        "a.send(b'secret'); b.setsockopt(1, 42, 0); b.recv(2, socket.MSG_PEEK); b.recv(2, socket.MSG_PEEK)",
        [(0, 2), (0, 4)],
        0,
    ),
    "a message": ("c.send(b'secret'); d.recv(9, socket.MSG_PEEK); d.recv(9)", [(0, 6)], 0),
    "a part of one": ("c.send(b'secret'); c.send(b'more'); d.recv(9, socket.MSG_PEEK); d.recv(2); d.recv(9)", [(0, 6)], 4),
}
"""System calls; what is told of looks: from where, how much; bytes of a message that nobody took."""


@pytest.mark.kernel
@pytest.mark.parametrize(("calls", "told", "left"), LOOKS.values(), ids=list(LOOKS))
def test_what_is_looked_at_is_told(capture: Capture, calls: str, told: list[tuple[int, int]], left: int) -> None:
    """Who looks at bytes and leaves them where they are has heard them: up to where is told, and of a message what was left."""
    before = sum(loss.amount for loss in capture.losses() if loss.cause == Absence.PEEKED)
    pairs = "    a, b = socket.socketpair(); c, d = socket.socketpair(type=socket.SOCK_DGRAM)\n"
    seen = watch(capture, PAIR + pairs + f"    {calls}\n    for each in (a, b, c, d, client, peer): each.close()\n")
    looks = [event for event in seen.data(SOCKET, 1) if event.absence == Absence.PEEKED]
    assert told == [(event.position, event.length) for event in looks]
    assert before + left == sum(loss.amount for loss in capture.losses() if loss.cause == Absence.PEEKED)
    (end,) = [end for end in seen.of(SocketCloseEvent) if end.socket == looks[0].socket]
    assert end.position[1] >= told[-1][0] + told[-1][1] - left


LINKED = """
    a, b = (client, peer) if sys.argv[1] == "tcp" else socket.socketpair()
    secret = ctypes.create_string_buffer(b"secret", 6)
    entries[:128] = (struct.pack("<BBHiQQIIQ24x", 6, 4, 0, b.fileno(), 0, 0, 0, 1, 1)
                     + struct.pack("<BBHiQQIIQ24x", 26, 0, 0, a.fileno(), 0, ctypes.addressof(secret), 6, 0, 2))
    struct.pack_into("II", indices, array, 0, 1)
    struct.pack_into("I", indices, tail, 2)
    assert 2 == libc.syscall(426, ring, 2, 0, 0, None, 0)
    os.write(a.fileno(), b"public")
    assert b"publicsecret" == read_all(b, 12)
    a.close()
"""
"""A poll of one end, then a send on the other: what is written there wakes the first, and does the second on its way back."""


@pytest.mark.kernel
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_what_io_uring_sends_is_never_taken_from_a_call_on_the_same_socket(capture: Capture, family: str) -> None:
    """A send that had to wait is done at the end of a write on its own socket: it is missing, not what was written again."""
    seen = watch(capture, PAIR + URING + LINKED, family)
    if seen.output == b"refused\n":
        pytest.skip("io_uring is switched off")
    assert [b"public"] == [bytes(event.payload) for event in seen.data(SOCKET, 0) if event.captured]
    missing = [event.absence for event in seen.data(SOCKET, 0) if event.absence]
    assert [Absence.URING] * (capture.tier == "modern") == missing


@pytest.mark.kernel
def test_a_socket_that_is_taken_for_another_connection(capture: Capture) -> None:
    """TCP counts anew for the second one; what no probe saw of the first is a loss by then."""
    before = sum(loss.amount for loss in capture.losses() if loss.cause == Absence.UNKNOWN_CALL)
    source = """
    secret = ctypes.create_string_buffer(b"secret", 6)
    submit(26, client.fileno(), secret, 6)
    assert b"secret" == peer.recv(9)
    assert 0 == libc.connect(client.fileno(), bytes(16), 16)
    client.connect(server.getsockname())
    client.close()
"""
    seen = watch(capture, PAIR + URING + source)
    if seen.output == b"refused\n":
        pytest.skip("io_uring is switched off")
    lost = sum(loss.amount for loss in capture.losses() if loss.cause == Absence.UNKNOWN_CALL) - before
    told = sum(event.length for event in seen.data(SOCKET, 0) if event.absence == Absence.URING)
    assert {"modern": (0, 6), "classic": (6, 0)}[capture.tier] == (lost, told)


@pytest.mark.kernel
def test_what_is_written_before_the_connection_stands_is_counted(capture: Capture) -> None:
    """With Fast Open the first bytes are there before it does, and leave no room for as many that no probe sees."""
    source = """
    import socket
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setsockopt(socket.IPPROTO_TCP, 34, 1)
    client.sendto(b"early", socket.MSG_FASTOPEN, server.getsockname())
    peer = server.accept()[0]
    client.send(b"late")
    while len(peer.recv(9, socket.MSG_PEEK)) < 9: pass
    client.close()
"""
    seen = watch(capture, source)
    assert (9, 9) in [(end.position[0], (end.kernel or (0, 0))[0]) for end in seen.of(SocketCloseEvent)]
