"""What instances of one test run compiled, kept for the others.

What lives here: a directory that all processes of the run share. What must not: any knowledge of what is in the files; capd
takes a file for its own only where it would compile the same, and tests/probes/test_compiled.py proves the compiling.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PLACE = "CAPD_TEST_PROBES"
"""Names the directory to the processes of the run; without it everything is compiled."""


def begin() -> Callable[[], None]:
    """Make the directory, unless a process above this one has; give what removes it."""
    if PLACE in os.environ:
        return lambda: None
    os.environ[PLACE] = tempfile.mkdtemp(prefix="capd-test-probes-")
    return end


def end() -> None:
    """Remove the directory."""
    shutil.rmtree(os.environ.pop(PLACE), ignore_errors=True)


def bring(state: Path) -> None:
    """Give what there is to an instance that has no state yet."""
    place = os.environ.get(PLACE)
    if place is None or state.exists():
        return
    (state / "probes").mkdir(mode=0o700, parents=True)
    for kept in Path(place).glob("*.probes"):
        shutil.copyfile(kept, state / "probes" / kept.name)
        (state / "probes" / kept.name).chmod(0o600)


def keep(state: Path) -> None:
    """Take over what an instance compiled."""
    place = os.environ.get(PLACE)
    if place is None:
        return
    for compiled in (state / "probes").glob("*.probes"):
        kept = Path(place) / compiled.name
        if not kept.exists():
            with suppress(FileNotFoundError):  # the instance writes it anew in this moment
                whole = shutil.copyfile(compiled, kept.with_suffix(f".{os.getpid()}"))
                whole.rename(kept)
