"""The enforcer's parent: which of its processes it starts anew, and when it is ready."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from capd.daemon import enforcer_processes
from capd.daemon.configuration import Configuration
from capd.daemon.enforcer_processes import DESK, RESOLVER, Child, Enforcer
from tests.daemon.conftest import wait_until


def parent(place: Path, children: list[Child], work: Callable[[Child], None], said: list[str]) -> Enforcer:
    """Make a parent of these, whose status goes nowhere that matters."""
    configuration = Configuration(state_dir=place / "state", runtime_dir=place)
    return Enforcer(configuration, children, work, said.append, keeper=None, told={"confinement": "none"})


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Give a list of children that are ended with the test; silence is short in it."""
    monkeypatch.setattr(enforcer_processes, "SILENT_SECONDS_MAX", 2.0)
    monkeypatch.setattr(enforcer_processes, "RESTART_SECONDS", 0.0)
    return []


def end(children: list[Child]) -> None:
    """End what is left."""
    for child in children:
        if child.pid:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def test_each_process_keeps_its_own_sockets(tmp_path: Path, ended: list[Child]) -> None:
    """Workers share listeners; each process begins, has what is its own, and of the others nothing."""
    said: list[str] = []
    with ExitStack() as stack:
        some = [stack.enter_context(socket.socket()) for _ in range(7)]
        shared, tells = some[:2], some[2:4]
        ended += [Child(number=number, listeners=shared, channels=[some[4 + number]], tells=tells) for number in range(2)]
        ended += [Child(number=RESOLVER, listeners=[some[6]], channels=tells[:1]), Child(number=DESK, listeners=())]
        own = {child.number: {one.fileno() for one in (*child.listeners, *child.channels, *child.tells)} for child in ended}

        def work(child: Child) -> None:
            held = {one.fileno() for one in some if Path(f"/proc/self/fd/{one.fileno()}").exists()}
            (tmp_path / str(child.number)).write_text(repr(sorted(held)))

        enforcer = parent(tmp_path, ended, work, said)
        for child in ended:
            enforcer._start(child)
            os.waitpid(child.pid, 0)
            child.pid = 0
    assert [] == said
    assert {number: repr(sorted(held)) for number, held in own.items()} == {
        child.number: (tmp_path / str(child.number)).read_text() for child in ended
    }


def test_a_process_that_hangs_is_ended_and_started_anew(tmp_path: Path, ended: list[Child]) -> None:
    """One that gives no sign of life is killed, one that does is left alone, and it is told which."""
    said: list[str] = []
    ended += [Child(number=0, listeners=()), Child(number=1, listeners=())]

    def work(child: Child) -> None:
        while True:
            if child.number == 1:
                child.beat()
            time.sleep(0.01)

    enforcer = parent(tmp_path, ended, work, said)
    try:
        for child in ended:
            enforcer._start(child)
        first = [child.pid for child in ended]

        def anew() -> bool:
            enforcer._attend()
            return ended[0].pid not in {0, first[0]}

        wait_until(anew, "it was started anew")
        assert first[1] == ended[1].pid, said
        assert ["worker 0"] == sorted({line.split(": ")[1].split(" gives ")[0] for line in said if " gives no sign" in line}), (
            said
        )
    finally:
        end(ended)


def test_it_is_ready_when_all_that_agents_are_led_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness waits for every worker and the resolver, not for those whom no agent waits for."""
    monkeypatch.setattr(enforcer_processes, "SILENT_SECONDS_MAX", 1000.0)
    told: list[str] = []
    children = [
        Child(number=number, listeners=(), pid=os.getpid(), heard=time.monotonic()) for number in (0, 1, RESOLVER, DESK)
    ]
    monkeypatch.setattr(os, "waitpid", lambda *_: (0, 0))
    enforcer = parent(tmp_path, children, lambda _child: None, [])
    monkeypatch.setattr(enforcer._heart, "ready", told.append)
    for child in children[:3]:
        enforcer._attend()
        enforcer._say_ready()
        assert [] == told
        child.beat()
    enforcer._attend()
    enforcer._say_ready()
    enforcer._say_ready()
    assert ["enforcing; confined: none"] == told
