"""An upgrade of the installed package, and a kill of its daemon, while an agent talks without pause: counted at its server."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import REPOSITORY, wait_until
from tests.e2e import certificates
from tests.e2e.instance import Instance
from tests.e2e.truth import Hash, Pair
from tests.requirements import require_command
from tests.system import test_installed as installed
from tests.system.machine import Machine
from tests.system.test_installed import wait_healthy

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

SERVER = """\
import json, signal, ssl, sys, threading
from pathlib import Path
sys.path.insert(0, "/root")
import truth
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/server.pem", "/root/server.key")
servers = [truth.Server(truth.Mirror, context=context), truth.Server(truth.Mirror)]
for server in servers:
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
Path("/root/ports").write_text(f"{servers[0].port} {servers[1].port}")
signal.sigwait([signal.SIGTERM])
pairs = [pair for server in servers for pair in server.ledger.take(server.ledger.begun).elements()]
Path("/root/pairs.new").write_text(json.dumps([[[one.length, one.sha256] for one in pair] for pair in pairs]))
Path("/root/pairs.new").rename("/root/pairs")
"""
"""Two servers, and at their end all that they know."""
UNIT = "[Service]\nExecStartPre=/bin/rm -f /root/ports /root/pairs\nExecStart=/usr/bin/python3 -I /root/server.py\n"


class Talk:
    """An agent of the slice that talks, and its servers; all inside."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def begin(self) -> None:
        """Start them, and wait until it talks."""
        machine = self._machine
        machine.must("rm", "-f", "/root/stop")
        machine.must("systemctl", "start", "truth")
        ports = machine.root / "root/ports"
        wait_until(lambda: ports.exists() and " " in ports.read_text(), "the servers listen")
        unit = ("systemd-run", "--quiet", "--unit=talker", "--slice=capd-agents.slice", "/usr/bin/python3", "-I")
        machine.must(*unit, "/root/unceasing.py", "/root/ca.pem", *ports.read_text().split(), "/root/stop", "1")
        self.goes_on()

    def goes_on(self) -> None:
        """Wait until the agent has begun conversations again."""
        assert "active" == self._machine("systemctl", "is-active", "talker").stdout.strip(), self.said()
        self._machine.must("sleep", "1")

    def said(self) -> str:
        """Give what the agent printed."""
        return self._machine.must("journalctl", "--unit=talker", "--output=cat", "--quiet")

    def end(self) -> Counter[Pair]:
        """Let the agent end, which must have met no error; give what its servers know."""
        machine = self._machine
        machine.must("touch", "/root/stop")
        wait_until(lambda: machine("systemctl", "is-active", "talker").stdout.strip() != "active", "it has ended")
        assert "failed" not in machine("systemctl", "is-failed", "talker").stdout, self.said()
        machine.must("systemctl", "stop", "truth")
        pairs = json.loads((machine.root / "root/pairs").read_text())
        return Counter((Hash(*request), Hash(*response)) for request, response in pairs)


@pytest.fixture(scope="module")
def talk(machine: Machine, packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Talk:
    """Give an agent on a machine that records all bytes."""
    trusted = certificates.make(tmp_path_factory.mktemp("certificates"))
    for path, source in (("ca.pem", trusted.authority), ("server.pem", trusted.certificate), ("server.key", trusted.key)):
        machine.write(f"/root/{path}", Path(source).read_text(encoding="ascii"))
    for path in ("truth.py", "clients/unceasing.py"):
        content = (REPOSITORY / "tests/e2e" / path).read_text(encoding="utf-8")
        machine.write(f"/root/{Path(path).name}", content)
    machine.write("/root/server.py", SERVER)
    machine.write("/etc/systemd/system/truth.service", UNIT)
    machine.install(packages[0])
    machine.write("/etc/capd/capd.toml", '[recording]\nlevel = "full"\n')
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "capd", "capd-recorder")
    wait_healthy(machine)
    return Talk(machine)


@pytest.fixture(scope="module")
def recording(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """Give what reads the machine's recording."""
    reader = Instance(tmp_path_factory.mktemp("reader"))
    reader.config.write_text(f'state_dir = "{machine.root}/var/lib/capd"\nruntime_dir = "{reader.directory}/run"\n')
    return reader


def status(machine: Machine) -> dict[str, Any]:
    """Ask for the status."""
    found: dict[str, Any] = json.loads(machine("capd", "status", "--json").stdout)
    return found


def story(machine: Machine) -> str:
    """Give what is needed to find out what happened."""
    asked = "capd status; capd sessions | tail -n 20; journalctl --quiet --output=short-precise --unit='capd*' | tail -n 60"
    return machine("sh", "-c", asked).stdout


def alerts(machine: Machine) -> list[str]:
    """Give the alerts that began, in words, but for those that tell of a role that is being started anew."""
    said = machine.must("journalctl", "--unit=capd-metrics", "--output=cat", "--quiet").splitlines()
    return [line for line in said if " begins (" in line and "-down begins (" not in line]


def programs(machine: Machine) -> list[str]:
    """Give the numbers of the programs that stand."""
    described = json.loads(machine.must("cat", "/run/capd/standing/probes.json"))["probes"]
    return [identity.split()[1] for identity in described["programs"].values()]


def exist(numbers: list[str]) -> bool:
    """Tell whether the kernel has one of these programs."""
    shown = (subprocess.run(["bpftool", "prog", "show", "id", each], capture_output=True, check=False) for each in numbers)
    return any(done.returncode == 0 for done in shown)


def test_an_upgrade_loses_no_byte(machine: Machine, packages: tuple[Path, Path], talk: Talk, recording: Instance) -> None:
    """Upgraded while it talks, and killed thereafter, capd has each conversation whole, and nothing was to alarm about."""
    talk.begin()
    stood, before = programs(machine), alerts(machine)
    machine.install(packages[1])
    assert "0.1.0-2" in machine.must("dpkg-query", "--show", "capd")
    wait_healthy(machine)
    assert (True, True) == (status(machine)["standing"]["continued"], status(machine)["standing"]["kept"])
    talk.goes_on()
    pid = status(machine)["roles"]["daemon"]["pid"]
    machine.must("systemctl", "kill", "--signal=KILL", "capd")
    wait_until(lambda: status(machine)["roles"]["daemon"]["pid"] not in {None, pid}, "the next daemon is there")
    assert status(machine)["standing"]["continued"]
    talk.goes_on()
    assert stood == programs(machine)
    truth = talk.end()
    recording.assert_recorded("talker.service", truth)
    assert before == alerts(machine)


@pytest.mark.usefixtures("talk")
def test_a_stop_leaves_nothing_in_the_kernel(machine: Machine) -> None:
    """`systemctl stop` is for good: systemd drops what stood, and the next start begins anew."""
    require_command("bpftool")
    stood = programs(machine)
    assert exist(stood)
    machine.must("systemctl", "stop", "capd")
    wait_until(lambda: not exist(stood), "the kernel has let all go")
    machine.must("systemctl", "start", "capd")
    assert not status(machine)["standing"]["continued"]


FORCED = """\
[recording]
level = "full"
[enforcement]
mode = "enforce"
ca_file = "/etc/capd/server.pem"
"""
ASKS = """\
import http.client, time, urllib.error, urllib.request
from pathlib import Path
number = 0
while not Path("/root/stop").exists():
    for path in (f"/allowed/{number}", f"/secret/{number}"):
        try:
            print(path, urllib.request.urlopen("https://localhost:8443" + path, timeout=60).read().decode(), flush=True)
        except urllib.error.HTTPError as error:
            print(path, error.code, flush=True)
        except (OSError, http.client.HTTPException) as error:
            print(path, "failed", error, flush=True)
    number += 1
    time.sleep(0.05)
"""
"""Anew each time; a connection that is cut or refused, as while no proxy is there, is told, and another made."""


@pytest.mark.usefixtures("talk")
def test_an_upgrade_of_what_enforces_alarms_nobody(machine: Machine, packages: tuple[Path, Path]) -> None:
    """All roles restarted by an upgrade while an agent asks: nothing denied is served, and no witness has anything to say."""
    for path, content in (("server.py", installed.SERVER), ("asks.py", ASKS)):
        machine.write(f"/root/{path}", content)
    for source, target in (("server.pem", "cert.pem"), ("server.key", "key.pem")):
        machine.must("cp", f"/root/{source}", f"/root/{target}")
    machine.write("/etc/systemd/system/server.service", installed.SERVER_UNIT)
    machine.write("/etc/capd/capd.toml", FORCED)
    machine.must("cp", "/root/ca.pem", "/etc/capd/server.pem")
    machine.write("/etc/capd/policy.d/agents.yaml", installed.POLICY)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "server", "capd", "capd-recorder")
    machine.must("systemctl", "enable", "--now", "capd-enforcer")
    wait_until(lambda: installed.forced(machine), "forced")
    machine.must("rm", "-f", "/root/stop")
    variable = "--setenv=SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem"
    machine.must("systemd-run", "--quiet", "--unit=asker", "--slice=capd-agents.slice", variable, "python3", "/root/asks.py")

    def said() -> list[str]:
        return machine.must("journalctl", "--unit=asker", "--output=cat", "--quiet").splitlines()

    wait_until(lambda: any(line.endswith(" 403") for line in said()), "it asks")
    (machine.root / "root/again.deb").write_bytes(packages[1].read_bytes())
    machine.must("dpkg", "--install", "/root/again.deb")
    wait_until(lambda: installed.forced(machine), "forced anew")
    assert status(machine)["standing"]["continued"]
    count = len(said())
    wait_until(lambda: len(said()) > count + 4, "it asks on")
    machine.must("touch", "/root/stop")
    wait_until(lambda: machine("systemctl", "is-active", "asker").stdout.strip() != "active", "it has ended")
    machine.must("sleep", "7")  # for a witness nothing is missing before 5 s are over
    assert not [line for line in said() if line.startswith("/secret") and "told" in line]
    assert "/secret" not in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")
    witness = status(machine)["roles"]["recorder"]["witness"]
    alarms = [witness[name] for name in ("undecided", "unseen", "differing", "requests", "unknown")]
    assert [0] * 5 == alarms, f"{json.dumps(witness)}\n{story(machine)}\n{said()[:5]}"
