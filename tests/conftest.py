"""What every test shares.

What lives here: settings and servers that several folders of tests need. What must not: fixtures of one folder.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from capd.daemon.mounts import mount_bpffs
from tests import kept_probes, side_by_side
from tests.e2e.certificates import make
from tests.requirements import in_ci
from tests.servers import azurite as azure
from tests.servers.ceph import Ceph, server

BPFFS = Path("/sys/fs/bpf")

# One slow machine is no reason to fail; a decoder that is slow on one input is found by the soak test, which measures growth.
settings.register_profile("default", deadline=timedelta(seconds=2), print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if in_ci() else "default"))

# A build server may start us in the background with SIGINT ignored; every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of this run share what they compile."""
    config.add_cleanup(kept_probes.begin())
    if not hasattr(config, "workerinput") and not BPFFS.is_mount():
        config.add_cleanup(_unmount)
        mount_bpffs()  # if it may; else what needs it would hang on whether some other test's capd came first


def _unmount() -> None:
    """Take away the bpffs that was mounted for the tests."""
    subprocess.run(["umount", str(BPFFS)], stderr=subprocess.DEVNULL, check=False)  # none did, or somebody uses it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what takes longest."""
    items.sort(key=lambda item: side_by_side.rank(item.path.relative_to(config.rootpath).as_posix()))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> side_by_side.Scheduling:
    """Say which tests run in one process."""
    return side_by_side.Scheduling(config, log)


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Keep what thousands of tests left out of the collector's way: no role has a heap that takes 0.4 s."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Run one S3 server for all tests of the session that ask for it."""
    directory = tmp_path_factory.mktemp("ceph")
    (directory / "tls").mkdir()
    with server(directory / "data", make(directory / "tls")) as running:
        yield running


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azure.Azurite]:
    """Run one Azure server for all tests of the session that ask for it."""
    with azure.server(tmp_path_factory.mktemp("azurite")) as running:
        yield running
