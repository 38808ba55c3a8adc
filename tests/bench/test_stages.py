"""The benches that tell stages run, and each stage has its figure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("bench", "words", "figures"), [("statement_stages", ["1", "pipelined"], 7), ("request_stages", ["1"], 24)]
)
def test_each_stage_has_its_figure(bench: str, words: list[str], figures: int) -> None:
    """What is said goes through each stage, and takes time there."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command: list[str | Path] = [sys.executable, "-P", ROOT / "bench" / f"{bench}.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert 0 == done.returncode, done.stderr
    found = [float(figure) for line in done.stdout.splitlines()[2:] for figure in re.findall(r" (\d+\.\d)\b", line)]
    assert figures == len(found), done.stdout
    assert all(figure > 0 for figure in found), done.stdout
