"""One host to force traffic on for all tests of this folder, and the two layers on it, whole or alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.enforcer.forcing.plan import plan
from capd.enforcer.forcing.ruleset import Ruleset
from capd.probes.barrier import Listener
from capd.probes.barrier_pins import Barrier
from tests.forcing.yard import PROXY_PORT, RESOLVER_PORT, TABLE, Yard, inside, yard
from tests.requirements import require, require_command, require_root

LISTENER = Listener(proxy_port=PROXY_PORT, resolver_port=RESOLVER_PORT)


@pytest.fixture(scope="session")
def ground() -> Iterator[Yard]:
    """Give the host."""
    require_root()
    require_command("ip")
    require(Path("/sys/fs/bpf").is_mount(), "needs a bpffs at /sys/fs/bpf")
    with yard() as made:
        # The first IPv6 packet waits until neighbours know each other.
        arrived = (made.attempt('tcp("fd77::2", 80, socket.AF_INET6)', "outside") == "ECONNREFUSED" for _try in range(20))
        require(any(arrived), "needs IPv6")
        yield made


@pytest.fixture
def rules(ground: Yard) -> Iterator[Ruleset]:
    """Give the table's owner, with the table in place."""
    made = inside(ground.host, Ruleset)
    made.apply(plan(ground.facts()))
    yield made
    made.close()
    last = inside(ground.host, Ruleset)
    last.remove(TABLE)
    last.close()


@pytest.fixture
def barrier(ground: Yard) -> Iterator[Barrier]:
    """Give the second layer, with its programs in place."""
    made = Barrier(Path("/sys/fs/bpf") / ground.tag)
    try:
        made.load(LISTENER, metadata=True)
        made.hold(ground.numbered("agents"))
        yield made
    finally:
        made.remove()
