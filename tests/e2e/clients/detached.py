"""Agent: goes away at once and leaves a grandchild in a session of its own, which then runs a command.

detached.py PIPE COMMAND...     the grandchild starts when its parents are gone, and writes its exit status into PIPE
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(pipe: str, *command: str) -> None:
    """Fork, setsid, fork: the usual way to become a daemon."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in range(3):
        os.close(descriptor)
    os.open(os.devnull, os.O_RDWR)
    os.dup2(0, 1)
    os.dup2(0, 2)
    status = subprocess.run(command, check=False).returncode
    Path(pipe).write_text(str(status), encoding="ascii")
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
