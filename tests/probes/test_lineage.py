"""Who is recorded: what is selected and all that descends from it, and nobody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from capd.probes.capture import Capture, process_start_ns
from capd.probes.layouts import EventKind, ExecEvent, ExitEvent, FileMappedEvent, ForkEvent
from tests.probes.watching import PYTHON, RUN, Seen, cgroup_root, take, watch, watch_command
from tests.requirements import require

TALK = "import socket; a, b = socket.socketpair(); a.send(b'%s'); b.recv(99)"


@pytest.mark.kernel
def test_a_process_that_is_not_selected_leaves_no_event(capture: Capture) -> None:
    """It talks, forks and runs programs while capture is at work: nothing."""
    take(capture, Seen())
    subprocess.run([PYTHON, "-c", TALK % "secret" + "; import os; os.system('true')"], check=True)
    seen = Seen()
    take(capture, seen)
    assert [] == seen.events


@pytest.mark.kernel
def test_a_daemon_that_left_its_session_is_still_recorded(capture: Capture) -> None:
    """Double fork, setsid, its parent gone: still of the run."""
    seen = watch(
        capture,
        """
    import os, socket, time
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.1)
            a, b = socket.socketpair(); a.send(b"grandchild"); b.recv(99)
            os.write(w, b"x")
            os._exit(0)
        os._exit(0)
    os.wait()
    os.read(r, 1)
""",
    )
    assert b"grandchild" == seen.payload(EventKind.SOCKET_DATA, 0)
    assert {RUN} == {header.run for header, _ in seen.events}


@pytest.mark.kernel
def test_processes_are_told_from_first_program_to_exit_status(capture: Capture) -> None:
    """Fork, exec with program and arguments, exit with the wait status, under an identity that does not change."""
    seen = watch_command(capture, ["sh", "-c", "/bin/echo one 'two three' ''; (exit 7); exit 0"])
    (echo,) = [event for event in seen.of(ExecEvent) if b"echo" in event.filename]
    assert b"/bin/echo" == echo.filename
    assert b"/bin/echo\0one\0two three\0\0" == echo.argv
    assert (os.getuid(), os.getgid()) == (echo.uid, echo.gid)
    status = Path("/bin/echo").stat()
    assert status.st_ino == echo.inode
    assert status.st_dev == os.makedev(echo.device >> 20, echo.device & 0xFFFFF)
    assert [0, 7 << 8, 0] == [event.status for event in seen.of(ExitEvent)]
    children = {event.child_pid: event.child_start_ns for event in seen.of(ForkEvent)}
    identities = {(header.pid, header.process_start_ns) for header, _ in seen.events}
    assert set(children.items()) <= identities
    assert 3 == len(identities)


@pytest.mark.kernel
def test_arguments_longer_than_the_probes_copy_are_marked_cut(capture: Capture) -> None:
    """The length before cutting is told."""
    argument = "y" * 120_000
    seen = watch_command(capture, ["/bin/true", argument, argument])
    event = seen.of(ExecEvent)[-1]
    assert 2 * 120_000 + len("/bin/true") + 3 == event.argv_bytes_total
    assert 16_000 < len(event.argv) < event.argv_bytes_total
    assert event.argv.startswith(b"/bin/true\0yyy")


@pytest.mark.kernel
def test_threads_are_no_processes(capture: Capture) -> None:
    """Threads that come and go make neither forks nor exits, and their bytes belong to the process."""
    seen = watch(
        capture,
        """
    import socket, threading
    def talk():
        a, b = socket.socketpair(); a.send(b"t"); b.recv(1)
    threads = [threading.Thread(target=talk) for _ in range(17)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
""",
    )
    assert 17 == len(seen.data(EventKind.SOCKET_DATA, 0))
    assert [] == seen.of(ForkEvent)
    assert 1 == len(seen.of(ExitEvent))
    assert {seen.pid} == {header.pid for header, _ in seen.events}


@pytest.mark.kernel
def test_a_process_moved_into_a_selected_cgroup_joins_and_stays(capture: Capture) -> None:
    """Moved in, also into a cgroup below: recorded from then on, and still when it is moved out."""
    root = cgroup_root()
    require(root, "needs a cgroup2 hierarchy")
    assert root is not None
    parent = root / f"capd-test-{os.getpid()}"
    below = parent / "deep" / "deeper"
    below.mkdir(parents=True)
    script = f"""
import os, socket
def talk(word):
    a, b = socket.socketpair(); a.send(word); b.recv(99)
talk(b"before")
open("{below}/cgroup.procs", "w").write(str(os.getpid()))
talk(b"inside ")
open("{root}/cgroup.procs", "w").write(str(os.getpid()))
talk(b"outside")
"""
    try:
        capture.select_cgroup(parent.stat().st_ino, RUN)
        take(capture, Seen())
        subprocess.run([PYTHON, "-c", script], check=True)
        seen = Seen()
        take(capture, seen)
    finally:
        capture.unselect_cgroup(parent.stat().st_ino)
        for folder in (below, below.parent, parent):
            folder.rmdir()
    assert b"inside outside" == seen.payload(EventKind.SOCKET_DATA, 0)
    assert {RUN} == {header.run for header, _ in seen.events}


@pytest.mark.kernel
def test_a_selected_process_is_known_until_it_ends(capture: Capture) -> None:
    """The lineage holds it, with the start by which its events are named, and forgets it."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        capture.select_process(process.pid, RUN)
        assert RUN == capture.selected()[process.pid]
        assert process_start_ns(process.pid) == capture.start_of(process.pid)
        assert capture.explain(process.pid)["selected"]
    finally:
        process.kill()
        process.wait()
    assert process.pid not in capture.selected()


@pytest.mark.kernel
def test_a_library_that_appears_later_is_told_once_and_can_be_attached(capture: Capture, tmp_path: Path) -> None:
    """A copy of the TLS library under another name: its mapping is told, it gets probes, and it counts as late."""
    original = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
    require(original.exists(), f"needs {original}")
    copy = tmp_path / "their-own-tls.so"
    copy.write_bytes(original.read_bytes())
    process = subprocess.Popen(
        [
            PYTHON,
            "-c",
            f"input(); import ctypes; ctypes.CDLL('{copy}'); ctypes.CDLL('{copy}'); print('x', flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        take(capture, Seen())
        capture.select_process(process.pid, RUN)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        seen = Seen()
        take(capture, seen)
        told = [event for event in seen.of(FileMappedEvent) if event.inode == copy.stat().st_ino]
        assert 1 == len(told)
        attachment = capture.on_file_mapped(process.pid, told[0].device, told[0].inode)
        assert attachment is not None
        assert (True, "openssl") == (attachment.late, attachment.library)
        libraries = capture.explain(process.pid)["libraries"]
        assert isinstance(libraries, list)
        assert [True] == [item["attached"] for item in libraries if item["path"] == str(copy)]
    finally:
        process.kill()
        process.communicate()
