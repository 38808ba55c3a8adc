"""When certificates of the enforcer end, and whether the host's clock is kept: both as the kernel and the files say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from capd.daemon import certificate_expiry, clock, trust
from capd.daemon.alert_kinds import Alert
from capd.daemon.configuration import parse
from capd.daemon.health_upkeep import UpkeepFacts, upkeep_reasons
from capd.daemon.status_facts import upkeep_facts
from capd.daemon.version import VERSION
from capd.enforcer.tls.authority import make_authority

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_each_certificate_is_found_with_its_end(tmp_path: Path) -> None:
    """The authority, the first certificate of each chain for a target, and the listener's are read with their ends."""
    settings = parse(
        {
            "state_dir": str(tmp_path / "state"),
            "enforcement": {
                "client_certificates": [
                    {"host": "a.example", "certificate": str(tmp_path / "client.pem"), "key": "/k"},
                    {"host": "b.example", "certificate": str(tmp_path / "missing.pem"), "key": "/k"},
                    {"host": "c.example", "certificate": str(tmp_path / "nonsense.pem"), "key": "/k"},
                ]
            },
            "approvals": {"certificate": str(tmp_path / "listener.pem"), "key": "/k"},
        },
        "test",
    )
    made = [make_authority("host", NOW - timedelta(days=days)) for days in (1, 2, 3, 4)]
    trust.authority_file(settings).parent.mkdir(parents=True)
    trust.authority_file(settings).write_bytes(made[0].certificate_pem)
    (tmp_path / "client.pem").write_bytes(made[1].certificate_pem + made[3].certificate_pem)
    (tmp_path / "listener.pem").write_bytes(made[2].certificate.public_bytes(Encoding.PEM))
    (tmp_path / "nonsense.pem").write_bytes(b"nonsense")
    found = certificate_expiry.expiries(settings)
    ends = [one.certificate.not_valid_after_utc.timestamp() for one in made[:3]]
    assert list(zip(("authority", "client", "listener"), ends, strict=True)) == [(one["kind"], one["until"]) for one in found]
    assert "a.example" in str(found[1]["name"])


@pytest.mark.parametrize(
    ("seconds", "alert"), [(31 * 86_400, None), (29 * 86_400, Alert.CERTIFICATE_EXPIRING), (-1, Alert.CERTIFICATE_EXPIRED)]
)
def test_what_the_enforcer_reports_becomes_an_alert(seconds: float, alert: Alert | None) -> None:
    """From the enforcer's report to the alert; what an enforcer reports in another shape is passed over."""
    told = [{"kind": "client", "name": "it", "until": NOW.timestamp() + seconds}, {"kind": 3}, "x", {"kind": "x", "name": "y"}]
    facts = upkeep_facts({"version": VERSION}, {"enforcer": {"version": VERSION, "certificates": told}})
    assert ([] if alert is None else [alert]) == [
        reason.alert for reason in upkeep_reasons(facts, int(NOW.timestamp()) * 1_000_000_000)
    ]


def test_roles_of_another_version_are_told() -> None:
    """A role that an upgrade left running is told, the daemon too; one that does not say its version is not."""
    facts = upkeep_facts({"version": "0.0.1"}, {"recorder": {"version": VERSION}, "shipper": {}, "metrics": {"version": 7}})
    (reason,) = upkeep_reasons(facts, 0)
    assert (Alert.VERSIONS_DIFFER, "`systemctl restart capd`") == (reason.alert, reason.next_step.split(";")[0])
    assert "the daemon is 0.0.1" in reason.reason


def test_nothing_is_wrong_with_nothing() -> None:
    """Without an enforcer and with a disk that does not fill there is nothing to tell."""
    assert [] == list(upkeep_reasons(UpkeepFacts(version=VERSION), 0))


def test_the_clock_is_asked_and_not_set() -> None:
    """The kernel says whether the clock is kept right, and how far off it may be if it is."""
    found = clock.facts()
    assert {"synchronised", "error_seconds"} == set(found)
    assert isinstance(found["error_seconds"], float) == (found["synchronised"] is True)
