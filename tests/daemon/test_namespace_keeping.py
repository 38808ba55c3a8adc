"""The thread that looks after other network namespaces: whatever goes wrong in it is told, and it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.daemon.cgroups import Hierarchy
from capd.daemon.namespace_keeping import NamespaceKeeper
from tests.daemon.conftest import wait_until
from tests.requirements import require_root


@pytest.fixture
def said() -> list[str]:
    """Keep what the operator is told."""
    return []


@pytest.fixture
def keeper(instance_dir: Path, said: list[str]) -> Iterator[NamespaceKeeper]:
    """Give one that has nothing to look after."""
    require_root()
    made = NamespaceKeeper(instance_dir / "namespaces.sock", os.geteuid(), (1, 2), Hierarchy(systemd=False), said.append)
    yield made
    made.close()


def test_a_defect_in_handing_over_ends_nothing(
    keeper: NamespaceKeeper, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread lives on, the defect is said once, and stays in the status."""
    tries = []

    def fail() -> None:
        tries.append(1)
        raise KeyError(7)

    before = keeper.problem
    monkeypatch.setattr(keeper._server, "attend", fail)
    wait_until(lambda: len(tries) > 1, "it was tried again")
    monkeypatch.undo()
    assert (None, "KeyError(7)", 1, True) == (before, keeper.problem, len(said), keeper._thread.is_alive())
