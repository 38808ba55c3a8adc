"""Which tests run one after another in one process, and which begin first: `make test` runs several processes side by side.

What lives here: a name for each test's group, and the order of the groups. What must not: fixtures.

Tests of one group share what is dear to start (a capd, Ceph) or what there is once on a machine (cgroups and files of a name),
so a file is a group. Its cases for the two tiers share nothing, so they are two.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TIERS: Final = ("modern", "classic")
SHARE_CAPD: Final = ("byte_exact", "failures", "rekeying", "run", "selection", "unseen", "unwrapping")
"""Modules of tests/e2e whose cases share a capd of each tier; one that is missing here costs some seconds."""
SYSTEM: Final = "tests/system/"
"""Modules that share a root file system and packages; and two machines that boot at once would take each other's time."""
CEPH: Final = "s3"
"""Names the cases that want Ceph."""
FIRST: Final = (
    "tests/system/",
    "tests/e2e/",
    "tests/daemon/",
    "tests/bench/",
    "tests/soak/",
    "tests/probes/",
    "tests/forcing/",
    "tests/recording/test_fleet_queries.py",
    "tests/enforcer/",
)
"""Folders, and one file with Spark, whose tests mostly wait and take long: begun last they would be waited for alone."""


def group(test: str) -> str:
    """Name the group of a test.

    Args:
        test: its id, such as `tests/e2e/test_loss.py::test_kill_of_everything[classic]`.

    Returns:
        Such as `tests/e2e/test_loss.py-classic`, `capd-modern` or `ceph`.
    """
    path, _, rest = test.partition("::")
    words = re.findall("[a-z0-9]+", rest.partition("[")[2])
    if CEPH in words:
        return "ceph"
    if path.startswith(SYSTEM):
        return "system"
    shared = "capd" if path in {f"tests/e2e/test_{module}.py" for module in SHARE_CAPD} else path
    return "-".join([shared, *(tier for tier in TIERS if tier in words)])


def rank(path: str) -> int:
    """Tell how early a file's tests begin; less is earlier."""
    return next((number for number, folder in enumerate(FIRST) if path.startswith(folder)), len(FIRST))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # shipped without types
    """Gives each process one group after another."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        """Keep the order that the tests were collected in."""
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
