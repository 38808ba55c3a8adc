"""What is said inside TLS is seen in clear, whole, and tied to its socket."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from capd.probes.capture import Capture
from capd.probes.layouts import Absence, EventKind, Library, SocketCloseEvent, Tie, TlsCloseEvent, TlsOpenEvent
from tests.probes.watching import Seen, watch, watch_command
from tests.requirements import require, require_command

TLS = EventKind.TLS_DATA
SOCKET = EventKind.SOCKET_DATA

SERVER = """
    import hashlib, os, socket, ssl, sys, threading
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    size = int(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    def exactly(stream, count):
        parts = []
        while count:
            part = stream.recv(min(count, 1 << 16))
            if not part:
                break
            count -= len(part)
            parts.append(part)
        return b"".join(parts)
    # In a process of its own, so that the client's is told from it.
    server = os.fork()
    if server == 0:
        for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 1):
            stream = context.wrap_socket(listener.accept()[0], server_side=True)
            said = exactly(stream, size)
            stream.sendall(hashlib.sha256(said).digest() + said[::-1])
            stream.close()
        os._exit(0)
    trust = ssl.create_default_context(cafile=sys.argv[1])
"""
BLOCKING = """
    stream = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    payload = os.urandom(size)
    stream.sendall(payload)
    reply = exactly(stream, size + 32)
    print(os.getpid(), hashlib.sha256(payload).hexdigest(), hashlib.sha256(reply).hexdigest())
    os.waitpid(server, 0)
"""
ASYNC = """
    import asyncio
    async def talk():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
        payload = os.urandom(size)
        writer.write(payload)
        await writer.drain()
        reply = await reader.readexactly(size + 32)
        print(os.getpid(), hashlib.sha256(payload).hexdigest(), hashlib.sha256(reply).hexdigest())
        writer.close()
    asyncio.run(talk())
    os.waitpid(server, 0)
"""
NON_BLOCKING = """
    import select
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setblocking(False)
    stream = trust.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
    def wait(step, *arguments):
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                select.select([stream], [], [], 5)
            except ssl.SSLWantWriteError:
                select.select([], [stream], [], 5)
    wait(stream.do_handshake)
    payload = os.urandom(size)
    rest = memoryview(payload)
    while rest:
        rest = rest[wait(stream.send, rest):]
    parts = []
    while sum(map(len, parts)) < size + 32:
        parts.append(wait(stream.recv, 1 << 16))
    reply = b"".join(parts)
    print(os.getpid(), hashlib.sha256(payload).hexdigest(), hashlib.sha256(reply).hexdigest())
    stream.close()
    os.waitpid(server, 0)
"""


@pytest.mark.kernel
@pytest.mark.parametrize("size", [1, 16384, 1_000_000, 8 << 20])
@pytest.mark.parametrize(
    ("client", "tie"),
    [(BLOCKING, Tie.NESTED), (NON_BLOCKING, Tie.NESTED), (ASYNC, Tie.CIPHERTEXT)],
    ids=["blocking", "non-blocking", "asyncio"],
)
def test_plaintext_is_exact_and_tied(capture: Capture, certificate: str, client: str, tie: Tie, size: int) -> None:
    """Both directions byte for byte, with the socket and how sure it is, for each way to drive the library."""
    seen = watch(capture, SERVER + client, certificate, str(size))
    pid_text, said, heard = seen.output.decode().split()
    mine = [body for header, body in seen.events if header.pid == int(pid_text) and header.kind == TLS]
    seen.events = [(header, body) for header, body in seen.events if header.pid == int(pid_text)]
    assert said == hashlib.sha256(seen.payload(TLS, 0)).hexdigest()
    assert heard == hashlib.sha256(seen.payload(TLS, 1)).hexdigest()
    assert mine
    ties = seen.of(TlsOpenEvent)
    assert [(tie, Library.OPENSSL)] == [(event.tie, event.library) for event in ties]
    assert ties[0].socket in {event.socket for event in seen.data(SOCKET, 0)}
    assert {ties[0].stream} == {event.stream for direction in (0, 1) for event in seen.data(TLS, direction)}


@pytest.mark.kernel
def test_ciphertext_of_a_tied_stream_is_not_carried_twice(capture: Capture, certificate: str) -> None:
    """Inside the library's calls the socket's bytes are counted and left out."""
    seen = watch(capture, SERVER + BLOCKING, certificate, "1000000")
    pid = int(seen.output.split()[0])
    seen.events = [(header, body) for header, body in seen.events if header.pid == pid]
    left_out = [event for event in seen.data(SOCKET, 0) if event.absence == Absence.CIPHERTEXT]
    assert 1_000_000 < sum(event.length for event in left_out) < 1_010_000
    assert 0 == sum(event.captured for event in left_out)


def counted(seen: Seen) -> list[tuple[int, int]]:
    """Give, for each socket that was closed, the bytes that events tell as sent, and how many there were."""
    sent = seen.data(SOCKET, 0)
    return [
        (sum(event.length for event in sent if event.socket == close.socket), close.position[0])
        for close in seen.of(SocketCloseEvent)
    ]


@pytest.mark.kernel
def test_a_write_is_one_record(capture: Capture, certificate: str) -> None:
    """The call's ciphertext is told beside its plaintext, and no byte of the socket is left out or told twice."""
    client = """
    stream = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    for at in range(10):
        stream.sendall(b"x" * 100)
    exactly(stream, size + 32)
    stream.close()
    print(os.getpid())
    os.waitpid(server, 0)
"""
    seen = watch(capture, SERVER + client, certificate, "1000")
    seen.events = [(header, body) for header, body in seen.events if header.pid == int(seen.output)]
    said = seen.data(TLS, 0)
    assert [100] * 10 == [event.captured for event in said]
    assert all(event.wire is not None for event in said[1:]), "the first one may show that the socket carries TLS"
    left_out = [event for event in seen.data(SOCKET, 0) if event.absence == Absence.CIPHERTEXT]
    assert [(event.position, event.length) for event in left_out][1:10] == [event.wire for event in said[1:]]
    positions = [(event.position, event.length) for event in seen.data(SOCKET, 0)]
    assert [at for at, _ in positions[1:]] == [at + size for at, size in positions[:-1]]
    assert counted(seen)
    assert all(told == moved for told, moved in counted(seen))


@pytest.mark.kernel
def test_what_a_write_sent_that_never_came_back_is_told(capture: Capture, certificate: str) -> None:
    """A process is killed within the call: its ciphertext is on the wire, and no plaintext stands for it."""
    client = """
    import signal, time
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    stream = trust.wrap_socket(raw, server_hostname="localhost")
    os.kill(server, signal.SIGSTOP)  # reads nothing more
    child = os.fork()
    if child == 0:
        stream.sendall(bytes(32 << 20))
    for _ in range(100):  # asleep in the call, because the peer takes no more
        time.sleep(0.1)
        if open(f"/proc/{child}/wchan").read() not in ("", "0"):
            break
    time.sleep(0.3)
    os.close(stream.detach())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    print(child)
"""
    seen = watch(capture, SERVER + client, certificate, "1000000")
    child = int(seen.output)
    seen.events = [(header, body) for header, body in seen.events if header.pid == child or isinstance(body, SocketCloseEvent)]
    assert not seen.data(TLS, 0)
    left_out = [event for event in seen.data(SOCKET, 0) if event.absence == Absence.CIPHERTEXT]
    assert 2 >= len(left_out)
    assert sum(event.length for event in left_out) > 1 << 16
    close = next(body for body in seen.of(SocketCloseEvent) if body.socket == left_out[0].socket)
    assert left_out[-1].position + left_out[-1].length == close.position[0]


@pytest.mark.kernel
def test_a_stream_freed_and_its_pointer_used_again_are_two_streams(capture: Capture, certificate: str) -> None:
    """The library gives the same address to the next connection: other id, other socket, positions from 0."""
    client = """
    pointers = set()
    for _ in range(5):
        stream = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        stream.sendall(b"0123456789")
        exactly(stream, 42)
        stream.close()
        del stream
    print(os.getpid())
    os.waitpid(server, 0)
"""
    seen = watch(capture, SERVER + client, certificate, "10", "5")
    seen.events = [(header, body) for header, body in seen.events if header.pid == int(seen.output)]
    opened = seen.of(TlsOpenEvent)
    assert 5 == len({event.stream for event in opened}) == len({event.socket for event in opened})
    assert len({event.pointer for event in opened}) < 5, "no pointer was used again, the test shows nothing"
    assert [0] * 5 == [event.position for event in seen.data(TLS, 0)]
    assert [(10, 42)] * 5 == [event.position for event in seen.of(TlsCloseEvent)]


@pytest.mark.kernel
def test_a_connection_used_by_a_forked_child_stays_on_its_socket(capture: Capture, certificate: str) -> None:
    """The child goes on with the parent's TLS connection: another stream of the library, the same socket."""
    client = """
    stream = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    stream.sendall(b"01234")
    if os.fork() == 0:
        stream.sendall(b"56789")
        exactly(stream, 42)
        os._exit(0)
    os.wait(); os.wait()
"""
    seen = watch(capture, SERVER + client, certificate, "10")
    said = [event for event in seen.data(TLS, 0) if bytes(event.payload) in (b"01234", b"56789")]
    assert [b"01234", b"56789"] == [bytes(event.payload) for event in said]
    assert 2 == len({event.stream for event in said})
    assert 1 == len({event.socket for event in said})
    assert {Tie.NESTED} == {Tie(event.tie) for event in said}


@pytest.mark.kernel
def test_gnutls_is_seen(capture: Capture, certificate: str, tmp_path: Path) -> None:
    """wget, which uses GnuTLS: its request in clear, and the body that it wrote to the disk."""
    require_command("wget", "openssl")
    body = b"x" * 100_000
    (tmp_path / "file").write_bytes(body)
    server = subprocess.Popen(
        ["openssl", "s_server", "-cert", certificate, "-accept", "127.0.0.1:18743", "-WWW", "-quiet", "-naccept", "1"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        command = f"for i in 1 2 3 4 5 6 7 8 9; do wget -q -T 5 -t 1 --ca-certificate={certificate} -O got https://localhost:18743/file"
        seen = watch_command(capture, ["sh", "-c", f"cd {tmp_path}; {command} && exit 0; sleep 0.2; done; exit 1"])
    finally:
        server.terminate()
        server.wait()
    assert body == (tmp_path / "got").read_bytes()
    assert seen.payload(TLS, 0).startswith(b"GET /file HTTP/1.1\r\n")
    assert seen.payload(TLS, 1).endswith(b"\r\n\r\n" + body)
    assert {Library.GNUTLS} == {event.library for event in seen.of(TlsOpenEvent)}


CALLED = """
    import ctypes, socket, ssl, sys, threading
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0))
    def serve():
        with context.wrap_socket(listener.accept()[0], server_side=True) as answers:
            heard = answers.recv(100)
            answers.sendall(b"answer")
            assert answers.recv(100) == b"", heard
            print(heard.decode())
    server = threading.Thread(target=serve)
    server.start()
    connection = socket.create_connection(listener.getsockname())
    text = ctypes.create_string_buffer(100)
    def pointer(library, name, *arguments):
        function = getattr(library, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*arguments))
"""
LOOKED = (
    CALLED
    + """
    libssl = ctypes.CDLL("libssl.so.3")
    stream = pointer(libssl, "SSL_new", pointer(libssl, "SSL_CTX_new", pointer(libssl, "TLS_client_method")))
    libssl.SSL_set_fd(stream, connection.fileno())
    assert libssl.SSL_connect(stream) == 1
    assert libssl.SSL_write(stream, b"ask", 3) == 3
    assert libssl.SSL_peek(stream, text, 100) == 6
    assert libssl.SSL_peek_ex(stream, text, 100, ctypes.byref(ctypes.c_size_t())) == 1
    libssl.SSL_shutdown(stream); libssl.SSL_free(stream); connection.close(); server.join()
"""
)


@pytest.mark.kernel
def test_a_look_into_tls_is_told(capture: Capture, certificate: str) -> None:
    """What SSL_peek shows was heard: it is told once, and the end of the stream says that it goes so far."""
    seen = watch(capture, LOOKED, certificate)
    looks = [event for event in seen.data(TLS, 1) if event.absence == Absence.PEEKED]
    assert [(0, 6)] == [(event.position, event.length) for event in looks]
    ends = [end for end in seen.of(TlsCloseEvent) if end.stream == looks[0].stream]
    assert [(3, 6)] == [end.position for end in ends]


PACKETS = (
    CALLED
    + """
    gnutls = ctypes.CDLL("libgnutls.so.30")
    session, credentials, packet = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    gnutls.gnutls_init(ctypes.byref(session), 2)
    gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(credentials))
    gnutls.gnutls_credentials_set(session, 1, credentials)
    gnutls.gnutls_set_default_priority(session)
    gnutls.gnutls_transport_set_int2(session, connection.fileno(), connection.fileno())
    assert gnutls.gnutls_handshake(session) == 0
    assert gnutls.gnutls_record_send_range(session, b"ask", ctypes.c_size_t(3), (ctypes.c_size_t * 2)(3, 3)) == 3
    size = gnutls.gnutls_record_recv_packet(session, ctypes.byref(packet))
    while size == -28 or size == -52 or size == 0 and not packet:
        size = gnutls.gnutls_record_recv_packet(session, ctypes.byref(packet))
    assert size == 6, size
    gnutls.gnutls_bye(session, 1); gnutls.gnutls_deinit(session); connection.close(); server.join()
"""
)


@pytest.mark.kernel
def test_other_calls_of_gnutls(capture: Capture, certificate: str) -> None:
    """What is sent by ranges is seen; of what is received in packets of the library's own at least how much."""
    require(Path("/usr/lib/x86_64-linux-gnu/libgnutls.so.30").exists(), "needs GnuTLS")
    seen = watch(capture, PACKETS, certificate)
    assert b"ask" in [bytes(event.payload) for event in seen.data(TLS, 0) if event.library == Library.GNUTLS]
    received = [event for event in seen.data(TLS, 1) if event.library == Library.GNUTLS]
    assert [(6, 0, Absence.UNKNOWN_CALL)] == [(event.length, event.captured, event.absence) for event in received]
