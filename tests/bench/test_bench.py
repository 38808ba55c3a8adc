"""The benchmarks run: a short one of the parts whose figures the documentation quotes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require_command, require_probes

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.kernel
def test_a_short_run_gives_its_figures(tmp_path: Path) -> None:
    """A second of messages: the figures are there and mean something. How much is lost depends on the machine."""
    require_probes()
    require_command("gcc")
    figures = tmp_path / "figures.json"
    options: list[str | Path] = [
        "--seconds",
        "1",
        "--only",
        "sustained",
        "--only",
        "memory",
        "--tier",
        "modern",
        "--size",
        "65536",
        "--json",
        figures,
    ]
    result = subprocess.run(
        [sys.executable, "-P", ROOT / "bench" / "run.py", *options], capture_output=True, text=True, check=False
    )
    assert 0 == result.returncode, result.stdout + result.stderr
    found = json.loads(figures.read_text())
    paced = next(value for name, value in found["sustained"].items() if not name.endswith("unpaced"))
    assert paced["records_per_second"] > 0
    assert 0 < found["memory"]["proportional"] < 1 << 30
    assert {"capd up", "daemon", "metrics", "recorder"} == set(found["memory"]["resident"])
