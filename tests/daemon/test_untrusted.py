"""An authority that cannot be used: who records goes on, the enforcer does not start, and both say why and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import enforcer_failure, enforcer_files, first_start, status, status_facts, trust
from capd.daemon.configuration import Configuration, parse
from capd.enforcer.tls.authority import AUTHORITY_DAYS, make_authority
from capd.enforcer.tls.errors import AuthorityUnusableError, TrustStoreError
from tests.daemon.conftest import call
from tests.requirements import require_root

FREE_ID = "61901"
"""Of a user who does not exist: the enforcer's."""
LONG_AGO = timedelta(days=AUTHORITY_DAYS + 2)


@pytest.fixture
def settings(instance_dir: Path) -> Configuration:
    """Give an instance that enforces, with a file that says so."""
    require_root()
    values: dict[str, Any] = {"state_dir": f"{instance_dir}/state", "runtime_dir": f"{instance_dir}/run"}
    text = "\n".join(f'{key} = "{value}"' for key, value in values.items())
    (instance_dir / "capd.toml").write_text(f'{text}\n[enforcement]\nmode = "enforce"\nuser = "{FREE_ID}"\n')
    return parse({**values, "enforcement": {"mode": "enforce", "user": FREE_ID}}, "test")


def grow_old(settings: Configuration) -> None:
    """Put an authority there that is over."""
    old = make_authority("host", datetime.now(UTC) - LONG_AGO)
    trust.authority_file(settings).write_bytes(old.certificate_pem)
    trust.authority_key_file(settings).write_bytes(old.key_pem)


def damage(settings: Configuration) -> None:
    """Put a key there that is none."""
    trust.authority_key_file(settings).write_bytes(b"nothing")


def test_who_records_keeps_no_library_of_certificates(settings: Configuration, instance_dir: Path) -> None:
    """What agents trust is made by a child: the daemon, which lives for ever, does not carry what that needs."""
    command = (
        "import sys; from capd.daemon import first_start, settled;"
        f" assert None is first_start.directories(settled.load({str(instance_dir / 'capd.toml')!r}))[1];"
        " print([name for name in sys.modules if name in {'cryptography.x509', 'capd.daemon.trust'}])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", command], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
    assert trust.authority_key_file(settings).exists()


@pytest.mark.parametrize(("spoil", "words"), [(grow_old, "is over since"), (damage, "cannot be read")])
def test_who_records_goes_on(settings: Configuration, spoil: Any, words: str) -> None:  # noqa: ANN401 - a function
    """All else that a start needs is made; what is wrong is given, until the key is removed as the hint says."""
    assert None is first_start.directories(settings)[1]
    spoil(settings)
    user, untrusted = first_start.directories(settings)
    assert isinstance(untrusted, AuthorityUnusableError)
    assert words in str(untrusted)
    assert 36 == len(str(first_start.identity(settings, user)))
    assert "remove `authority.key`" in untrusted.hint
    trust.authority_key_file(settings).unlink()
    assert None is first_start.directories(settings)[1]
    assert datetime.now(UTC) < trust.load(settings, datetime.now(UTC)).certificate.not_valid_after_utc


def test_a_system_that_trusts_nobody_keeps_nobody_from_recording(
    settings: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the system's authorities there is no store to point agents at: that is told, and no more."""
    monkeypatch.setattr(trust, "SYSTEM_BUNDLES", (Path("/nowhere"),))
    assert isinstance(first_start.directories(settings)[1], TrustStoreError)


def test_setup_says_it_and_is_done(settings: Configuration, instance_dir: Path) -> None:
    """A package is installed and upgraded all the same, and says that the enforcer will not start."""
    first_start.directories(settings)
    grow_old(settings)
    done = call("setup", "--config", instance_dir / "capd.toml")
    assert (0, True) == (done.returncode, "the enforcer will not start: the authority's certificate is over" in done.stderr)


def test_the_enforcer_does_not_start_and_says_why(settings: Configuration, instance_dir: Path) -> None:
    """It ends with status 5; the status that is asked later has its reason and what to do."""
    first_start.directories(settings)
    grow_old(settings)
    done = call("enforcer", "--config", instance_dir / "capd.toml")
    assert (5, True) == (done.returncode, "the authority's certificate is over since" in done.stderr)
    report, age = status._reported(settings.enforcer_status_file)
    facts = status_facts.enforcer_facts(report, age)
    assert False is facts.running
    assert facts.failure is not None
    assert ("is over since" in facts.failure[0], "authority.key" in facts.failure[1]) == (True, True)


def test_one_that_runs_is_not_said_to_have_failed(tmp_path: Path) -> None:
    """A second enforcer, which ends because there is one, does not write where the first tells how it is."""
    report = tmp_path / "status.json"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for state, pid, expected in (("running", other.pid, "running"), ("running", 2**22 + 1, "failed")):
            report.write_text(json.dumps({"state": state, "pid": pid}))
            enforcer_failure.write(report, AuthorityUnusableError("over"))
            assert expected == json.loads(report.read_text())["state"]
        other.communicate(b"\n")


def test_a_failure_counts_whoever_has_its_number(tmp_path: Path) -> None:
    """The report of an enforcer that failed is not taken for one that runs, though a process has that number."""
    enforcer_failure.write(tmp_path / "status.json", AuthorityUnusableError("over"))
    report, age = status._reported(tmp_path / "status.json")
    assert (os.getpid(), False) == (report["pid"], status_facts.is_running(report, age))


def test_who_enforces_makes_it_once(settings: Configuration) -> None:
    """Doing it again changes nothing of an authority that is good."""
    first_start.directories(settings)
    before = trust.authority_file(settings).read_bytes()
    assert None is enforcer_files.prepare(settings)
    assert before == trust.authority_file(settings).read_bytes()
