"""What moves through sockets is seen whole, in both tiers, whichever system call moves it."""

from __future__ import annotations

import hashlib

import pytest

from capd.probes.capture import Capture
from capd.probes.layouts import Absence, DataEvent, EventKind, Role, SocketCloseEvent, SocketOpenEvent
from tests.probes.watching import Seen, started, watch
from tests.requirements import require_probes

SOCKET = EventKind.SOCKET_DATA
PAIR = """
    import hashlib, os, socket, sys, threading
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    peer = server.accept()[0]
    def read_all(connection, size):
        parts = []
        while size:
            part = connection.recv(min(size, 1 << 20))
            size -= len(part)
            parts.append(part)
        return b"".join(parts)
    def v2(name, descriptor, buffer):
        import ctypes, struct
        place = ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
        getattr(ctypes.CDLL(None), name)(descriptor, struct.pack("QQ", place, len(buffer)), 1, ctypes.c_long(-1), 0)
"""


def by_socket(seen: Seen, direction: int) -> dict[int, bytes]:
    """Join the payload of each socket's direction."""
    found: dict[int, bytes] = {}
    for event in seen.data(SOCKET, direction):
        found[event.socket] = found.get(event.socket, b"") + bytes(event.payload)
    return found


@pytest.mark.kernel
@pytest.mark.parametrize("size", [1, 13, 4096, 16384, 65537, 1_000_003, 8 << 20])
def test_one_send_of_any_size_arrives_byte_exact(capture: Capture, size: int) -> None:
    """From 1 byte to 8 MiB in one call: both ends, no byte missing, none changed."""
    seen = watch(
        capture,
        PAIR
        + """
    payload = os.urandom(int(sys.argv[1]))
    reader = threading.Thread(target=read_all, args=(peer, len(payload)))
    reader.start()
    client.sendall(payload)
    reader.join()
    print(hashlib.sha256(payload).hexdigest())
""",
        str(size),
    )
    sent, heard = by_socket(seen, 0), by_socket(seen, 1)
    digest = seen.output.decode().strip()
    assert [digest] == [hashlib.sha256(payload).hexdigest() for payload in sent.values()]
    assert [digest] == [hashlib.sha256(payload).hexdigest() for payload in heard.values()]
    assert 0 == seen.lost(SOCKET, 0) + seen.lost(SOCKET, 1)


CALLS = {
    "write and read": "os.write(a, b'one'); os.read(b, 9)",
    "writev and readv": "os.writev(a, [b'o', b'n', b'', b'e']); os.readv(b, [bytearray(1), bytearray(1), bytearray(9)])",
    "send and recv": "client.send(b'one'); peer.recv(9)",
    "sendmsg and recvmsg": "client.sendmsg([b'on', b'e']); peer.recvmsg(9)",
    "recvmsg_into": "client.send(b'one'); peer.recvmsg_into([bytearray(2), bytearray(9)])",
    "pwritev2 and preadv2": "v2('pwritev2', a, bytearray(b'one')); v2('preadv2', b, bytearray(9))",
    "peeking first": "client.send(b'one'); peer.recv(9, socket.MSG_PEEK); peer.recv(9)",
    "non-blocking": "peer.setblocking(False); client.send(b'one'); peer.recv(9)",
    "a duplicate": "d = os.dup(a); os.write(d, b'o'); os.close(d); os.write(a, b'ne'); os.read(b, 9)",
    "a closed original": "d = os.dup(a); client.close(); os.write(d, b'one'); os.read(b, 9); os.close(d)",
}


@pytest.mark.kernel
@pytest.mark.parametrize("calls", CALLS.values(), ids=list(CALLS))
def test_every_system_call_that_moves_bytes_is_seen(capture: Capture, calls: str) -> None:
    """The same bytes are recorded at both ends, once, whichever call moved them."""
    seen = watch(capture, PAIR + f"    a, b = client.fileno(), peer.fileno()\n    {calls}\n")
    sent, heard = by_socket(seen, 0), by_socket(seen, 1)
    assert [b"one"] == list(sent.values())
    assert [b"one"] == list(heard.values())


@pytest.mark.kernel
def test_a_call_with_1024_buffers_is_whole_or_has_a_told_end(capture: Capture) -> None:
    """Modern: all buffers of the longest vector. Classic: the first ones, and how many bytes are missing behind them."""
    seen = watch(
        capture, PAIR + "    os.writev(client.fileno(), [b'%d' % (i % 10) for i in range(1024)]); read_all(peer, 1024)\n"
    )
    expected = bytes(48 + number % 10 for number in range(1024))
    (sent,) = by_socket(seen, 0).values()
    assert expected[: len(sent)] == sent
    assert 1024 == len(sent) + seen.lost(SOCKET, 0)
    assert (1024 if capture.tier == "modern" else 79) <= len(sent)
    assert [Absence.TOO_LARGE] * (capture.tier == "classic") == [
        event.absence for event in seen.data(SOCKET, 0) if event.absence
    ]


@pytest.mark.kernel
def test_many_messages_in_one_call_are_told_one_by_one(capture: Capture) -> None:
    """With sendmmsg and recvmmsg each datagram has its own bytes."""
    seen = watch(
        capture,
        """
    import ctypes, socket
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    class Message(ctypes.Structure):
        _fields_ = [("name", ctypes.c_void_p), ("name_size", ctypes.c_uint), ("iov", ctypes.POINTER(Iovec)),
                    ("iovs", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
                    ("flags", ctypes.c_long), ("moved", ctypes.c_long)]
    libc = ctypes.CDLL(None, use_errno=True)
    a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0)); a.connect(b.getsockname())
    texts = [b"first", b"second one", b"3"]
    def messages(buffers):
        array = (Message * len(buffers))()
        for message, buffer in zip(array, buffers):
            message.iov, message.iovs = ctypes.pointer(Iovec(ctypes.addressof(buffer), len(buffer))), 1
        return array
    out = messages([ctypes.create_string_buffer(text, len(text)) for text in texts])
    assert 3 == libc.sendmmsg(a.fileno(), out, 3, 0)
    into = messages([ctypes.create_string_buffer(100) for _ in texts])
    assert 3 == libc.recvmmsg(b.fileno(), into, 3, 0, None)
""",
    )
    assert [b"first", b"second one", b"3"] == [bytes(event.payload) for event in seen.data(SOCKET, 0)]
    assert [b"first", b"second one", b"3"] == [bytes(event.payload) for event in seen.data(SOCKET, 1)]


@pytest.mark.kernel
def test_datagrams_carry_their_peer(capture: Capture) -> None:
    """On unconnected sockets each datagram says where it went or came from, IPv4 and IPv6; empty ones are told too."""
    seen = watch(
        capture,
        """
    import socket
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        a, b = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
        a.bind((host, 0)); b.bind((host, 0))
        a.sendto(b"ping", b.getsockname())
        b.recvfrom(99)
        print(family.value, a.getsockname()[1], b.getsockname()[1])
""",
    )
    expected_to, expected_from = [], []
    for line in seen.output.decode().splitlines():
        family, a, b = map(int, line.split())
        address = bytes([127, 0, 0, 1]) + bytes(12) if family == 2 else bytes(15) + b"\x01"
        expected_to.append((family, b, address))
        expected_from.append((family, a, address))
    assert expected_to == [event.peer for event in seen.data(SOCKET, 0)]
    assert expected_from == [event.peer for event in seen.data(SOCKET, 1)]


@pytest.mark.kernel
def test_bytes_that_the_agent_never_held_are_counted(capture: Capture) -> None:
    """For sendfile and splice there is the size and the reason, and the position goes on behind them."""
    seen = watch(
        capture,
        PAIR
        + """
    with open("/usr/bin/python3", "rb") as file:
        assert 5000 == os.sendfile(client.fileno(), file.fileno(), 0, 5000)
    client.send(b"after")
    r, w = os.pipe()
    moved = 0
    while moved < 5000:
        moved += os.splice(peer.fileno(), w, 5000 - moved)
        os.read(r, 65536)
    peer.recv(9)
""",
    )
    for direction in (0, 1):
        events = seen.data(SOCKET, direction)
        assert {Absence.KERNEL_COPY} == {event.absence for event in events[:-1]}
        assert 5000 == sum(event.length for event in events[:-1])
        assert (5000, b"after") == (events[-1].position, bytes(events[-1].payload))


@pytest.mark.kernel
def test_a_connection_is_told_from_connect_to_its_last_descriptor(capture: Capture) -> None:
    """Open says who opened and where to; close says that probes and TCP counted the same bytes; both ends of it."""
    seen = watch(
        capture,
        PAIR
        + """
    client.sendall(b"a" * 70000)
    read_all(peer, 70000)
    peer.sendall(b"b" * 300)
    read_all(client, 300)
    client.shutdown(socket.SHUT_WR)
    assert b"" == peer.recv(1)
    peer.close()
    assert b"" == client.recv(1)
    client.close()
    print(server.getsockname()[1])
""",
    )
    port = int(seen.output)
    opened = [event for event in seen.of(SocketOpenEvent) if event.peer[0] == port]
    assert {(Role.CLIENT, 0)} == {(event.role, event.mid_stream) for event in opened}
    accepted = [event for event in seen.of(SocketOpenEvent) if event.local[0] == port]
    assert [(Role.SERVER, 0)] == [(event.role, event.mid_stream) for event in accepted]
    closed = {event.socket: (event.position, event.kernel) for event in seen.of(SocketCloseEvent)}
    assert ((70000, 300), (70000, 300)) == closed[opened[0].socket]
    assert ((300, 70000), (300, 70000)) == closed[accepted[0].socket]


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["SHUT_WR", "SHUT_RDWR"])
def test_shutdown_after_the_peers_end_leaves_the_rest_to_read(capture: Capture, how: str) -> None:
    """What the peer sent before it ended is still read after shutdown(): one connection, told once, whole."""
    seen = watch(
        capture,
        PAIR
        + f"""
    import select
    peer.sendall(b"b" * 300)
    peer.close()
    ended = select.poll()
    ended.register(client, select.POLLRDHUP)
    assert ended.poll(5000)
    client.shutdown(socket.{how})
    read_all(client, 300)
    assert b"" == client.recv(1)
    client.close()
    print(server.getsockname()[1])
""",
    )
    port = int(seen.output)
    opened = {(event.socket, event.mid_stream) for event in seen.of(SocketOpenEvent) if event.peer[0] == port}
    assert 1 == len(opened)
    ((socket, mid_stream),) = opened
    closed = [(event.position, event.kernel) for event in seen.of(SocketCloseEvent) if event.socket == socket]
    assert (0, [((0, 300), (0, 300))]) == (mid_stream, closed)


@pytest.mark.kernel
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os.dup2(0, a)", "os.closerange(a, a + 1)"])
def test_a_connection_without_close_has_an_end(capture: Capture, end: str) -> None:
    """Killed with unread data, or its descriptor taken by another: the end is told with TCP's count."""
    calls = f"a = client.fileno(); peer.sendall(b'unread'); client.recv(2); print(server.getsockname()[1], flush=True); {end}"
    seen = watch(capture, f"    import os\n    if os.fork():\n        os._exit(os.wait()[1] & 0)\n{PAIR}    {calls}\n")
    (client,) = {event.socket for event in seen.of(SocketOpenEvent) if event.peer[0] == int(seen.output)}
    closed = [(event.position, event.kernel) for event in seen.of(SocketCloseEvent) if event.socket == client]
    assert [((0, 2), (0, 2))] == closed


@pytest.mark.kernel
def test_reading_into_no_room_is_no_end(capture: Capture) -> None:
    """A read of 0 bytes gives 0, and the peer goes on: no end of the stream is told before its bytes."""
    seen = watch(capture, PAIR + "    os.read(client.fileno(), 0); peer.send(b'one'); client.recv(9)\n")
    assert [3] == [event.length for event in seen.data(SOCKET, 1)]


URING = """
    import ctypes, mmap, struct, time
    libc = ctypes.CDLL(None)
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, parameters)
    if ring < 0:
        print("refused"); raise SystemExit
    numbers = struct.unpack("30I", parameters.raw)
    tail, mask, array = numbers[11], numbers[12], numbers[16]
    indices, entries = mmap.mmap(ring, array + 16), mmap.mmap(ring, 256, offset=0x10000000)
    def submit(operation, descriptor, buffer, size):
        entries[:64] = struct.pack("<BBHiQQIIQ24x", operation, 0, 0, descriptor, 0, ctypes.addressof(buffer), size, 0, 1)
        at = struct.unpack_from("I", indices, tail)[0]
        struct.pack_into("I", indices, array + 4 * (at & struct.unpack_from("I", indices, mask)[0]), 0)
        struct.pack_into("I", indices, tail, at + 1)
        assert 1 == libc.syscall(426, ring, 1, 0, 0, None, 0)
"""


@pytest.mark.kernel
def test_what_io_uring_receives_is_never_taken_from_another_call(capture: Capture) -> None:
    """A receive that had to wait ends within the next system call, whatever that is: its bytes are missing, not that call's."""
    seen = watch(
        capture,
        PAIR
        + URING
        + """
    buffer = ctypes.create_string_buffer(64)
    submit(27, client.fileno(), buffer, 64)
    peer.send(b"heard")
    null, until = os.open("/dev/null", os.O_WRONLY), time.monotonic() + 60
    while buffer.raw[:5] != b"heard" and time.monotonic() < until:
        os.write(null, b"something else entirely")
    assert buffer.raw[:5] == b"heard"
    peer.send(b"more"); client.recv(9); client.close()
""",
    )
    if seen.output == b"refused\n":
        pytest.skip("io_uring is switched off")
    assert [b"more"] == [bytes(event.payload) for event in seen.data(SOCKET, 1) if event.captured]
    told = {Absence.URING: 5} if capture.tier == "modern" else {}
    assert told == {event.absence: event.length for event in seen.data(SOCKET, 1) if event.absence}
    assert ((9 - 5 * (capture.tier == "classic"), 9)) in [
        (event.position[1], event.kernel[1]) for event in seen.of(SocketCloseEvent) if event.kernel
    ]


@pytest.mark.kernel
def test_a_refused_connection_is_told(capture: Capture) -> None:
    """Nobody listens: the attempt and its end are there, without bytes."""
    seen = watch(
        capture,
        """
    import socket
    free = socket.create_server(("127.0.0.1", 0)); port = free.getsockname()[1]; free.close()
    try:
        socket.create_connection(("127.0.0.1", port))
    except ConnectionRefusedError:
        print(port)
""",
    )
    port = int(seen.output)
    opened = [event.socket for event in seen.of(SocketOpenEvent) if event.peer[0] == port]
    assert opened
    assert [((0, 0), None)] == [(event.position, event.kernel) for event in seen.of(SocketCloseEvent) if event.socket in opened]


@pytest.mark.kernel
def test_unix_sockets_say_whom_they_reach(capture: Capture) -> None:
    """A client of a unix socket is seen with the path that it connected to, an abstract name with its NUL byte."""
    seen = watch(
        capture,
        """
    import os, socket, tempfile
    for name in (os.path.join(tempfile.mkdtemp(), "sock"), "\\0capd-test-" + str(os.getpid())):
        server = socket.socket(socket.AF_UNIX); server.bind(name); server.listen()
        client = socket.socket(socket.AF_UNIX); client.connect(name)
        peer = server.accept()[0]
        client.send(b"hello"); peer.recv(9)
        print(name.replace("\\0", "@"))
        if name[0] != "\\0":
            os.unlink(name); os.rmdir(os.path.dirname(name))
""",
    )
    names = [line.replace("@", "\0").encode() for line in seen.output.decode().splitlines()]
    clients = [event for event in seen.of(SocketOpenEvent) if event.role == Role.CLIENT]
    assert names == [event.path for event in clients]


@pytest.mark.kernel
def test_a_descriptor_passed_to_another_process_keeps_its_socket(capture: Capture) -> None:
    """SCM_RIGHTS, fork and dup: the same id, the position goes on."""
    seen = watch(
        capture,
        PAIR
        + """
    client.send(b"parent ")
    a, b = socket.socketpair()
    if os.fork() == 0:
        (passed,) = socket.recv_fds(b, 1, 1)[1]
        os.write(passed, b"passed ")
        client.send(b"inherited")
        os._exit(0)
    socket.send_fds(a, [b"x"], [client.fileno()])
    os.wait()
    read_all(peer, 23)
""",
    )
    streams = by_socket(seen, 0)
    assert b"parent passed inherited" in streams.values()
    whole = next(socket for socket, payload in streams.items() if payload.startswith(b"parent"))
    pids = {
        header.pid
        for header, body in seen.events
        if isinstance(body, DataEvent) and body.socket == whole and not body.direction
    }
    assert 2 == len(pids)


@pytest.mark.kernel
@pytest.mark.parametrize("tier", ["modern", "classic"])
def test_a_full_ring_loses_nothing_unseen(tier: str) -> None:
    """Into a ring of 64 KiB that nobody reads go 3 MB: what is missing is in positions, a counter and that socket's loss."""
    require_probes()
    with started(tier, data_ring_bytes=64 << 10) as capture:
        seen = watch(
            capture,
            PAIR
            + """
    for _ in range(3000):
        client.sendall(b"f" * 1000)
        read_all(peer, 1000)
    print(client.getsockname()[1])
""",
            drain=False,
        )
        port = int(seen.output)
        socket_id = next(event.socket for event in seen.of(SocketOpenEvent) if event.local[0] == port)
        told = sum(len(event.payload) for event in seen.data(SOCKET, 0) if event.socket == socket_id)
        losses = {(loss.stream, loss.direction): loss.amount for loss in capture.losses()}
        counters = capture.counters()
        closed = next(event for event in seen.of(SocketCloseEvent) if event.socket == socket_id)
    assert 3_000_000 == closed.position[0]
    assert 3_000_000 == told + losses[socket_id, 0]
    assert 0 < told < 64 << 10
    assert counters["ring_full_bytes"] == sum(losses.values())
    assert 0 == counters["control_lost"]


@pytest.mark.kernel
def test_a_buffer_that_cannot_be_read_is_a_gap_and_not_zeros(capture: Capture) -> None:
    """A thread unmaps the buffer while the send is under way: the bytes count as lost, exactly."""
    seen = watch(
        capture,
        PAIR
        + """
    import ctypes, mmap, time
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size = 4 << 20
    address = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    ctypes.memset(address, 65, size)
    def later():
        while "wait_woken" not in open(f"/proc/self/task/{os.getpid()}/wchan").read():  # the send waits for room
            time.sleep(0.01)
        libc.munmap(ctypes.c_void_p(address + (1 << 20)), ctypes.c_size_t(size - (1 << 20)))
        while read_all_once():
            pass
    def read_all_once():
        return len(peer.recv(1 << 20))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    reader = threading.Thread(target=later)
    reader.start()
    libc.send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    sent = libc.send(client.fileno(), address, size, 0)
    print(sent)
    client.close()
    reader.join()
""",
    )
    sent = int(seen.output)
    events = seen.data(SOCKET, 0)
    assert sent == sum(event.length for event in events)
    assert {b"A"} == {bytes([byte]) for event in events for byte in set(bytes(event.payload))}
    assert all(event.captured == event.length or event.absence == Absence.FAULT for event in events)
    assert any(event.absence == Absence.FAULT for event in events)
