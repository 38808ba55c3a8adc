"""The enforcer's listeners outlive it: what the service manager kept is taken up, and nothing else that it hands over."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import ENVIRONMENT

BINDS = """
import os, socket, sys
from capd.daemon import enforcer_listeners
from capd.daemon.enforcer_listeners import Listeners
port, count, names, *descriptors = sys.argv[1:]
moved = [os.dup(int(descriptor)) for descriptor in descriptors]
high = [os.dup2(one, 200 + number) for number, one in enumerate(moved)]
os.closerange(3, 200)
for number, one in enumerate(high): os.dup2(one, 3 + number)
os.closerange(200, 300)
os.environ.update(LISTEN_FDS=count, LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
listeners = Listeners(os.environ)
bound = [listeners.bind(int(port), socket.SOCK_STREAM) for _ in range(2)]
listeners.keep(lambda _line: None)
for client in [None] * int(sys.stdin.readline()):
    for listener in (one for ones in bound for one in ones):
        listener.setblocking(False)
        try: print("accepted", listener.accept()[0].recv(9).decode())
        except BlockingIOError: pass
print("taken", listeners.taken, "bound", sum(map(len, bound)), [name for name in os.environ if name.startswith("LISTEN_")])
"""


OLDER = BINDS.replace("listeners = Listeners", "enforcer_listeners.SO_NETNS_COOKIE = 9999\nlisteners = Listeners").replace(
    "bind(int(port), socket.SOCK_STREAM) for _ in range(2)", "bind(int(port), socket.SOCK_DGRAM)"
)
"""To the kernel an option that it does not know yet is as one that there is not; one resolver, not two workers."""


def listener(address: str = "127.0.0.1", port: int = 0, *, listening: bool = True) -> socket.socket:
    """Give a socket as an enforcer before would have made it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    if listening:
        made.listen()
    return made


def bind(
    port: int, given: list[tuple[str, socket.socket]], clients: int, notify: Path | None = None, script: str = BINDS
) -> list[str]:
    """Let a process bind two workers' listeners that was given these; give what it says."""
    numbers = [one.fileno() for _, one in given]
    words = [str(port), str(len(given)), ":".join(name for name, _ in given), *map(str, numbers)]
    environment = ENVIRONMENT if notify is None else {**ENVIRONMENT, "NOTIFY_SOCKET": str(notify)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *words],
        pass_fds=numbers,
        input=f"{clients}\n",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == done.stderr
    return done.stdout.splitlines()


def test_who_waits_in_a_kept_listener_is_served() -> None:
    """A connection that was begun while there was no enforcer is accepted by the next one, with what it had sent."""
    with listener() as kept, socket.create_connection(kept.getsockname()) as waiting:
        waiting.sendall(b"waited")
        said = bind(kept.getsockname()[1], [("capd-listener", kept)], 1)
    assert "accepted waited" in said
    assert said[-1].startswith("taken 1 bound ")
    assert said[-1].endswith("[]")


def test_a_kernel_that_does_not_tell_network_namespaces_keeps_the_resolver() -> None:
    """Before Linux 5.14 what was kept is taken up, too: the manager has it bound, and nobody else could bind it again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept:
        kept.bind(("127.0.0.1", 0))
        said = bind(kept.getsockname()[1], [("capd-listener", kept)], 0, script=OLDER)
    assert said[-1].startswith("taken 1 bound ")


WRONG = [
    pytest.param("other", listener, False, id="another name"),
    pytest.param("capd-listener", listener, True, id="another port"),
    pytest.param("capd-listener", lambda: listener("127.0.0.2"), False, id="another address"),
    pytest.param("capd-listener", lambda: listener(listening=False), False, id="one that does not listen"),
    pytest.param("capd-listener", lambda: socket.socket(socket.AF_UNIX), False, id="another family"),
]


@pytest.mark.parametrize(("name", "make", "elsewhere"), WRONG)
def test_what_does_not_fit_is_closed(name: str, make: Callable[[], socket.socket], elsewhere: bool) -> None:
    """What has another name, place or state is not served."""
    with make() as kept:
        with listener() as free:
            port = free.getsockname()[1]
        if kept.family == socket.AF_INET and not elsewhere:
            port = kept.getsockname()[1]
        assert bind(port, [(name, kept)], 0)[-1].startswith("taken 0 ")


def test_all_are_given_to_the_service_manager(tmp_path: Path) -> None:
    """After the start the manager is told to forget what it had and keeps every listener there is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        with listener() as free:
            port = free.getsockname()[1]
        said = bind(port, [], 0, tmp_path / "notify")
        assert b"FDSTOREREMOVE=1\nFDNAME=capd-listener" == manager.recv(100)
        message, descriptors, _, _ = socket.recv_fds(manager, 100, 16)
    kept = [socket.socket(fileno=number) for number in descriptors]
    assert b"FDSTORE=1\nFDPOLL=0\nFDNAME=capd-listener" == message
    try:
        assert said[-1].startswith(f"taken 0 bound {len(descriptors)} ")
        assert {port} == {one.getsockname()[1] for one in kept}
    finally:
        for one in kept:
            one.close()
