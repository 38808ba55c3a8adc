"""Which sockets a run made itself, and how each one's end is seen: what a verdict of `complete` rests on."""

from __future__ import annotations

import socket
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capd.probes.capture import Capture
from capd.probes.layouts import Absence, DataEvent, EventKind, MidStream, SocketCloseEvent, SocketOpenEvent, UringUsedEvent
from tests.probes.test_sockets import URING
from tests.probes.watching import PYTHON, RUN, Seen, take, watch

SOCKET = EventKind.SOCKET_DATA
SAY = """
    import os, socket, sys
    def say(connection):
        connection.send(b"said")
        print(os.fstat(connection.fileno()).st_ino)
"""


def told(seen: Seen) -> list[int]:
    """Give the `mid_stream` of each socket that spoke, in the order in which they first did."""
    spoke = dict.fromkeys(body.socket for _, body in seen.events if isinstance(body, DataEvent) and not body.direction)
    opened = {event.socket: event.mid_stream for event in seen.of(SocketOpenEvent)}
    return [opened[number] for number in spoke]


MADE = {
    "unix pair": "pair = socket.socketpair(); say(pair[0])",
    "unix pair of datagrams": "pair = socket.socketpair(type=socket.SOCK_DGRAM); say(pair[0])",
    "unix pair of packets, its second end": "a, b = socket.socketpair(type=socket.SOCK_SEQPACKET); say(b)",
    "udp": "u = socket.socket(type=socket.SOCK_DGRAM); u.connect(('127.0.0.1', 9)); say(u)",
    "udp over IPv6": "u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.connect(('::1', 9)); say(u)",
    "inherited by a child": """
    a, b = socket.socketpair()
    if os.fork() == 0:
        say(a)
        os._exit(0)
    os.wait()
""",
    "passed between processes of the run": """
    a, b = socket.socketpair()
    u = socket.socket(type=socket.SOCK_DGRAM)
    u.connect(("127.0.0.1", 9))
    if os.fork() == 0:
        u.close()
        (got,) = socket.recv_fds(b, 1, 1)[1]
        say(socket.socket(fileno=got))
        os._exit(0)
    socket.send_fds(a, [b"x"], [u.fileno()])
    os.wait()
""",
}


@pytest.mark.kernel
@pytest.mark.parametrize("how", MADE.values(), ids=list(MADE))
def test_a_socket_that_the_run_made_has_no_past(capture: Capture, how: str) -> None:
    """A unix or UDP socket that a process of the run made cannot have spoken before."""
    assert {MidStream.NO} == set(told(watch(capture, f"{SAY}    {how.strip()}\n")))


@contextmanager
def outside(kind: str, path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a socket that this process, which is in no run, made, and one to keep open beside it."""
    if kind == "unix":
        made = socket.socketpair()
    elif kind == "packets":
        made = socket.socketpair(type=socket.SOCK_SEQPACKET)
    elif kind == "udp":
        made = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        made[1].bind(("127.0.0.1", 0))
        made[0].connect(made[1].getsockname())
    else:
        made = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        made[0].bind(str(path / "listener"))
        made[0].listen()
        made[1].connect(str(path / "listener"))
    with made[0], made[1]:
        yield made


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["unix", "packets", "udp"])
@pytest.mark.parametrize("way", ["inherited", "passed"])
def test_a_socket_from_outside_may_have_a_past(capture: Capture, tmp_path: Path, kind: str, way: str) -> None:
    """What came into the run, by inheritance or through a unix socket, is told as one that may have spoken before."""
    with outside(kind, tmp_path) as (given, _):
        given.send(b"before")
        if way == "inherited":
            seen = watch(
                capture,
                SAY + "    say(socket.socket(fileno=int(sys.argv[1])))\n",
                str(given.fileno()),
                inherited=(given.fileno(),),
            )
        else:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                socket.send_fds(ours, [b"x"], [given.fileno()])
                source = "    (got,) = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)[1]\n"
                source += "    say(socket.socket(fileno=got))\n"
                seen = watch(capture, SAY + source, str(theirs.fileno()), inherited=(theirs.fileno(),))
    assert [MidStream.FOREIGN] == told(seen)


@pytest.mark.kernel
def test_what_is_accepted_from_a_listener_made_outside_is_made_inside(capture: Capture, tmp_path: Path) -> None:
    """A supervisor makes the listener and a peer connects before the run begins; the accepted socket has no past."""
    with outside("listener", tmp_path) as (listener, _):
        source = SAY + "    say(socket.socket(fileno=int(sys.argv[1])).accept()[0])\n"
        seen = watch(capture, source, str(listener.fileno()), inherited=(listener.fileno(),))
    assert [MidStream.NO] == told(seen)


@pytest.mark.kernel
def test_sockets_of_a_process_that_is_selected_later(capture: Capture) -> None:
    """Those that it made before are told as having a past; those that it makes afterwards are not."""
    source = textwrap.dedent(SAY) + textwrap.dedent("""
        old, new = socket.socketpair(), None
        print("made", flush=True)
        input()
        say(old[0])
        new = socket.socketpair()
        say(new[0])
    """)
    seen = Seen()
    take(capture, Seen())
    with subprocess.Popen([PYTHON, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"made\n" == process.stdout.readline()
        capture.select_process(process.pid, RUN)
        process.stdin.write(b"\n")
        process.stdin.close()
        assert 0 == process.wait(180)
    take(capture, seen)
    assert [MidStream.FOREIGN, MidStream.NO] == told(seen)


RESET = "peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); peer.close()"
ENDED = {
    "reset by the peer": RESET,
    "it ended first": "peer.recv(3); client.shutdown(1); peer.recv(1); peer.close(); client.recv(1)",
    "the peer ended first": "peer.recv(3); peer.shutdown(1); client.recv(1); client.shutdown(1); peer.recv(1); peer.close()",
}


@pytest.mark.kernel
@pytest.mark.parametrize("how", ENDED.values(), ids=list(ENDED))
def test_a_connection_that_was_over_before_its_process_ended_has_an_end(capture: Capture, how: str) -> None:
    """Nobody calls close(): the end comes with the process, once, and TCP counted what the probes counted."""
    seen = watch(
        capture,
        f"""
    import os, signal, socket, struct, sys, time
    server = socket.create_server(("127.0.0.1", 0))
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        client = socket.create_connection(server.getsockname())
        peer = server.accept()[0]
        client.send(b'abc'); {how}
        deadline = time.monotonic() + 60
        while client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\\x07" and time.monotonic() < deadline:
            time.sleep(0.01)
        print(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    print(server.getsockname()[1])
""",
    )
    state, port = map(int, seen.output.split())
    assert 7 == state  # TCP_CLOSE
    (client,) = {event.socket for event in seen.of(SocketOpenEvent) if event.peer[0] == port}
    closed = [(event.position, event.kernel) for event in seen.of(SocketCloseEvent) if event.socket == client]
    assert [((3, 0), (3, 0))] == closed


@pytest.mark.kernel
@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_io_uring_on_a_socket_that_nobody_counts_on_is_told(capture: Capture, family: str) -> None:
    """Modern: its bytes are counted, with the reason. Classic: who uses io_uring is told, once, before the socket's end."""
    pair = "a, b = socket.socketpair()"
    if family == "AF_INET":
        pair = "a, b = socket.socket(type=2), socket.socket(type=2); b.bind(('127.0.0.1', 0)); a.connect(b.getsockname())"
    seen = watch(
        capture,
        URING
        + f"""
    import os, socket
    {pair}
    submit(26, a.fileno(), ctypes.create_string_buffer(b"by the ring"), 11)
    submit(26, a.fileno(), ctypes.create_string_buffer(b"by the ring"), 11)
    assert b.recv(11) == b.recv(11) == b"by the ring"
    os.write(a.fileno(), b"by a call")
""",
    )
    if seen.output == b"refused\n":
        pytest.skip("io_uring is switched off")
    sent = [(event.position, event.length, event.absence, bytes(event.payload)) for event in seen.data(SOCKET, 0)]
    if capture.tier == "modern":
        told = [(0, 11, Absence.URING, b""), (11, 11, Absence.URING, b""), (22, 9, Absence.NONE, b"by a call")]
        assert (told, []) == (sent, seen.of(UringUsedEvent))
    else:
        assert ([(0, 9, Absence.NONE, b"by a call")], [UringUsedEvent()]) == (sent, seen.of(UringUsedEvent))


VMSPLICE = """
    import ctypes, os, socket, struct
    libc = ctypes.CDLL(None)
    r, w = os.pipe()
    def vmsplice(text):
        buffer = ctypes.create_string_buffer(text, len(text))
        assert len(text) == libc.vmsplice(w, struct.pack("QQ", ctypes.addressof(buffer), len(text)), 1, 0)
        return buffer
    def udp():
        a, b = socket.socket(type=2), socket.socket(type=2)
        b.bind(("127.0.0.1", 0)); a.connect(b.getsockname())
        return a, b
    def tcp():
        server = socket.create_server(("127.0.0.1", 0))
        return socket.create_connection(server.getsockname()), server.accept()[0]
    kinds = {"tcp": tcp, "unix": socket.socketpair, "packets": lambda: socket.socketpair(type=5), "udp": udp}
"""


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["tcp", "unix", "packets", "udp"])
def test_what_is_spliced_is_counted_once(capture: Capture, kind: str) -> None:
    """By vmsplice and splice into a socket and by splice out of it, of any kind: each byte once, as never held by the agent."""
    seen = watch(
        capture,
        VMSPLICE
        + f"""
    a, b = kinds["{kind}"]()
    kept = vmsplice(b"s" * 3000)
    assert 3000 == os.splice(r, a.fileno(), 3000)
    assert 3000 == os.splice(b.fileno(), w, 3000)
    assert b"s" * 3000 == os.read(r, 9000)
    a.send(b"after")
    b.recv(9)
""",
    )
    for direction in (0, 1):
        told = [(event.position, event.length, event.absence) for event in seen.data(SOCKET, direction)]
        assert [(0, 3000, Absence.KERNEL_COPY), (3000, 5, Absence.NONE)] == told
