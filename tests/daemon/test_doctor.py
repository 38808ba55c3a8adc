"""`capd doctor`: for whatever is wrong with a host there is a finding, and for each finding what to do."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import catalogue_status, cgroups, clock, doctor, mountinfo, mounts
from capd.daemon.errors import NoCgroup2Error
from capd.daemon.finding import Finding, Mark
from capd.daemon.lock import InstanceLock
from capd.probes import btf
from capd.probes.errors import BtfMissingError

Break = Callable[[pytest.MonkeyPatch, Path], object]
WRONG_CGROUP = NoCgroup2Error("no cgroup2 hierarchy is mounted")


def raising(error: Exception) -> Callable[..., Any]:
    """Give something that fails."""

    def fail(*_arguments: object) -> object:
        raise error

    return fail


def config(directory: Path, more: str = "") -> Path:
    """Write the configuration of an instance that was never started."""
    path = directory / "capd.toml"
    path.write_text(f'state_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n{more}', encoding="utf-8")
    path.chmod(0o644)
    return path


def found(directory: Path, subject: str) -> list[Finding]:
    """Give what is found of a subject."""
    return [one for one in doctor.check_host(str(directory / "capd.toml")) if one.subject == subject]


def a_file(directory: Path) -> None:
    """Put a file where the state directory belongs."""
    (directory / "state").write_text("")


def a_dead_daemon(directory: Path) -> None:
    """Leave a daemon that holds the lock and does not answer: this process."""
    (directory / "run").mkdir()
    (directory / "state").mkdir()
    InstanceLock(directory / "run/daemon.lock", directory / "state/daemon.lock").acquire()


def without_compiler(patch: pytest.MonkeyPatch, _at: Path) -> None:
    """Have no BCC."""
    patch.setattr(importlib.util, "find_spec", lambda _name: None)


def without_btf(patch: pytest.MonkeyPatch, _at: Path) -> None:
    """Have a kernel that says nothing of its types."""
    patch.setattr(btf, "load", raising(BtfMissingError("none")))


def cgroups_read_only(patch: pytest.MonkeyPatch, at: Path) -> None:
    """Have the hierarchy mounted where nothing can be made in it."""
    patch.setattr(cgroups, "find_root", lambda: at)
    patch.setattr(cgroups, "shape", lambda _root: "unified")
    patch.setattr(mountinfo, "mounted", lambda _kind: [])


HOST: list[tuple[str, Break, tuple[str, str]]] = [
    ("kernel", lambda patch, _: patch.setattr(platform, "release", lambda: "5.4.0-1"), ("5.4.0-1", "Linux 5.8")),
    (
        "compiler",
        without_compiler,
        ("missing", "python3-bpfcc"),
    ),
    (
        "BTF",
        without_btf,
        ("none", "CONFIG_DEBUG_INFO_BTF"),
    ),
    ("cgroup2", lambda patch, _: patch.setattr(cgroups, "find_root", raising(WRONG_CGROUP)), ("no cgroup2", "mount")),
    ("cgroup2", cgroups_read_only, ("read-only", "remount,rw")),
    ("configuration", lambda _, at: config(at, "stat_dir = 1"), ("capd.toml:3: stat_dir", "capd.toml")),
    ("configuration", lambda _, at: config(at, "[capture]\ntier = 1"), ("capd.toml:4: capture.tier", "which set of probes")),
    ("configuration", lambda _, at: config(at, "[capture"), ("not TOML", "capd config check")),
    ("configuration", lambda _, at: config(at).chmod(0o666), ("can be written by others", "chmod go-w")),
    ("configuration", lambda _, at: os.chown(config(at), 12_345, -1), ("can be written by others", "chown root:")),
    ("state_dir", lambda _, at: a_file(at), ("is not a directory", "move it away")),
    ("state_dir", lambda patch, _: patch.setattr(doctor, "_read_only", lambda _p: True), ("read-only", "remount it")),
    ("state_dir", lambda _, at: config(at, f"[journal]\nfree_bytes_min = {1 << 60}"), ("free", "free space")),
    ("recorder", lambda _, at: config(at, "[recorder]\nuser = 'nobody-here'"), ("no user", "config check")),
    ("recorder", lambda _, at: config(at, "[recorder]\nuser = 'root'"), ("root", "config check")),
    ("daemon", lambda _, __: None, ("no capd daemon answers", "systemctl start capd")),
    ("daemon", lambda _, at: a_dead_daemon(at), (f"pid {os.getpid()} holds", "kill")),
]


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what test_doctor_enforcement.py tries: rules and programs in the kernel take seconds."""
    monkeypatch.setattr(doctor, "_enforcement", lambda _settings: [])


@pytest.mark.parametrize(("subject", "spoil", "expected"), HOST)
def test_what_is_wrong_is_found_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str, spoil: Break, expected: tuple[str, str]
) -> None:
    """Each thing that a host can lack is a bad finding, in words, with a next step."""
    words, step = expected
    config(tmp_path)
    spoil(monkeypatch, tmp_path)
    bad = [one for one in found(tmp_path, subject) if one.mark is Mark.BAD]
    assert [] != [one for one in bad if words in one.found and step in one.next_step], found(tmp_path, subject)


@pytest.mark.parametrize(
    ("subject", "spoil", "step"),
    [
        ("configuration", lambda _: None, "chmod go+r"),
        ("user", lambda patch: patch.setattr(os, "geteuid", lambda: 1000), "sudo capd doctor"),
        ("tracefs", lambda patch: patch.setattr(mounts, "missing", lambda: ["tracefs"]), "the daemon mounts it"),
        ("clock", lambda patch: patch.setattr(clock, "facts", lambda: {"synchronised": False}), "timedatectl"),
        ("clock", lambda patch: patch.setattr(clock, "facts", lambda: {"synchronised": None}), "timedatectl"),
        ("selection", lambda _: None, "`systemd-cgls`"),
    ],
)
def test_what_may_be_so_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str, spoil: Callable[[pytest.MonkeyPatch], None], step: str
) -> None:
    """What capd can live with is a note, and says what could be done."""
    selected = '[selection]\ncgroups = ["/nothing-of-this-name.service"]'
    config(tmp_path, selected if subject == "selection" else "").chmod(0o600 if subject == "configuration" else 0o644)
    spoil(monkeypatch)
    assert [True] == [step in one.next_step for one in found(tmp_path, subject) if one.mark is Mark.NOTE]


@pytest.mark.parametrize(
    ("more", "possible", "mark"),
    [
        ('bucket_url = "/srv/bucket"', False, Mark.NOTE),
        ('bucket_url = "/srv/bucket"', True, Mark.GOOD),
        ('bucket_url = "/srv/bucket"\n[catalogue]\nenabled = false', False, None),
        ("", False, None),
    ],
)
def test_what_a_catalogue_lacks_is_noted_where_one_is_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, possible: bool, mark: Mark | None
) -> None:
    """A host that ships and has not the libraries is told which package brings them; others hear nothing of it."""
    config(tmp_path, more)
    monkeypatch.setattr(catalogue_status, "possible", lambda: possible)
    findings = found(tmp_path, "catalogue")
    assert ([] if mark is None else [mark]) == [one.mark for one in findings]
    assert (mark is Mark.NOTE) == any("install capd-fleet" in one.next_step for one in findings)


def test_another_users_look_does_not_name_him_as_the_recorders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who the recorder becomes is known to root, who starts it, and not by who looks."""
    config(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [] == found(tmp_path, "recorder")


def test_a_host_before_its_first_start_lacks_nothing_but_a_daemon(tmp_path: Path) -> None:
    """Before capd was ever started only the daemon is missing, whatever else this machine lacks."""
    config(tmp_path)
    findings = doctor.check_host(str(tmp_path / "capd.toml"))
    ours = {"configuration", "state_dir", "recorder", "daemon"}
    assert {"daemon"} == {one.subject for one in findings if one.subject in ours and one.mark is Mark.BAD}
    assert not (tmp_path / "state").exists()
