"""A configuration that is wrong, and who asks how capd is: what can be shown is, and the line that is wrong is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import configuration_files, configuration_salvage, doctor, locations
from capd.daemon.configuration import Configuration
from capd.daemon.errors import ConfigurationError
from capd.daemon.finding import Mark
from tests.daemon.conftest import Daemon, call, wait_until
from tests.daemon.test_status_cost import answering
from tests.requirements import require_root

WRONG = [
    ("[capture\n", 3, "not TOML"),
    ("[capture]\ntier = 'best'\n", 4, "capture.tier"),
    ("nothing = 1\n", 3, "nothing: no such key"),
    ("[capture]\ntier = \xff\n", 4, "not TOML"),
]


def spoil(config: Path, directory: Path, text: str) -> None:
    """Write a configuration of this instance that is wrong."""
    head = f'state_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n'
    config.write_text(head + text, encoding="latin-1")


def reason(found: dict[str, Any]) -> dict[str, str]:
    """Give what a status says of the configuration."""
    (only,) = [one for one in found["reasons"] if one["alert"] == "configuration-refused"]
    return dict(only)


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_a_daemon_that_runs_is_asked(tmp_path: Path, text: str, line: int, words: str) -> None:
    """While a daemon runs, status shows what it has in force, and one line says where the file is wrong and what to do."""
    with answering(tmp_path, changed=True) as config:
        spoil(config, tmp_path, text)
        screen, parsed = call("status", "--config", config), call("status", "--config", config, "--json")
    assert ("", 1, 1) == (screen.stderr, screen.returncode, parsed.returncode)
    found = json.loads(parsed.stdout)
    said, (told,) = reason(found), [one for one in screen.stdout.splitlines() if f"{config}:{line}: " in one]
    assert words in told
    assert f"{config}:{line}: " in said["reason"]
    assert "capd config check" in said["next_step"]
    assert "systemctl reload capd" in said["next_step"]
    assert "changed on disk since: is wrong, see above" in screen.stdout
    assert (str(tmp_path / "state"), "9.8.7") == (found["disk"]["state_dir"], found["version"])
    assert f"{config}:{line}: " in found["configuration"]["on_disk"]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_without_a_daemon_what_is_right_is_shown(tmp_path: Path, text: str, line: int, words: str) -> None:
    """While none runs, status says down, where the file is wrong, and shows the rest by what the file says rightly."""
    config = tmp_path / "capd.toml"
    spoil(config, tmp_path, f'bucket_url = "file:///x"\n{text}')
    done = call("status", "--config", config, "--json")
    found = json.loads(done.stdout)
    assert (2, "down", "") == (done.returncode, found["health"], done.stderr)
    assert [f"{config}:{line + 1}: ", words] == [
        part for part in (f"{config}:{line + 1}: ", words) if part in str(reason(found))
    ]
    assert ("daemon-down", True) == (found["reasons"][0]["alert"], "mend the configuration" in found["reasons"][0]["next_step"])
    assert str(tmp_path / "state") == found["disk"]["state_dir"]
    assert "shipper" in found["roles"]


def test_one_that_was_mended_waits_for_a_reload(tmp_path: Path) -> None:
    """A file that has changed and is right is not called wrong."""
    with answering(tmp_path, changed=True) as config:
        spoil(config, tmp_path, "")
        found = json.loads(call("status", "--config", config, "--json").stdout)
    assert None is found["configuration"]["on_disk"]
    assert [] == [one for one in found["reasons"] if one["alert"] == "configuration-refused"]


def test_who_may_not_read_it_does_not_judge_it(instance_dir: Path) -> None:
    """To a user who may not read a file of conf.d, the status says nothing of it that he cannot know."""
    require_root()
    with answering(instance_dir, changed=True) as config:
        spoil(config, instance_dir, "")
        (instance_dir / "conf.d").mkdir(mode=0o755)
        (instance_dir / "conf.d" / "a.toml").write_text("wrong = 1")
        (instance_dir / "conf.d" / "a.toml").chmod(0o600)
        command: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
        done = call("status", "--config", config, "--json", **command)
        assert [] == [one for one in json.loads(done.stdout)["reasons"] if one["alert"] == "configuration-refused"]
        assert "a.toml:1: wrong" in str(reason(json.loads(call("status", "--config", config, "--json").stdout)))


def test_no_other_instance_is_taken_for_one_that_is_not_known(tmp_path: Path) -> None:
    """A named file whose `runtime_dir` is wrong does not lead to the instance of the default; the line is told."""
    config = tmp_path / "capd.toml"
    config.write_text("runtime_dir = 5\n")
    done = call("status", "--config", config)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"{config}:1: runtime_dir" in done.stderr


def test_the_file_of_the_default_instance_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody named a file, a wrong `runtime_dir` in the usual one leads to the usual place."""
    monkeypatch.setattr(configuration_files, "CONFIGURATION", tmp_path / "capd.toml")
    monkeypatch.delenv("CAPD_CONFIG", raising=False)
    (tmp_path / "capd.toml").write_text("runtime_dir = 5\n")
    assert locations.RUNTIME_DIRECTORY == locations.likely_runtime_directory(None)


@pytest.mark.parametrize("which", ["conf.d", "conf.d/a.toml"])
def test_what_others_can_write_says_nothing(instance_dir: Path, which: str) -> None:
    """What another user could have put into conf.d leads nobody anywhere, and is told."""
    require_root()
    config = instance_dir / "capd.toml"
    spoil(config, instance_dir, "")
    (instance_dir / "conf.d").mkdir()
    (instance_dir / "conf.d" / "a.toml").write_text('runtime_dir = "/elsewhere"')
    (instance_dir / which).chmod(0o777)
    assert instance_dir / "run" == locations.likely_runtime_directory(str(config))
    done = call("status", "--config", config, "--json")
    assert "may be written by others" in str(reason(json.loads(done.stdout)))


def test_a_file_that_is_not_there_is_no_wrong_one(tmp_path: Path) -> None:
    """Nothing is shown of a file that does not exist: it was mistyped."""
    with pytest.raises(ConfigurationError, match="No such file"):
        configuration_salvage.understand(str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("text", "picked", "expected"),
    [
        ("bucket_url = 'file:///x'\nwrong = 1", lambda it: it.bucket_url, "file:///x"),
        ("[shipper]\nlate_seconds = 'x'\nbytes_per_second = 5000", lambda it: it.shipper.bytes_per_second, 5000),
        ("[[retention]]\nhot_days = 1\n[[retention]]\nname = 'b'", lambda it: [one.name for one in it.retention], ["b"]),
        ("[selection]\nslices = ['a.slice', 3]", lambda it: it.selection.slices, ("a.slice",)),
        ("[enforcement]\nmode = 'enfroce'", lambda it: it.enforcement.mode, "enforce"),
        ("[enforcement\nmode = 'enforce'", lambda it: it.enforcement.mode, "enforce"),
        ("enforcement = 3", lambda it: it.enforcement.mode, "enforce"),
        ("state_dir = '/a'\nruntime_dir = '/a'", lambda it: it, Configuration()),
        ("x = 1\n" * 200, lambda it: it, Configuration()),
    ],
)
def test_what_is_right_is_understood(
    tmp_path: Path, text: str, picked: Callable[[Configuration], object], expected: object
) -> None:
    """All that is wrong is left out, and little of what is right; who is closed off by the guard is said to be forced."""
    (tmp_path / "capd.toml").write_text(text)
    found = configuration_salvage.understand(str(tmp_path / "capd.toml"))
    assert expected == picked(found.settings)
    assert found.problem is not None


def test_the_doctor_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor names the line, and looks at all else by what is right."""
    monkeypatch.setattr(doctor, "_enforcement", lambda _settings: [])
    spoil(tmp_path / "capd.toml", tmp_path, "[capture\n")
    found = doctor.check_host(str(tmp_path / "capd.toml"))
    bad = {one.subject: one.found for one in found if one.mark is Mark.BAD}
    assert f"{tmp_path}/capd.toml:3: not TOML" in bad["configuration"]
    assert f"{tmp_path}/run/control.sock" in bad["daemon"]
    assert [f"{tmp_path}/state"] == [one.found.split(",")[0] for one in found if one.subject == "state_dir"]


@pytest.mark.parametrize("verb", [(str(os.getpid()),), ("tls",)])
def test_the_doctor_explains_all_the_same(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """What else the doctor is asked is answered while the file is wrong."""
    spoil(tmp_path / "capd.toml", tmp_path, "[capture\n")
    done = call("doctor", "--config", tmp_path / "capd.toml", "--json", *verb)
    assert "" == done.stderr
    assert json.loads(done.stdout)


@pytest.mark.kernel
def test_a_real_daemon_keeps_what_is_in_force(daemons: Callable[..., Daemon]) -> None:
    """A daemon goes on while its file is spoiled; status has all that it tells, doctor too, and both get well with the file."""
    daemon = daemons()
    daemon.start()
    before = daemon.config.read_text()
    names = set(json.loads(call("status", "--config", daemon.config, "--json").stdout))
    daemon.config.write_text(f"{before}\n[capture\n")
    line = len(daemon.config.read_text().splitlines())
    found = json.loads(call("status", "--config", daemon.config, "--json").stdout)
    assert f"{daemon.config}:{line}: not TOML" in reason(found)["reason"]
    assert names == set(found)
    findings = json.loads(call("doctor", "--config", daemon.config, "--json").stdout)
    assert [f"pid {found['roles']['daemon']['pid']}"] == [
        one["found"].split(",")[0] for one in findings if one["subject"] == "daemon"
    ]
    daemon.config.write_text(before)

    def well() -> bool:
        reasons = json.loads(call("status", "--config", daemon.config, "--json").stdout)["reasons"]
        return not [one for one in reasons if one["alert"] == "configuration-refused"]

    wait_until(well, "the file is right again")
