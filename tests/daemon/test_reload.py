"""A configuration that changes while the daemon runs: taken over, refused as a whole, or named as waiting for a restart."""

from __future__ import annotations

import json
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capd.daemon import configuration_effect, configuration_reference, settled, status
from capd.daemon.configuration_effect import changed_keys, effect_of
from capd.daemon.errors import ConfigurationError
from capd.daemon.reloading import Reloading
from tests.daemon.conftest import Daemon, call, wait_until
from tests.requirements import require

Make = Callable[..., Daemon]
ROLES = {"daemon": {"pid": 1}, "recorder": {"pid": 2}, "shipper": {"pid": 3}}


def write(directory: Path, text: str) -> str:
    """Write a configuration and give its path."""
    (directory / "capd.toml").write_text(text, encoding="utf-8")
    return str(directory / "capd.toml")


def test_every_key_has_an_effect() -> None:
    """The table says of each key of the model when it takes effect, and has no entry that no key needs."""
    keys = [entry.key for entry in configuration_reference.entries()]
    assert all(effect_of(key).described for key in keys)
    tables = [(key, name) for key in keys for name in configuration_effect.EFFECTS]
    used = {name for key, name in tables if key == name or key.startswith((f"{name}.", f"{name}["))}
    assert set(configuration_effect.EFFECTS) == used


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("", "", []),
        ("", "[capture]\ntier = 'auto'", []),
        ("", "[storage]\nlow_bytes = 5", ["storage.low_bytes"]),
        ("state_dir = '/a'", "state_dir = '/b'", ["state_dir"]),
        ("", "[encryption]\nrecipients = ['{}']", ["encryption.recipients"]),
        ("[[retention]]\nname = 'a'", "[[retention]]\nname = 'b'", ["retention"]),
        ("", "[credentials.x]\nfile = '/x'\nhosts = ['a.b']\nports = [1]", ["credentials"]),
        ("[alerts]\nend_seconds = 5", "[selection]\ncgroups = ['/a']", ["selection.cgroups", "alerts.end_seconds"]),
    ],
)
def test_changed_keys_are_named(tmp_path: Path, before: str, after: str, changed: list[str]) -> None:
    """Keys that differ are named as in a file, and paths that follow from them are not."""
    recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    one, other = (settled.load(write(tmp_path, text.replace("{}", recipient))) for text in (before, after))
    assert changed == changed_keys(one, other)


@pytest.mark.parametrize(
    ("since", "started", "expected"),
    [
        (100, {1: 50, 2: 50, 3: 50}, [{"key": "k", "roles": ["recorder", "shipper"]}]),
        (100, {1: 50, 2: 150, 3: 50}, [{"key": "k", "roles": ["shipper"]}]),
        (100, {1: 50, 2: 150, 3: 150}, []),
    ],
)
def test_a_key_waits_until_its_roles_were_restarted(since: int, started: dict[int, int], expected: list[object]) -> None:
    """A key waits for those of its roles that run since before it changed; roles that do not run wait for nothing."""
    told = [{"key": "k", "roles": ["recorder", "shipper", "enforcer"], "since_ns": since}]
    assert expected == status.pending(told, ROLES, started.get)


class Loop:
    """The part of a daemon that reloads, with its event loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.said: list[str] = []
        self.reloading = Reloading(settled.load(path), path, self.said.append)

    def reload(self) -> dict[str, object]:
        """Reload once, and give what the status says."""
        number = self.reloading.begin(self.selector)
        while True:
            facts = self.reloading.facts()["configuration"]
            assert isinstance(facts, dict)
            if facts["reloads"] >= number:
                return facts
            for key, _events in self.selector.select(30):
                key.data()


@pytest.mark.parametrize(
    ("key", "roles"),
    [
        pytest.param("encryption.recipients", ("daemon", "recorder"), id="the journal's key leaves the disk, by the daemon"),
        pytest.param(
            "enforcement.mode", ("daemon", "recorder", "enforcer"), id="the recorder compares what both witnesses say"
        ),
        pytest.param("credentials.x.file", ("recorder", "enforcer"), id="the recorder looks for them in what agents say"),
    ],
)
def test_all_that_go_by_a_key_are_named(key: str, roles: tuple[str, ...]) -> None:
    """A key that several roles go by waits for all of them: with one of them left as it was it is not in effect."""
    assert roles == effect_of(key).roles


def test_what_waits_and_what_is_in_effect(tmp_path: Path) -> None:
    """After a reload the new values are handed over, and keys that need a restart are named, in the status and in the log."""
    loop = Loop(write(tmp_path, ""))
    write(tmp_path, "[storage]\nlow_bytes = 7\n[shipper]\nbytes_per_second = 8\n[capture]\ntier = 'classic'\n")
    assert True is loop.reloading.facts()["configuration"]["changed_on_disk"]  # type: ignore[index]
    taken = []
    loop.reloading.take = lambda found: taken.append(found.storage.low_bytes)
    facts = loop.reload()
    assert ([7], None, False) == (taken, facts["problem"], facts["changed_on_disk"])
    assert {"capture.tier": ["daemon"], "shipper.bytes_per_second": ["shipper"]} == {
        one["key"]: one["roles"]
        for one in facts["pending"]  # type: ignore[attr-defined]
    }
    assert "in effect now: storage.low_bytes" in loop.said[-1]
    assert "capture.tier waits for `systemctl restart capd`" in loop.said[-1]
    write(tmp_path, "")
    assert ["shipper.bytes_per_second"] == [one["key"] for one in loop.reload()["pending"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", ["[storage]\nlow_bytes = 7\nhigh = 1", "[storage", "state_dir = '/run/capd'"])
def test_a_wrong_one_is_refused_whole(tmp_path: Path, wrong: str) -> None:
    """Of a configuration that is wrong in one place nothing is handed over; the reason stays until one is good."""
    loop = Loop(write(tmp_path, ""))
    loop.reloading.take = lambda _found: pytest.fail("taken")
    write(tmp_path, wrong)
    assert loop.reload()["problem"]
    assert 1_073_741_824 == loop.reloading.configuration.storage.low_bytes
    assert "refused, what was in force stays" in loop.said[-1]
    loop.reloading.take = lambda _found: None
    write(tmp_path, "")
    assert loop.reload()["problem"] is None


def test_what_a_part_cannot_go_by_is_refused(tmp_path: Path) -> None:
    """A configuration that is good in itself and that a part refuses, such as for a user who is not here, is refused too."""
    loop = Loop(write(tmp_path, ""))

    def refuse(_found: object) -> None:
        raise ConfigurationError("enforcement.users: there is no user 'nobody-here'")

    loop.reloading.take = refuse
    write(tmp_path, "[enforcement]\nusers = ['nobody-here']")
    assert "nobody-here" in str(loop.reload()["problem"])
    assert () == loop.reloading.configuration.enforcement.users


def test_a_second_reload_comes_after_the_first(tmp_path: Path) -> None:
    """Whoever asks while a reload goes on gets one that began after he asked."""
    loop = Loop(write(tmp_path, ""))
    numbers = [loop.reloading.begin(loop.selector)]
    write(tmp_path, "[storage]\nlow_bytes = 7\n")
    numbers += [loop.reloading.begin(loop.selector), loop.reloading.begin(loop.selector)]
    assert [1, 2, 2] == numbers
    while loop.reloading.facts()["configuration"]["reloads"] < 2:  # type: ignore[index]
        for key, _events in loop.selector.select(30):
            key.data()
    assert 7 == loop.reloading.configuration.storage.low_bytes


@pytest.mark.parametrize("whole", [True, False])
def test_a_judge_that_is_killed_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """Whoever judges may be killed before he has said anything, or in the middle: then what was in force stays."""
    loop = Loop(write(tmp_path, ""))
    loop.reloading.take = lambda _found: pytest.fail("taken")
    judge = tmp_path / "judge"
    said = pickle.dumps(settled.load(loop.path))
    (tmp_path / "said").write_bytes(b"" if whole else said[: len(said) // 2])
    judge.write_text(f"#!/bin/sh\ncat {tmp_path}/said\nkill -9 $$\n")
    judge.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(judge))
    assert "whoever judges it ended before it was done" == loop.reload()["problem"]


@contextmanager
def cgroup_with_a_process(name: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Make a cgroup with a process that sleeps in it; both are gone at the end."""
    from capd.daemon.cgroups import Hierarchy  # noqa: PLC0415 - only here

    hierarchy = Hierarchy()
    path = hierarchy.ensure(name)
    directory = hierarchy.directory(path)
    process = subprocess.Popen(["sleep", "600"])
    try:
        (directory / "cgroup.procs").write_text(str(process.pid))
        yield path, process
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: not (directory / "cgroup.procs").read_text(), "the cgroup is empty")
        directory.rmdir()


@pytest.mark.kernel
@pytest.mark.parametrize("asked", ["verb", "signal"])
def test_a_running_daemon_takes_over_what_can_be(daemons: Make, asked: str) -> None:
    """With `capd config reload` and with SIGHUP a selector counts at once, a wrong file is refused, and `status` says both."""
    daemon = daemons()
    daemon.start()
    assert daemon.process is not None
    first = daemon.config.read_text()

    def reload(number: int) -> None:
        if asked == "verb":
            done = call("config", "reload", "--config", daemon.config, "--json")
            assert 2 if number == 2 else 0 == done.returncode, done.stderr
            told = json.loads(done.stdout)
            assert (number != 2, []) == (told["taken_over"], told["restart"]), "no shipper runs that could wait"
        else:
            daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            wait_until(lambda: daemon.status()["configuration"]["reloads"] == number, "reloaded")

    with cgroup_with_a_process(f"/capd-test-reload-{daemon.process.pid}") as (path, process):
        others = "[shipper]\nbytes_per_second = 9\n[journal]\nbytes_max = 2097152\n"
        daemon.config.write_text(f"{first}[selection]\ncgroups = ['{path}']\n{others}")
        reload(1)
        found = daemon.status()
        assert [path] == [run["cgroup"] for run in found["runs"]]
        assert (2_097_152, ["shipper.bytes_per_second"]) == (
            found["journal"]["bytes_max"],
            [one["key"] for one in found["configuration"]["pending"]],
        )
        daemon.config.write_text(f"{first}[selection]\ncgroups = []\nslice = ['x']\n")
        reload(2)
        found = daemon.status()
        assert "selection.slice: no such key" in found["configuration"]["problem"]
        assert 2_097_152 == found["journal"]["bytes_max"]
        shown = call("status", "--config", daemon.config)
        assert "the configuration on disk is refused" in shown.stdout, shown.stderr
        daemon.config.write_text(first)
        reload(3)
        found = daemon.status()
        assert ([path], None) == ([run["cgroup"] for run in found["runs"]], found["configuration"]["problem"])
        process.kill()
        process.wait()
        wait_until(lambda: not daemon.status()["runs"], "what is a run stays one until it ends")
    assert 0 == daemon.stop()


@pytest.mark.kernel
def test_a_reload_at_the_end_disturbs_nothing(daemons: Make) -> None:
    """A daemon that is told to end, and to reload meanwhile, writes its last note and says nothing of an error."""
    daemon = daemons()
    daemon.start()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    while daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.0005)
    assert daemon.process.returncode in {0, -signal.SIGHUP}, daemon.said()  # the latter when it was done with everything
    assert ("stop", False) == (daemon.notes()[-1]["note"], "Traceback" in daemon.said())


@pytest.mark.kernel
def test_only_root_may_ask_for_it(daemons: Make) -> None:
    """Another user is refused, and nothing is read."""
    daemon = daemons()
    daemon.start()
    daemon.config.chmod(0o644)
    require(daemon.socket.exists(), "needs the control socket")
    done = call("config", "reload", "--config", daemon.config, user=65534, group=65534, extra_groups=[])
    assert (3, True) == (done.returncode, "only root may ask this" in done.stderr)
    assert 0 == daemon.status()["configuration"]["reloads"]
