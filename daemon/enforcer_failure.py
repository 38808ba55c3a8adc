"""Why the enforcer did not start, told where it tells how it is: whoever asks hears the reason and what to do.

What lives here: that report. What must not: the report of one that runs (enforcer_processes.py), judging (health.py).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.daemon import processes
from capd.daemon.version import VERSION
from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import CapdError

FAILED: Final = "failed"
"""The state in such a report. Its process is over, whoever has its number now."""
BYTES_MAX: Final = 1 << 20


def write(status_file: Path, error: CapdError) -> None:
    """Tell why this process ends; not in the place of another one that runs, which may be the reason."""
    if _another_runs(status_file):
        return
    told = {"message": str(error), "hint": error.hint}
    report = {"state": FAILED, "pid": os.getpid(), "version": VERSION, "time": time.time(), "error": told}
    with suppress(OSError):  # the reason is on standard error, too
        replace_content(status_file, json.dumps(report, indent=1).encode(), mode=0o644, sync=False)


def _another_runs(status_file: Path) -> bool:
    try:
        found = json.loads(read_regular(status_file, BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return False
    match found:
        case {"state": str(state), "pid": int(pid)}:
            return state != FAILED and pid != os.getpid() and processes.exists(pid)
    return False
