"""What `capd doctor` says of forcing traffic: tried on the running kernel, which is left as it was."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.daemon import doctor_enforcement
from capd.daemon.configuration import Configuration
from capd.daemon.doctor_enforcement import check_enforcement
from capd.daemon.enforcement_names import BPFFS
from capd.daemon.enforcement_section import EnforcementSection
from capd.daemon.finding import Mark
from capd.enforcer.forcing import trial
from capd.enforcer.forcing.ruleset import ForcingError, Ruleset
from tests.daemon.conftest import open_directory
from tests.requirements import require, require_root

RULE = "rules: [{id: a, match: {hosts: x.test}, then: allow}]\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory that every user may pass through, with a policy."""
    with open_directory() as made:
        (made / "policy").mkdir(mode=0o755)
        (made / "policy" / "p.yaml").write_text(RULE, encoding="ascii")
        (made / "policy" / "p.yaml").chmod(0o644)
        yield made


def free_port() -> int:
    """Give a port that nobody has."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def settings(directory: Path, *, mode: str = "enforce", **more: object) -> Configuration:
    """Give the configuration of an instance that was never started."""
    ports = {"proxy_port": free_port(), "resolver_port": free_port()}
    section = EnforcementSection.model_validate({"mode": mode, **ports, **more})
    state, run, policy = (directory / name for name in ("state", "run", "policy"))
    return Configuration(state_dir=state, runtime_dir=run, policy_dir=policy, enforcement=section)


def told(configuration: Configuration) -> dict[str, tuple[Mark, str, str]]:
    """Give the findings by subject, the worst of each."""
    found = sorted(check_enforcement(configuration), key=lambda one: list(Mark).index(one.mark))
    return {one.subject: (one.mark, one.found, one.next_step) for one in found}


def test_a_kernel_that_can_is_left_as_it_was(directory: Path) -> None:
    """Rules and programs are tried where they select nobody, and nothing of them stays."""
    require_root()
    require(BPFFS.is_mount(), f"needs a bpffs at {BPFFS}")
    before = {path.name for path in BPFFS.iterdir()}
    found = told(settings(directory))
    assert Mark.GOOD is found["cgroup BPF"][0]
    assert found["nftables"][0] in (Mark.GOOD, Mark.NOTE)
    assert "socket cgroupv2" in found["nftables"][1]
    assert f"capd_doctor_{os.getpid()}" not in {path.name for path in BPFFS.iterdir()} - before
    ruleset = Ruleset()
    try:
        assert ruleset.flags("capd_trial") is None
    finally:
        ruleset.close()


@pytest.mark.parametrize(("mode", "mark"), [("enforce", Mark.BAD), ("off", Mark.NOTE)])
def test_a_kernel_that_cannot_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch, mode: str, mark: Mark) -> None:
    """What the kernel refuses is wrong where traffic is to be forced, a note where it is not; each says what to do."""
    require_root()

    def refuse(*_arguments: object, **_more: object) -> bool:
        raise ForcingError("no nf_tables")

    monkeypatch.setattr(doctor_enforcement, "try_rules", refuse)
    monkeypatch.setattr(doctor_enforcement, "BPFFS", directory)
    found = told(settings(directory, mode=mode))
    assert (mark, "no nf_tables") == found["nftables"][:2]
    assert "CONFIG_NFT_SOCKET" in found["nftables"][2]
    assert mark is found["cgroup BPF"][0]
    assert "mount -t bpf" in found["cgroup BPF"][2]


def test_a_trial_tells_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the namespace of a trial is told to who asked for it."""
    require_root()

    def refuse(_self: Ruleset, _table: object) -> None:
        raise ForcingError("refused")

    monkeypatch.setattr(Ruleset, "apply", refuse)
    with pytest.raises(ForcingError, match="refused"):
        trial.try_rules(proxy_port=1, resolver_port=2)


def test_a_port_that_somebody_has_is_told(directory: Path) -> None:
    """A port that another program has is named, with the key that moves it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        mark, found, step = told(settings(directory, proxy_port=port))["ports"]
    assert (Mark.BAD, True, True) == (mark, f"{port} (proxy_port)" in found, "enforcement.proxy_port" in step)
    assert Mark.GOOD is told(settings(directory))["ports"][0]


@pytest.mark.parametrize(
    ("text", "mark", "words"),
    [
        ("nameserver 192.0.2.53\n", Mark.GOOD, "192.0.2.53"),
        ("search example.com\n", Mark.BAD, "names no name server"),
        (None, Mark.BAD, "No such file"),
    ],
)
def test_name_servers_are_looked_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, mark: Mark, words: str
) -> None:
    """Runs find names only if the host has a name server that can be asked for them."""
    if text is not None:
        (directory / "resolv.conf").write_text(text, encoding="ascii")
    monkeypatch.setattr(doctor_enforcement, "RESOLV_CONF", directory / "resolv.conf")
    found = told(settings(directory))["resolver"]
    assert (mark, True) == (found[0], words in found[1])


def test_a_resolver_that_asks_itself_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose name server is where capd's own resolver would listen has none."""
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
    monkeypatch.setattr(doctor_enforcement, "RESOLV_CONF", directory / "resolv.conf")
    assert Mark.BAD is told(settings(directory, resolver_port=53))["resolver"][0]


def test_the_enforcers_user_is_looked_for(directory: Path) -> None:
    """A user who does not exist is wrong; without one of its own a free number is used, which is a note."""
    assert Mark.BAD is told(settings(directory, user="nobody-of-this-name"))["enforcer"][0]
    assert told(settings(directory))["enforcer"][0] in (Mark.GOOD, Mark.NOTE)


def test_the_policy_is_tried(directory: Path) -> None:
    """A policy must be there, be right, belong to root, and be readable for the roles that go by it."""
    require_root()
    path = directory / "policy" / "p.yaml"
    assert Mark.GOOD is told(settings(directory))["policy"][0]
    path.chmod(0o600)
    for mode in ("enforce", "off"):
        mark, found, step = told(settings(directory, mode=mode))["policy"]
        assert (Mark.BAD, True, True) == (mark, "the recorder" in found, "chmod o+r" in step)
    path.write_text("rules: 1\n", encoding="ascii")
    assert "must be a list" in told(settings(directory))["policy"][1]
    path.unlink()
    assert Mark.BAD is told(settings(directory))["policy"][0]
    mark, found, step = told(settings(directory, mode="off"))["policy"]
    assert (Mark.NOTE, True, True) == (mark, "there is no policy" in found, "write one" in step)
    assert "recorded" not in step  # what is recorded hangs on no policy where there is none


@pytest.mark.parametrize(
    ("users", "words"), [(["nobody-of-this-name"], "there is no user 'nobody-of-this-name'"), (["0"], "must not be forced")]
)
def test_users_with_whom_the_daemon_does_not_start_are_told(directory: Path, users: list[str], words: str) -> None:
    """Who is to be forced and cannot be keeps the daemon from starting, and is named before."""
    mark, found, step = told(settings(directory, users=users))["users"]
    assert (Mark.BAD, True, True) == (mark, words in found, "`enforcement.users`" in step)
