"""What one call costs more: a TLS write and a socket call, of an agent, of another process, and under other tools.

What lives here: the watchers and the rounds. What must not: printing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.instance import Instance, started

from capd.probes import bpf_call, btf, elf, layouts, sites
from capd.probes.capture import CaptureSettings
from capd.probes.loader import BPF_FOLDER
from capd.probes.ring import Ring
from capd.probes.sites import Purpose

ROUNDS = 5
"""Of each measurement; the median is given."""
SOCKET_CALLS = 100_000
TLS_CALLS = 5_000
TLS_ROUNDS = 20
"""Many and short, so that some of them have the machine for themselves."""
MEETING_CALLS = 500_000
"""Of one byte: the library is mapped long enough for capd to put its probes on it, which it does when it meets the file."""
RING_BYTES = CaptureSettings().data_ring_bytes
EVENT_BYTES = layouts.HEADER.size + layouts.DATA.size + layouts.WIRE.size
DRAIN_SECONDS = 0.01
LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
RETURN_ZERO = bytes.fromhex("b7000000000000009500000000000000")
"""mov r0, 0; exit: the least that a program can do."""
BPFTRACE = (
    "uprobe:{library}:SSL_write {{ @buffer[tid] = arg1; }} uretprobe:{library}:SSL_write /@buffer[tid]/ "
    '{{ printf("%d %r\\n", pid, buf(@buffer[tid], retval)); delete(@buffer[tid]); }}'
)
"""Prints what each SSL_write said, as far as bpftrace's strings go (200 bytes)."""
READY_SECONDS = 6
"""What bpftrace and sslsniff take to attach; neither says when it is ready."""


def median_ns(command: list[str], run: Callable[[list[str]], str], rounds: int = ROUNDS) -> float:
    """Give the median of some runs of the load."""
    return statistics.median(float(json.loads(run(command))["ns"]) for _ in range(rounds))


def plain(command: list[str]) -> str:
    """Run a command that nobody records."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def certificate(folder: Path) -> Path:
    """Make a key and a certificate."""
    both = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*command, "-subj", "/CN=bench", "-keyout", folder / "key", "-out", both], check=True, capture_output=True)
    both.write_text(both.read_text() + (folder / "key").read_text())
    return both


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[int]:
    """Run a TLS server that reads everything, in a process of its own; give its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(KeyboardInterrupt):
            _serve(listener, context)
        os._exit(0)
    try:
        yield listener.getsockname()[1]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        listener.close()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=_swallow, args=(connection, context), daemon=True).start()


def _swallow(connection: socket.socket, context: ssl.SSLContext) -> None:
    """Shake hands, then read ciphertext as it comes: the server must not be what is measured."""
    stream = context.wrap_socket(connection, server_side=True)
    raw = socket.socket(fileno=os.dup(stream.fileno()))
    with contextlib.suppress(ConnectionResetError):
        while raw.recv(1 << 20):
            pass


@contextlib.contextmanager
def probe(library: Path, code: bytes) -> Iterator[None]:
    """Attach a program where capd's stands, on entry and return."""
    program = bpf_call.load(bpf_call.Program("bench", code, bpf_call.PROG_TYPE_KPROBE, bpf_call.ATTACH_UPROBE_SESSION))
    places = [site.offset for site in sites.plan(elf.load(library)) if site.purpose is Purpose.CALL]
    link = bpf_call.attach_uprobes(program, str(library), places, [0] * len(places), bpf_call.ATTACH_UPROBE_SESSION)
    try:
        yield
    finally:
        os.close(link)
        os.close(program)


@contextlib.contextmanager
def copying_probe(library: Path, message_bytes: int) -> Iterator[None]:
    """Attach a program that only copies what is written into a ring of the size of capd's, which is emptied meanwhile."""
    ring = Ring(bpf_call.create_ring(RING_BYTES), RING_BYTES)
    done = threading.Event()

    def drain() -> None:
        while not done.wait(DRAIN_SECONDS):
            if ring.drain() is not None:
                ring.release()

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        with probe(library, _copy_code(ring.descriptor, message_bytes)):
            yield
    finally:
        done.set()
        thread.join()
        ring.close()


def _copy_code(ring: int, message_bytes: int) -> bytes:
    """Give: at entry reserve a record as large as capd's, read the second argument's bytes into it, submit."""
    is_return = btf.load().function("bpf_session_is_return")
    assert is_return is not None
    steps = (
        (0xBF, 6, 1, 0, 0),  # r6 = context
        (0x85, 0, 2, 0, is_return),
        (0x55, 0, 0, 15, 0),  # if it is the return, to the end
        (0x18, 1, 1, 0, ring),
        (0, 0, 0, 0, 0),
        (0xB7, 2, 0, 0, EVENT_BYTES + message_bytes),
        (0xB7, 3, 0, 0, 0),
        (0x85, 0, 0, 0, 131),  # bpf_ringbuf_reserve
        (0x15, 0, 0, 9, 0),
        (0xBF, 7, 0, 0, 0),
        (0xBF, 1, 0, 0, 0),
        (0x07, 1, 0, 0, EVENT_BYTES),
        (0xB7, 2, 0, 0, message_bytes),
        (0x79, 3, 6, 104, 0),  # si of struct pt_regs
        (0x85, 0, 0, 0, 112),  # bpf_probe_read_user
        (0xBF, 1, 7, 0, 0),
        (0xB7, 2, 0, 0, 0),
        (0x85, 0, 0, 0, 132),  # bpf_ringbuf_submit
    )
    code = (
        struct.pack("<BBhi", operation, source << 4 | target, jump, value) for operation, target, source, jump, value in steps
    )
    return b"".join(code) + RETURN_ZERO


@contextlib.contextmanager
def tool(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run another tracer meanwhile, its output thrown away."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        time.sleep(READY_SECONDS)
        try:
            if process.poll() is not None:
                assert process.stderr is not None
                sys.exit(f"{command[0]} ended: {process.stderr.read().decode(errors='replace')[-500:]}")
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def bpftrace() -> Iterator[None]:
    """Let bpftrace print every SSL_write."""
    script = BPFTRACE.format(library=LIBSSL)
    with tool(["bpftrace", "-q", "-e", script], {"BPFTRACE_STRLEN": "200", "BPFTRACE_MAX_STRLEN": "200"}):
        yield


@contextlib.contextmanager
def sslsniff(folder: Path) -> Iterator[None]:
    """Let bcc's sslsniff print every SSL_write. Its two needs from the kernel's headers are put beside our stub tree."""
    stub = folder / "stub"
    shutil.copytree(BPF_FOLDER / "stub", stub, dirs_exist_ok=True)
    (stub / "include/linux/sched.h").write_text(
        "#pragma once\n#define TASK_COMM_LEN 16\n#define min(a, b) ((a) < (b) ? (a) : (b))\n"
    )
    (stub / "include/linux/ptrace.h").write_text("#include <uapi/linux/ptrace.h>\n")
    with tool(["/usr/bin/python3", "/usr/sbin/sslsniff-bpfcc", "--no-gnutls", "--no-nss"], {"BCC_KERNEL_SOURCE": str(stub)}):
        yield


def socket_calls(load: str, *, tier: str = "auto") -> dict[str, float]:
    """Give ns of one send and its receive, 1 KiB: nobody watching, capd watching others, capd recording."""
    command = [load, "socket", "1024", str(SOCKET_CALLS)]
    found = {"alone": median_ns(command, plain)}
    with started("up", tier=tier) as instance:
        found["not an agent"] = median_ns(command, plain)
        found["agent"] = median_ns(command, instance.run)
    found["alone again"] = median_ns(command, plain)
    return found


def tls_calls(load: str, folder: Path, message_bytes: int) -> dict[str, float]:
    """Give ns of one SSL_write under each watcher: the least of many short rounds, each of which measures all of them in turn.

    The library is copied: other probes that the machine may have on it do not count, and capd has none on the copy for "alone"
    and the two baselines. They run while capd runs, whose other probes they pay like every process.
    """
    bare, watched = (Path(shutil.copy(LIBSSL, folder / f"{name}-libssl.so.3")) for name in ("bare", "watched"))
    found: dict[str, float] = {}

    def least(name: str, library: Path, run: Callable[[list[str]], str]) -> None:
        ns = float(json.loads(run([load, "tls", str(library), str(port), str(message_bytes), str(TLS_CALLS)]))["ns"])
        found[name] = min(ns, found.get(name, ns))

    with sink(folder) as port:
        with started("up") as instance:
            met = instance.run([load, "tls", str(watched), str(port), "1", str(MEETING_CALLS)])
            assert str(watched) in str(instance.ask("status")), f"capd put no probes on {watched} within {met}"
            for _ in range(TLS_ROUNDS):
                least("alone", bare, plain)
                with probe(bare, RETURN_ZERO):
                    least("empty probe", bare, plain)
                with copying_probe(bare, message_bytes):
                    least("probe that copies", bare, plain)
                least("capd, not an agent", watched, plain)
                least("capd, agent", watched, instance.run)
        for _ in range(TLS_ROUNDS):
            least("alone, no capd", bare, plain)
        for name, watcher in (("bpftrace", bpftrace), ("sslsniff", lambda: sslsniff(folder))):
            if shutil.which("bpftrace" if name == "bpftrace" else "sslsniff-bpfcc"):
                with watcher():
                    for _ in range(ROUNDS):
                        least(name, LIBSSL, plain)
    return found


def memory_bytes(instance: Instance, measure: str) -> dict[str, int]:
    """Give the memory of each process of an instance: `Rss`, or `Pss`, which shares out what processes share."""
    return {name: _rollup(pid, measure) for name, pid in _pids(instance).items()}


def _pids(instance: Instance) -> dict[str, int]:
    """Give the processes of an instance by their names."""
    roles = instance.ask("status")["roles"]
    return {"capd up": instance.process.pid} | {
        name: int(role["pid"]) for name, role in roles.items() if role["pid"] is not None
    }


def _rollup(pid: int, measure: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{measure}:"):
            return int(line.split()[1]) << 10
    return 0


def cpu_seconds(instance: Instance) -> float:
    """Give the CPU time that the processes of an instance have used."""
    ticks = 0
    for pid in _pids(instance).values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
