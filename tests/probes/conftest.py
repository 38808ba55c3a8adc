"""Captures that the kernel tests share: loading one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from capd.probes.capture import Capture
from tests.probes.watching import started
from tests.requirements import require_probes


@pytest.fixture(scope="session", params=["modern", "classic"])
def capture(request: pytest.FixtureRequest) -> Iterator[Capture]:
    """Give a capture of each tier."""
    require_probes()
    with started(request.param) as running:
        yield running
