"""Runs cases one after the other in a process that has the seam: `python -P -m tests.soak.crashes.run FIRST COUNT`.

What lives here: the loop, and what is printed. What must not: cases.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import sqlite_utils  # noqa: F401 - half of the time of a recorder in a case was importing it, once in each child

from tests.soak.crashes import cases
from tests.soak.crashes.seam import VARIABLE


def main(first: int, count: int, kind: str = "") -> int:
    """Run some cases, or as many until it is told to end; print those that fail, and how many there were of each kind."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    done: Counter[str] = Counter()
    failures = 0
    began = time.monotonic()
    gc.freeze()
    for seed in range(first, first + count):
        if asked:
            break
        directory = Path(tempfile.mkdtemp(prefix="capd-crash-"))
        try:
            done[cases.run(seed, directory, kind)] += 1
        except Exception:  # noqa: BLE001 - all failures are shown, each with its seed
            failures += 1
            sys.stderr.write(f"CAPD_SOAK_SEED={seed}\n{traceback.format_exc()}\n")
            if os.environ.get("CAPD_SOAK_KEEP"):
                sys.stderr.write(f"kept in {directory}\n")
                continue
        shutil.rmtree(directory)
    sys.stdout.write(json.dumps({"cases": done, "failures": failures, "seconds": round(time.monotonic() - began, 1)}) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    assert VARIABLE in os.environ, "start it through tests/soak/test_crashes.py, or with LD_PRELOAD and CAPD_SEAM"
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
