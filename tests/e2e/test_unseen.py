"""Where less than everything can be seen, the verdict says so, and why; where nothing is missing, it says that.

What lives here: sockets from outside, moves without a buffer, ends without a close. What must not: lost events (test_loss).
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.instance import CAPD, CLIENTS, PYTHON, Instance, Session
from tests.e2e.truth import Server
from tests.requirements import require

pytestmark = pytest.mark.e2e
AGENT = (PYTHON, "-I", CLIENTS / "unseen.py")


def verdict(session: Session) -> tuple[str, list[str]]:
    """Give verdict and reasons."""
    return session["completeness"]["verdict"], session["completeness"]["reasons"]


def test_a_socket_that_a_supervisor_gave(capd: Instance) -> None:
    """An agent's standard input is one end of a pair made outside: what it says is kept, and that there may be more is said."""
    ours, theirs = socket.socketpair()
    command = [str(CAPD), "run", "--config", str(capd.config), "--name", "given", "--", *map(str, AGENT), "given"]
    with ours, theirs, subprocess.Popen(command, stdin=theirs.fileno()) as process:
        assert b"said" == ours.recv(64)
        ours.sendall(b"answer")
        assert 0 == process.wait(180)
    (session,) = capd.settled("given", 1, transport="unix")
    reason = "its socket was made outside the run: what was said on it before is not known"
    assert ("partial", [reason]) == verdict(session)
    assert (b"said", b"answer") == tuple(capd.raw(session, direction, whole=False) for direction in ("request", "response"))


def test_what_was_spliced(capd: Instance, echo: Server) -> None:
    """Sizes of what vmsplice and splice moved are in the verdict, both ways; what came after them is whole."""
    capd.run("spliced", *AGENT, "splice", str(echo.port))
    echo.ledger.take(1)
    (session,) = capd.settled("spliced", 1, transport="tcp")
    missing = "kernel copy: 3000 bytes of the request and 3000 bytes of the response missing"
    assert ("partial", [missing]) == verdict(session)
    assert {"request": 3005, "response": 3005} == session["bytes"]
    assert b"after" == capd.raw(session, "request", whole=False)


def test_io_uring_on_a_unix_socket(capd: Instance) -> None:
    """What a ring sent is missing with its size, or, where it is not counted, every such session of the process says so."""
    said = capd.run("uring", *AGENT, "uring")
    require(said != b"refused\n", "io_uring is switched off")
    sessions = capd.settled("uring", 2, transport="unix")
    told = sorted(verdict(session) for session in sessions)
    if capd.tier == "modern":
        assert [("complete", []), ("partial", ["io_uring: 11 bytes of the request missing"])] == told
    else:
        assert [("partial", ["a process used io_uring, which nobody counts on such a socket"])] * 2 == told


def test_a_connection_that_was_reset_before_its_process_ended(capd: Instance, directory: Path) -> None:
    """The session ends with its process while the run goes on, and nothing is missing in it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            assert b"asked" == connection.recv(64)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        command = [str(CAPD), "run", "--config", str(capd.config), "--name", "reset", "--"]
        command += [*map(str, AGENT), "reset", str(server.getsockname()[1]), str(directory / "over")]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            thread.join()
            try:
                wait_until(lambda: [one["state"] for one in capd.sessions("reset")] == ["closed"], "the session is closed")
                assert process.poll() is None
            finally:
                (directory / "over").touch()
            assert 0 == process.wait(180)
    (session,) = capd.sessions("reset")
    assert ("complete", []) == verdict(session)
    assert b"asked" == capd.raw(session, "request")
