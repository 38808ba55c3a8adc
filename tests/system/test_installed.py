"""capd as it is installed: from its package, under systemd, on a machine that boots, as an operator goes through it.

The cases are one story, in their order: each goes on where the one before stopped.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.alert_kinds import KINDS, Alert
from tests.daemon.conftest import REPOSITORY, call, wait_until
from tests.system.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

ROLES = ("capd", "capd-recorder", "capd-metrics")
BUCKET = "/srv/recordings"
INTO_BUCKET = f"[Service]\nReadWritePaths={BUCKET}\n"
"""What docs/operations.md has an operator add to the units that write to a bucket which is a directory."""
SERVER = """\
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"told " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        print(self.path, self.headers["Authorization"], flush=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/cert.pem", "/root/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
AGENT = """\
import sys, time, urllib.error, urllib.request
for path in sys.argv[1:]:
    try:
        print(urllib.request.urlopen("https://localhost:8443" + path, timeout=60).read().decode(), flush=True)
    except urllib.error.HTTPError as error:
        print("refused", error.code, flush=True)
    except OSError as error:
        print("failed", error, flush=True)
"""
SERVER_UNIT = "[Service]\nExecStart=/usr/bin/python3 /root/server.py\n"
QUICK = "[Service]\nWatchdogSec=20s\n"
"""So that what hangs is found sooner than on a host."""
SECRET = "a-key-that-no-agent-has"
CREDENTIAL = "LoadCredential=crm-password:/root/crm-password\n"
"""Of the enforcer's unit: docs/credentials.md."""
CREDENTIALS = """\
[credentials.crm]
systemd = "crm-password"
hosts = ["localhost"]
ports = [8443]
"""
INJECTING = """\
rules:
  - id: key
    match: {hosts: [localhost], ports: [8443], protocols: [http], paths: [/allowed/key]}
    then: inject
    inject: {credential: crm, form: bearer}
"""
POLICY = """\
rules:
  - id: reading
    match: {hosts: [localhost], ports: [8443], protocols: [http], methods: [GET], paths: [/allowed/*]}
    then: allow
"""


def sessions(machine: Machine, *options: str) -> list[dict[str, Any]]:
    """Give the sessions as JSON has them."""
    found = json.loads(machine.must("capd", "sessions", "--json", *options))
    assert isinstance(found, list)
    return found


def closed(machine: Machine, count: int) -> list[dict[str, Any]]:
    """Wait for so many closed sessions of HTTP, and give them."""

    def found() -> list[dict[str, Any]]:
        return [row for row in sessions(machine, "--protocol", "http1") if row["state"] == "closed"]

    try:
        wait_until(lambda: len(found()) >= count, "recorded")
    except AssertionError as error:
        raise AssertionError(machine("sh", "-c", "capd sessions; capd status; journalctl -n50 -u 'capd*'").stdout) from error
    return found()


def healthy(machine: Machine) -> bool:
    """Tell whether status says so."""
    return machine("capd", "status").returncode == 0


def forced(machine: Machine) -> bool:
    """Tell whether status says that agents are forced through the enforcer, and that it runs."""
    said = machine("capd", "status").stdout
    return "enforcement enforce: forced" in said and "enforcer    running" in said


def wait_healthy(machine: Machine) -> None:
    """Wait for that."""
    try:
        wait_until(lambda: healthy(machine), "healthy")
    except AssertionError as error:
        raise AssertionError(machine("capd", "status").stdout + machine("journalctl", "-n50", "-u", "capd*").stdout) from error


def files(machine: Machine) -> set[str]:
    """Give the files of the machine that a package may have made, but for what every package manager keeps."""
    found = machine.must(
        *("find", "/", "-xdev", "(", "-path", "/proc", "-o", "-path", "/sys", "-o", "-path", "/run", "-o", "-path", "/tmp"),
        *("-o", "-path", "/var/log", "-o", "-path", "/var/cache", "-o", "-path", "/root", "-o", "-path", "/var/lib/dpkg"),
        *(
            "-o",
            "-path",
            "/var/lib/apt",
            "-o",
            "-path",
            "/var/lib/systemd",
            "-o",
            "-path",
            "/var/tmp",
            ")",
            "-prune",
            "-o",
            "-print",
        ),
    )
    # What Python compiles of the distribution's own libraries, bcc's, is the distribution's; the bucket is the operator's.
    return {path for path in found.splitlines() if not path.startswith(("/usr/lib/python3/", BUCKET))}


def shipped(machine: Machine) -> dict[str, str]:
    """Give what is in the bucket, by key, with its SHA-256."""
    place = machine.root / BUCKET.lstrip("/")
    found = (path for path in sorted(place.rglob("*")) if path.is_file())
    return {str(path.relative_to(place)): sha256(path.read_bytes()).hexdigest() for path in found}


def numbers(keys: Iterable[str]) -> list[str]:
    """Give the numbers of the segments among them."""
    return [Path(key).stem for key in keys if key.endswith(".seg")]


def wait_shipped(machine: Machine) -> None:
    """Wait until every segment on the machine is in the bucket."""

    def all_there() -> bool:
        there = {path.name: path for path in (machine.root / "var/lib/capd/segments").glob("*.seg")}
        return set(numbers(there)) <= set(numbers(shipped(machine)))

    wait_until(all_there, "shipped")


def agent(machine: Machine, *paths: str, variables: tuple[str, ...] = ()) -> list[str]:
    """Run the agent as a unit of the slice; give what it said."""
    settings = [f"--setenv={variable}" for variable in variables]
    unit = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--slice=capd-agents.slice", *settings)
    return machine.must(*unit, "/usr/bin/python3", "/root/agent.py", *paths).splitlines()


def serve(machine: Machine) -> None:
    """Put an agent there, and start what it talks to."""
    machine.write("/root/server.py", SERVER)
    machine.write("/root/agent.py", AGENT)
    machine.write("/etc/systemd/system/server.service", SERVER_UNIT)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    out = ("-keyout", "/root/key.pem", "-out", "/root/cert.pem")
    machine.must("openssl", "req", "-x509", *curve, "-subj", "/CN=localhost", "-addext", names, *out)
    for role in (*ROLES, "capd-enforcer"):
        machine.write(f"/etc/systemd/system/{role}.service.d/quick.conf", QUICK)
    machine.write("/root/crm-password", f"{SECRET}\n", 0o600)
    machine.write("/etc/systemd/system/capd-enforcer.service.d/credential.conf", f"[Service]\n{CREDENTIAL}")
    for role in ("capd-shipper", "capd-catalogue"):
        machine.write(f"/etc/systemd/system/{role}.service.d/bucket.conf", INTO_BUCKET)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", "server")


@pytest.fixture(scope="module")
def before(machine: Machine) -> dict[str, set[str]]:
    """Give what the machine had before capd."""
    serve(machine)
    return {"files": files(machine), "users": set(machine.must("getent", "passwd").splitlines())}


def test_installing_starts_what_only_records(
    machine: Machine, packages: tuple[Path, Path], before: dict[str, set[str]]
) -> None:
    """After `apt install` capd is healthy and enabled, has users, keys and an id, and nothing forces anybody."""
    assert before
    machine.install(packages[0])
    wait_healthy(machine)
    assert "enabled" == machine.must("systemctl", "is-enabled", "capd.target").strip()
    assert {"active"} == {machine.must("systemctl", "is-active", role).strip() for role in ROLES}
    assert {"capd", "capd-enforcer"} <= {line.split(":")[0] for line in machine.must("getent", "passwd").splitlines()}
    assert "" == machine.must("nft", "list", "tables")
    assert 36 == len(machine.must("cat", "/var/lib/capd/host").strip())
    assert "capd-search - Find what was said" in machine(
        "sh", "-c", "zcat /usr/share/man/man1/capd-search.1.gz"
    ).stdout.replace("\\", "")


def test_units_are_right_and_as_closed_as_the_page_says(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing that systemd says about the units, and each is as exposed as docs/security.md explains."""
    assert "" == machine("sh", "-c", "systemd-analyze verify /usr/lib/systemd/system/capd* 2>&1 | grep capd").stdout
    found = {}
    for unit in (*ROLES, "capd-guard", "capd-enforcer", "capd-shipper", "capd-catalogue"):
        told = machine.must("systemd-analyze", "security", "--no-pager", f"{unit}.service")
        found[f"{unit}.service"] = told.splitlines()[-1].split(": ")[1].split()[0]
        with capsys.disabled():
            sys.stdout.write(told)
    page = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    assert found == dict(re.findall(r"^\| `(capd[a-z-]*\.service)` \| (\d+\.\d) \|", page, re.MULTILINE))


def test_a_unit_in_the_slice_is_recorded(machine: Machine) -> None:
    """What an unchanged Python agent says over HTTPS is there, complete, and can be replayed."""
    assert ["told /allowed/one", "told /other"] == agent(
        machine, "/allowed/one", "/other", variables=("SSL_CERT_FILE=/root/cert.pem",)
    )
    rows = closed(machine, 2)
    assert ["complete"] * len(rows) == [row["completeness"]["verdict"] for row in rows], [row["completeness"] for row in rows]
    told = "".join(machine.must("capd", "replay", row["session"]) for row in rows)
    assert "GET /allowed/one" in told
    assert "told /other" in told
    assert machine.must("capd", "verify")


def test_a_run_is_a_scope_and_outlives_the_daemon(machine: Machine) -> None:
    """`capd run` gives the status of its command from a scope of the slice; a unit's run is taken up by the next daemon."""
    done = machine("capd", "run", "--name", "scope", "--", "sh", "-c", "grep ^0:: /proc/self/cgroup; exit 5")
    assert 5 == done.returncode
    assert re.fullmatch(r"0::/capd\.slice/capd-agents\.slice/capd-run-[0-9a-f-]{36}\.scope\n", done.stdout)
    wait_until(lambda: "none live" in machine("capd", "status").stdout, "the run has ended")
    assert "capd-run" not in machine("systemctl", "list-units", "--all", "capd-run*").stdout.split("LOAD")[0]
    machine.must("systemd-run", "--quiet", "--slice=capd-agents.slice", "--unit=sleeper", "sleep", "600")
    wait_until(lambda: "sleeper.service" in machine("capd", "status").stdout, "the unit is a run")
    machine.must("systemctl", "kill", "--signal=KILL", "capd")
    wait_until(lambda: "sleeper.service" in machine("capd", "status").stdout, "the next daemon took it up")
    machine.must("systemctl", "stop", "sleeper")
    wait_until(lambda: "none live" in machine("capd", "status").stdout, "the unit's run has ended")
    wait_healthy(machine)


def test_what_is_sealed_is_shipped_once_whatever_is_killed(machine: Machine) -> None:
    """Shipped into a directory as the documentation says, by a shipper that is killed at work, nothing is twice or missing."""
    machine.must("install", "--directory", "--owner=capd", "--group=capd", "--mode=0750", BUCKET)
    machine.write("/etc/capd/conf.d/bucket.toml", f'bucket_url = "file://{BUCKET}"\n')
    machine.must("systemctl", "reload", "capd")
    machine.must("systemctl", "enable", "--now", "capd-shipper", "capd-catalogue.timer")
    wait_shipped(machine)
    for kill in range(3):
        before, count = main_pid(machine, "capd-shipper"), len(numbers(shipped(machine)))
        agent(machine, f"/allowed/kill/{kill}", variables=("SSL_CERT_FILE=/root/cert.pem",))
        machine.must("systemctl", "kill", "--signal=KILL", "capd-shipper")
        wait_until(lambda: main_pid(machine, "capd-shipper") not in {before, "0"}, "it is back")  # noqa: B023 - at once
        wait_until(lambda: len(numbers(shipped(machine))) > count, "it ships")  # noqa: B023 - as above
    wait_shipped(machine)
    there = shipped(machine)
    found = numbers(there)
    assert len(found) == len(set(found))
    for path in (machine.root / "var/lib/capd/segments").glob("*.seg"):
        (key,) = (key for key in there if Path(key).name == path.name)
        assert sha256(path.read_bytes()).hexdigest() == there[key]
    wait_healthy(machine)
    status = json.loads(machine.must("capd", "status", "--json"))["roles"]["shipper"]
    assert ([], [], 0) == (status["conflicts"], status["unshippable"], status["backlog"]["segments"])
    assert machine.must("capd", "verify", f"file://{BUCKET}")


def test_what_is_wrong_is_in_the_journal(machine: Machine) -> None:
    """An alert is in the journal under its message id, in one line that says what to do."""
    machine.must("systemctl", "stop", "capd-recorder")
    entry = ["journalctl", f"MESSAGE_ID={KINDS[Alert.RECORDER_DOWN].message_id.hex}", "--output=cat", "--quiet"]
    wait_until(lambda: "begins (critical): the recorder does not run" in machine(*entry).stdout, "an alert")
    assert "recorder-down.json" in machine.must("ls", "/run/capd/alerts").split()
    machine.must("systemctl", "start", "capd-recorder")
    wait_healthy(machine)


def test_a_wrong_configuration_hides_nothing(machine: Machine) -> None:
    """Status and doctor show what runs, and the line that is wrong; what did not start is started then as they say."""
    machine.write("/etc/capd/capd.toml", "[capture\n")
    done = machine("capd", "status")
    assert (1, "") == (done.returncode, done.stderr)
    for words in ("wrong, what was in force stays: /etc/capd/capd.toml:1: not TOML", "tier  ", f"bucket      file://{BUCKET}"):
        assert words in done.stdout, done.stdout
    assert "/etc/capd/capd.toml:1: not TOML" in machine("capd", "doctor").stdout
    before = main_pid(machine, "capd")
    upgraded = machine("/var/lib/dpkg/info/capd.postinst", "configure", "0.1.0-0")
    assert (0, True) == (upgraded.returncode, "what runs is not restarted" in upgraded.stderr), upgraded.stderr
    assert before == main_pid(machine, "capd")
    assert 0 != machine("systemctl", "restart", "capd", "capd-recorder").returncode
    done = machine("capd", "status")
    assert (2, "") == (done.returncode, done.stderr)
    for words in (
        "capd is down",
        "/etc/capd/capd.toml:1: not TOML",
        "then `systemctl start capd.target`",
        "shipper     running",
    ):
        assert words in done.stdout, done.stdout
    machine.write("/etc/capd/capd.toml", "")
    machine.must("systemctl", "start", "capd.target")
    wait_healthy(machine)


def test_what_is_forced_is_judged(machine: Machine) -> None:
    """With `[enforcement]` the same agent gets what the policy allows and is refused the rest, and status says so."""
    machine.write("/etc/capd/capd.toml", '[enforcement]\nmode = "enforce"\nca_file = "/etc/capd/server.pem"\n')
    machine.must("cp", "/root/cert.pem", "/etc/capd/server.pem")
    machine.write("/etc/capd/policy.d/agents.yaml", POLICY)
    machine.must("systemctl", "restart", "capd", "capd-recorder")
    machine.must("systemctl", "enable", "--now", "capd-enforcer")
    wait_healthy(machine)
    trusts = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
    assert ["told /allowed/two", "refused 403"] == agent(machine, "/allowed/two", "/secret", variables=trusts)
    assert "/secret" not in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")


def test_a_credential_of_systemd_is_put_in(machine: Machine) -> None:
    """What LoadCredential= gives to the enforcer's unit goes to the server with the request of an agent that has no key."""
    machine.write("/etc/capd/conf.d/credentials.toml", CREDENTIALS)
    machine.write("/etc/capd/policy.d/key.yaml", INJECTING)
    machine.must("systemctl", "restart", "capd", "capd-recorder", "capd-enforcer")
    wait_healthy(machine)
    trusts = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
    assert ["told /allowed/key"] == agent(machine, "/allowed/key", variables=trusts)
    assert f"/allowed/key Bearer {SECRET}" in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")
    # With credentials status tells for ten minutes of each death of the enforcer: what was said then was not searched for them.
    machine.must("rm", "/etc/capd/conf.d/credentials.toml", "/etc/capd/policy.d/key.yaml")
    machine.must("systemctl", "restart", "capd", "capd-recorder", "capd-enforcer")
    wait_healthy(machine)


@pytest.mark.parametrize("role", [*ROLES, "capd-enforcer"])
def test_a_killed_role_comes_back(machine: Machine, role: str) -> None:
    """SIGKILL of any role: it is healthy again by itself, and agents are judged as before."""
    before = machine.must("systemctl", "show", "--property=MainPID", "--value", role).strip()
    machine.must("systemctl", "kill", "--signal=KILL", role)
    wait_until(
        lambda: machine("systemctl", "show", "--property=MainPID", "--value", role).stdout.strip() not in {before, "0"}, "anew"
    )
    wait_healthy(machine)
    trusts = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
    assert ["told /allowed/three", "refused 403"] == agent(machine, "/allowed/three", "/secret", variables=trusts)


def main_pid(machine: Machine, role: str) -> str:
    """Give the number of a role's process, as the machine counts."""
    return machine("systemctl", "show", "--property=MainPID", "--value", role).stdout.strip()


def test_a_role_that_hangs_is_killed_and_comes_back(machine: Machine) -> None:
    """A stopped process of any role is said by status, then killed by systemd and started anew."""
    hanging = ("capd-recorder", "capd-enforcer", "capd-metrics", "capd")
    before = {role: main_pid(machine, role) for role in hanging}
    for role in hanging[:-1]:
        machine.must("systemctl", "kill", "--signal=STOP", "--kill-who=main", role)

    def said() -> bool:
        told = machine("capd", "status").stdout
        return bool(re.search("the recorder has for [0-9]+ s not reported", told)) and "the enforcer has not reported" in told

    wait_until(said, "status says so")
    machine.must("systemctl", "kill", "--signal=STOP", "--kill-who=main", "capd")
    wait_until(lambda: all(main_pid(machine, role) not in {before[role], "0"} for role in hanging), "anew")
    for role in hanging:
        assert "Watchdog timeout" in machine.must("journalctl", "--quiet", "--no-pager", f"UNIT={role}.service")
    wait_healthy(machine)


def test_who_connects_while_the_enforcer_restarts_waits(machine: Machine) -> None:
    """Its listeners are kept: no connection of an agent is refused, and what began meanwhile is judged by the next one."""
    unit = ("systemd-run", "--quiet", "--unit=steady", "--slice=capd-agents.slice")
    variable = "--setenv=SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem"
    machine.must(*unit, variable, "/usr/bin/python3", "/root/agent.py", *["/allowed/steady"] * 2000)
    counted = "journalctl --unit=steady --output=cat --quiet --no-pager | grep -c told"
    wait_until(lambda: int(machine("sh", "-c", counted).stdout) >= 5, "it asks")
    before = int(machine("sh", "-c", counted).stdout)
    machine.must("systemctl", "restart", "capd-enforcer")
    assert "listeners of the enforcer before" in machine.must("systemctl", "status", "--no-pager", "capd-enforcer")
    wait_until(lambda: int(machine("sh", "-c", counted).stdout) >= before + 5, "it asks on")
    machine.must("systemctl", "stop", "steady")
    told = machine.must("journalctl", "--unit=steady", "--output=cat", "--quiet", "--no-pager")
    assert "refused" not in told, told


def test_an_upgrade_lets_nothing_by(machine: Machine, packages: tuple[Path, Path]) -> None:
    """While it is upgraded an agent that asks all the time for what is denied never gets it; it is forced afterwards.

    What the enforcer had accepted and not judged when it was ended has no decision, which capd goes on to tell of.
    """
    unit = ("systemd-run", "--quiet", "--unit=always", "--slice=capd-agents.slice")
    # Anew each time: in a container, where capd does not see the host's process numbers, what runs already is not found again.
    loop = "while :; do python3 /root/agent.py /secret; done"
    machine.must(*unit, "--setenv=SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem", "/bin/sh", "-c", loop)
    wait_until(lambda: "refused" in machine.must("journalctl", "--unit=always", "--output=cat", "--quiet"), "it asks")
    machine.install(packages[1])
    wait_until(lambda: forced(machine), "forced anew")
    machine.must("systemctl", "stop", "always")
    assert "0.1.0-2" in machine.must("dpkg-query", "--show", "capd")
    said = machine.must("journalctl", "--unit=always", "--output=cat", "--quiet")
    assert "told" not in said
    assert "/secret" not in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")
    assert machine.must("capd", "verify")


def test_it_is_there_after_a_reboot(machine: Machine) -> None:
    """A machine that boots anew records and enforces without a hand."""
    before = shipped(machine)
    machine.off()
    machine.boot()
    wait_until(lambda: forced(machine), "forced anew")
    machine.must("systemctl", "start", "server")
    trusts = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
    assert ["told /allowed/four", "refused 403"] == agent(machine, "/allowed/four", "/secret", variables=trusts)
    wait_until(lambda: set(numbers(shipped(machine))) > set(numbers(before)), "shipped after the boot")
    wait_shipped(machine)
    assert "enabled" == machine.must("systemctl", "is-enabled", "capd-catalogue.timer").strip()
    assert machine.must("capd", "verify", f"file://{BUCKET}")


def test_removing_stops_it_and_leaves_the_rules(machine: Machine) -> None:
    """Without being told so, removing takes no rule away: agents stay cut off, and the operator is told how to end it."""
    done = machine("apt-get", "remove", "--quiet", "--yes", "capd")
    assert 0 == done.returncode, done.stderr
    assert "agents stay cut off" in done.stdout + done.stderr
    assert "table inet capd" in machine.must("nft", "list", "tables")
    (said,) = agent(machine, "/allowed/five", variables=("SSL_CERT_FILE=/root/cert.pem",))
    assert said.startswith("failed")
    assert "/allowed/five" not in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")


def test_installed_again_it_goes_on(machine: Machine, packages: tuple[Path, Path]) -> None:
    """What was removed and not purged records and enforces again once it is installed, with its keys and what it recorded."""
    before = machine.must("cat", "/var/lib/capd/host")
    machine.install(packages[1])
    wait_until(lambda: forced(machine), "forced anew")
    assert before == machine.must("cat", "/var/lib/capd/host")
    trusts = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
    assert ["told /allowed/again", "refused 403"] == agent(machine, "/allowed/again", "/secret", variables=trusts)
    wait_shipped(machine)
    assert machine.must("capd", "verify", f"file://{BUCKET}")
    assert 0 == machine("apt-get", "remove", "--quiet", "--yes", "capd").returncode
    assert 0 == machine("/var/lib/dpkg/info/capd.postrm", "purge").returncode  # interrupted, and begun anew below


def test_purging_leaves_nothing(machine: Machine, before: dict[str, set[str]], tmp_path: Path) -> None:
    """After purge there are the files, users, rules and programs of before; the bucket is as it was, and can be verified."""
    recorded = shipped(machine)
    machine.must("apt-get", "purge", "--quiet", "--yes", "capd")
    assert "" == machine.must("nft", "list", "tables")
    assert 0 != machine("test", "-e", "/sys/fs/bpf/capd").returncode
    assert before["files"] == files(machine)
    units = machine.must("systemctl", "list-units", "--all", "--no-legend", "capd*.timer", "capd*.service").splitlines()
    assert [] == [line for line in units if "not-found" not in line]
    assert recorded == shipped(machine)
    done = call("verify", f"file://{machine.root}{BUCKET}", "--pins", str(tmp_path / "pins"))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert before["users"] == set(machine.must("getent", "passwd").splitlines())
    assert ["told /allowed/six"] == agent(machine, "/allowed/six", variables=("SSL_CERT_FILE=/root/cert.pem",))
