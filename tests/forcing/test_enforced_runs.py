"""The whole way: `capd up` with enforcement, `capd run`, and what a client of the run sees."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.cgroups import find_root
from capd.daemon.enforcement_names import names_of
from capd.enforcer.decision_log import read_entries
from tests.daemon.conftest import ENVIRONMENT, Daemon, capd, open_directory, wait_until
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.kernel
POLICY = """\
rules:
  - {id: local, match: {protocols: [http], hosts: [localhost]}, then: allow}
  - {id: keep, match: {protocols: [http], methods: [DELETE]}, then: deny, reason: nothing is deleted here}
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Give a running capd that enforces; afterwards nothing of it stands."""
    require_probes()
    require_command("curl")
    with open_directory() as directory:
        (directory / "policy").mkdir()
        (directory / "policy" / "policy.yaml").write_text(POLICY, encoding="utf-8")
        ports = [23_000 + os.getpid() % 5_000 * 2 + number for number in range(2)]
        settings = f"""policy_dir = "{directory}/policy"
[selection]
slices = []
[enforcement]
mode = "enforce"
workers = 2
proxy_port = {ports[0]}
resolver_port = {ports[1]}
"""
        made = Daemon(directory, settings, verb="up")
        try:
            made.start()
            wait_until((directory / "run" / "enforcer" / "worker-1.status.json").exists, made.said())
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.stop()
            verb(made, "enforcement", "off")
            names, root = names_of(directory / "run", systemd=False), find_root()
            for path in (f"{names.parent}/capd-canary", names.parent, names.enforcer):
                with suppress(OSError):
                    (root / path.lstrip("/")).rmdir()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve a directory on loopback; gives the port."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "page").write_text("a page", encoding="ascii")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(directory))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def verb(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb."""
    before, after = (words[: words.index("--")], words[words.index("--") :]) if "--" in words else (words, ())
    command = [*capd(*before, "--config", daemon.config), *after]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT, stdin=subprocess.DEVNULL
    )


def curl(daemon: Daemon, *words: str) -> str:
    """Run curl as a run; give what it printed, head and body."""
    done = verb(daemon, "run", "--", "curl", "-sS", "-i", "--max-time", "20", *words)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_run_is_judged(daemon: Daemon, port: int) -> None:
    """A run gets what the policy allows, is told what it denies, and both are in the decision log under its id."""
    assert "a page" in curl(daemon, f"http://localhost:{port}/page")
    head, _, body = curl(daemon, "-X", "DELETE", f"http://localhost:{port}/page").partition("\n\n")
    assert "403 Forbidden" in head
    assert ("keep", "nothing is deleted here") == ((told := json.loads(body))["rule"], told["message"])
    wait_until(lambda: len([one for one in _entries(daemon) if one.get("about") == "http"]) >= 2, "both are in the log")
    entries = _entries(daemon)
    opened = {entry["session"]: entry["run"] for entry in entries if entry["kind"] == "open"}
    decided = {
        (entry["method"], entry["allowed"]): opened[entry["session"]] for entry in entries if entry.get("about") == "http"
    }
    assert {("GET", True), ("DELETE", False)} == set(decided)
    known = {run["run"] for run in json.loads(verb(daemon, "runs", "--json").stdout)}
    wait_until(lambda: set(decided.values()) <= known | _runs(daemon), "the runs of the log are those of the index")


def _entries(daemon: Daemon) -> list[dict[str, Any]]:
    logs = (daemon.directory / "state" / "enforcer" / "decisions").glob("*.log")
    return [entry for path in logs for entry in read_entries(path)]


def _runs(daemon: Daemon) -> set[object]:
    return {run["run"] for run in json.loads(verb(daemon, "runs", "--json").stdout)}


def test_what_is_not_spoken_or_not_named_is_refused(daemon: Daemon, port: int) -> None:
    """A run reaches no other name and no other protocol, by no port."""
    assert "allowed_by_no_rule" in curl(daemon, f"http://127.0.0.1:{port}/page")
    done = verb(daemon, "run", "--", "curl", "-sS", "--max-time", "5", f"telnet://localhost:{port}")
    assert 0 != done.returncode


def test_a_run_knows_what_to_trust(daemon: Daemon) -> None:
    """The environment of a run points at files that are there and that everybody may read."""
    lines = verb(daemon, "run", "--", "env").stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "NPM_CONFIG_CAFILE", "NODE_EXTRA_CA_CERTS"):
        assert Path(found[name]).read_text(encoding="ascii").count("BEGIN CERTIFICATE") >= 1
        assert Path(found[name]).stat().st_mode & 0o004
    assert f"ca_certificate = {found['SSL_CERT_FILE']}\n" in Path(found["SYSTEM_WGETRC"]).read_text(encoding="utf-8")
    assert f"trustStore={daemon.directory}/state/trust/truststore.p12" in found["JAVA_TOOL_OPTIONS"]


def test_the_status_has_the_enforcer(daemon: Daemon) -> None:
    """`capd status` says that the enforcer runs, as whom, and what it did."""
    wait_until(lambda: sum(worker["allowed"] for worker in _enforcer(daemon)["workers"]) >= 1, "the counters are told")
    role = _enforcer(daemon)
    assert ("running", "enforce", 2) == (role["state"], role["mode"], len(role["workers"]))
    assert [None, None] == [worker["policy_problem"] for worker in role["workers"]]


def _enforcer(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(verb(daemon, "status", "--json").stdout)["roles"]["enforcer"]
    return found
