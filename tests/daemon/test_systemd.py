"""The systemd units: right by systemd's own check. tests/system has them at work."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from capd.daemon import start_pause
from capd.daemon.cgroups import AGENTS_SLICE
from capd.daemon.errors import ConfigurationError, KeeperError, PortTakenError, StateDirectoryFullError
from tests.daemon.conftest import REPOSITORY
from tests.requirements import require_command

UNITS = REPOSITORY / "systemd"


def test_units_are_right(tmp_path: Path) -> None:
    """systemd-analyze has nothing to say about the units, once the command is where they expect it."""
    require_command("systemd-analyze")
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.slice"), *UNITS.glob("*.target")):
        text = unit.read_text(encoding="utf-8").replace("/usr/bin/capd", "/bin/true")
        text = re.sub(r"^(User|Group)=capd(-enforcer)?$", r"\1=daemon", text, flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "capd" in line]
    assert [] == mine


def test_what_shows_a_claim_is_there() -> None:
    """Every test that docs/security.md names is one."""
    page = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    rows = re.findall(r"`([a-z0-9_]+/[a-z0-9_]+\.py)`((?:: |, )`test_\w+`(?:, `test_\w+`)*)?", page)
    assert len(rows) > 20
    for file, names in rows:
        text = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
        for name in re.findall(r"test_\w+", names):
            assert f"def {name}(" in text, f"{file}: {name}"


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service") if "Restart=" in path.read_text()))
def test_nobody_stays_down_because_some_starts_failed(unit: str) -> None:
    """A unit that is started more than five times in ten seconds is given up; none of ours comes to that, or it may."""
    found = dict(re.findall(r"^(\w+)=(.*)$", (UNITS / unit).read_text(encoding="utf-8"), flags=re.MULTILINE))
    seconds = re.fullmatch(r"(\d+)(m?s)", found["RestartSec"])
    assert seconds is not None
    assert found.get("StartLimitIntervalSec") == "0" or 5 * int(seconds[1]) >= 10_000 / {"ms": 1, "s": 1_000}[seconds[2]]


@pytest.mark.parametrize(
    ("error", "environment", "expected"),
    [
        (PortTakenError("127.0.0.1", 1, OSError(98, "in use")), {"NOTIFY_SOCKET": "/x"}, [start_pause.SECONDS]),
        (StateDirectoryFullError("full"), {"NOTIFY_SOCKET": "/x"}, [start_pause.SECONDS]),
        (StateDirectoryFullError("full"), {}, []),
        (ConfigurationError("wrong"), {"NOTIFY_SOCKET": "/x"}, []),
        (KeeperError("ended"), {"NOTIFY_SOCKET": "/x"}, []),
        (OSError("of ours"), {"NOTIFY_SOCKET": "/x"}, []),
    ],
)
def test_what_passes_is_not_tried_again_at_once(error: Exception, environment: dict[str, str], expected: list[float]) -> None:
    """Under a service manager a start ends late where trying again helps later, and at once where it helps now or never."""
    slept: list[float] = []
    start_pause.pause(error, environment, slept.append)
    assert expected == slept


def test_slice_of_the_units_is_the_daemons() -> None:
    """The slice that capd asks systemd for is the one that the package brings."""
    assert (UNITS / AGENTS_SLICE).exists()
