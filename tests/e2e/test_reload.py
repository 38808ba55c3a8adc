"""The configuration is read anew while an agent talks: good ones and bad ones, again and again, and not a byte is lost.

What lives here: that. What must not: what a reload takes over (tests/daemon/test_reload.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capd.daemon import reload_client
from tests.e2e.certificates import Certificates
from tests.e2e.instance import Instance, running
from tests.e2e.test_loss import first_record, traffic
from tests.e2e.truth import Server, noise
from tests.requirements import require_probes

pytestmark = pytest.mark.e2e

RELOADS = (
    ("[selection]\ncgroups = ['/nowhere']\n", True),
    ("[storage]\nlow_bytes = 'many'\n", False),
    ("[selection", False),
    ("[journal]\nbytes_max = 1073741824\n", True),
)
"""The last one is right: whoever asks reads it, too."""


def test_no_byte_is_lost(directory: Path, trusted: Certificates, mirror: Server) -> None:
    """Four reloads while an agent talks over TLS change nothing of its record: one connection, whole, and no loss."""
    require_probes()
    body = directory / "body"
    body.write_bytes(noise("reloaded", 20_000))
    with running(directory) as instance:
        settings = instance.config.read_text()
        agent = traffic(instance, "talking", trusted, mirror, body, until=directory / "enough")
        first_record(instance, "talking")
        for more, expected in RELOADS:
            instance.config.write_text(f"{settings}{more}")
            assert expected == _reload(instance)
            assert agent.poll() is None, "the agent ended before the last reload"
        (directory / "enough").touch()
        assert 0 == agent.wait(180)
        instance.assert_recorded("talking", mirror.ledger.take(1), protocol="http1", state="closed")
        found = json.loads(instance.ask("status", "--json", check=False).stdout)
        assert (0, {}, None) == (found["losses"]["bytes"], found["losses"]["counters"], found["configuration"]["problem"])
        assert len(RELOADS) == found["configuration"]["reloads"]


def _reload(instance: Instance) -> bool:
    """Ask as `capd config reload` does, whose start takes longer than all of it; say whether it was taken over."""
    return reload_client.reload(instance.directory / "run").problem is None
