"""Crashes, many of them: roles killed at any of their calls, full disks, jumping clocks, cut power, spoiled files and keys.

How many cases: CAPD_SOAK_CRASHES; `make soak` asks for 2,000, `make test` runs two of each kind. Where they begin:
CAPD_SOAK_SEED. A failure names the seed of its case; CAPD_SOAK_SEED=that CAPD_SOAK_CRASHES=1 runs it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require_command, require_root
from tests.soak.crashes import seam
from tests.soak.crashes.cases import KINDS

CASES = int(os.environ.get("CAPD_SOAK_CRASHES", str(2 * len(KINDS))))
SEED = int(os.environ.get("CAPD_SOAK_SEED", "1"))
REPOSITORY = Path(__file__).parents[2]
WORKERS = min(len(os.sched_getaffinity(0)), CASES)
CASE_SECONDS_MAX = 30


@pytest.mark.slow
def test_crashes(tmp_path: Path) -> None:
    """After each case nothing sealed is lost or there twice, verification tells the truth, and nobody lent a hand."""
    require_command("gcc")
    require_root()
    environment = {**os.environ, **seam.environment(seam.build(tmp_path)), "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    shares = [CASES // WORKERS + (number < CASES % WORKERS) for number in range(WORKERS)]
    workers = []
    first = SEED
    for share in shares:
        command = [sys.executable, "-P", "-m", "tests.soak.crashes.run", str(first), str(share)]
        workers.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        )
        first += share
    said = [worker.communicate(timeout=60 + CASE_SECONDS_MAX * CASES)[0].decode() for worker in workers]
    assert [0] * len(workers) == [worker.returncode for worker in workers], "\n".join(said)
