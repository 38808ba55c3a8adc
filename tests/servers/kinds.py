"""An empty bucket of each kind that capd knows how to use, in a real server.

What lives here: which kinds there are, and how a test gets one. What must not: the servers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.azurite import Azurite
from tests.servers.ceph import Ceph

KINDS = ("directory", "s3", "azure")
LOCKING = "s3 with object lock"


def empty_bucket(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, directory: Path) -> str:
    """Give the URL of an empty bucket; this process's environment is set to reach it.

    Args:
        kind: of KINDS, or LOCKING.
        request: of a fixture; a server that nobody asked for is not started.
        monkeypatch: sets the environment.
        directory: where a bucket that is a directory is made.
    """
    if kind == "directory":
        (directory / "bucket").mkdir()
        return str(directory / "bucket")
    server: Azurite | Ceph = request.getfixturevalue("azurite" if kind == "azure" else "ceph")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.url() if isinstance(server, Azurite) else server.url(lock=kind == LOCKING)
