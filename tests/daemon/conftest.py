"""What tests of the roles share: conditions of the host, private directories, processes that end with the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capd.daemon.configuration import Configuration


def missing(reason: str) -> None:
    """Skip the test because the host lacks something; fail instead where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have this: {reason}")
    pytest.skip(reason)


@pytest.fixture
def root() -> None:
    """Ask for root."""
    if os.geteuid() != 0:
        missing("needs root")


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """Give an instance of its own, whose directories do not exist yet."""
    tmp_path.chmod(0o755)
    return Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
