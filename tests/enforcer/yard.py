"""A network namespace with an enforcer in it: agents whose connections are redirected, targets, and the real `capd enforcer`.

What lives here: making and removing it, and running clients as an agent. What must not: what is expected of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from capd.daemon.cgroups import RunCgroup, find_root
from capd.daemon.enforcement_names import names_of
from capd.daemon.runs import Registry, Run, user_principal
from capd.enforcer.decision_log import read_entries
from tests.e2e.certificates import Certificates, make

AGENT = 61_999
PROXY_PORT, RESOLVER_PORT = 15_001, 15_053
NAMES = ("api.test", "other.test", "files.test")
ADDRESSES = ("198.51.100.7", "2001:db8::7")
"""What the names lead to (RFC 5737, RFC 3849): a name for loopback itself proves nothing."""
READY_SECONDS = 180.0
SERVER = Path(__file__).parent / "target_server.py"
HTTP_PORT, HTTPS_PORT, RAW_PORT, PLAIN_PORT = 80, 443, 2525, 8080

RULES = f"""\
add table inet yard
add chain inet yard out {{ type nat hook output priority -100; }}
add rule inet yard out meta skuid {AGENT} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{RESOLVER_PORT}
add rule inet yard out meta skuid {AGENT} meta l4proto tcp redirect to :{PROXY_PORT}
"""


@dataclass(kw_only=True)
class Yard:
    """A running one.

    Attributes:
        name: of the namespace.
        directory: everything on disk.
        certificates: of the targets.
        run: that agents are of.
        enforcer: the process.
    """

    name: str
    directory: Path
    certificates: Certificates
    run: Run
    cgroup: Path
    enforcer: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Give the state directory."""
        return self.directory / "state"

    @property
    def trust(self) -> Path:
        """Give the directory of what agents trust."""
        return self.state / "trust"

    @property
    def policy(self) -> Path:
        """Give the policy's file."""
        return self.directory / "policy" / "policy.yaml"

    def agent(
        self,
        *words: str | Path,
        inside: bool = True,
        variables: dict[str, str] | None = None,
        stdin: bytes = b"",
        seconds: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client as an agent, of the run if `inside`."""
        return subprocess.run(
            self._as_agent(words),
            capture_output=True,
            input=stdin,
            timeout=seconds,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": "/tmp", **(variables or {})},
            preexec_fn=self.enter if inside else None,
        )

    def start_agent(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a client that goes on."""
        return subprocess.Popen(
            self._as_agent(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
            preexec_fn=self.enter,  # noqa: PLW1509 - tests have one thread
        )

    def _as_agent(self, words: Sequence[str | Path]) -> list[str]:
        who = ("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups")
        return [*self.within, *who, *map(str, words)]

    @property
    def within(self) -> list[str]:
        """Give what begins a command that runs in the namespace: `ip netns exec` would hide the cgroups."""
        script = 'mount --bind "$1" /etc/hosts; mount --bind "$2" /etc/resolv.conf; shift 2; exec "$@"'
        files = (self.directory / "hosts", self.directory / "resolv.conf")
        return ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "-m", "sh", "-c", script, "sh", *map(str, files)]

    def enter(self) -> None:
        """Become a process of the run; called between fork and exec."""
        (self.cgroup / "cgroup.procs").write_text("0", encoding="ascii")

    def entries(self) -> list[dict[str, object]]:
        """Give what the decision log has."""
        files = sorted((self.state / "enforcer" / "decisions").glob("*.log"))
        return [entry for path in files for entry in read_entries(path)]

    def status(self) -> dict[str, object]:
        """Give what the enforcer says of itself."""
        found = json.loads((self.directory / "run" / "enforcer" / "enforcer.status.json").read_bytes())
        assert isinstance(found, dict)
        return found

    def start(self) -> None:
        """Start the enforcer and wait until it listens."""
        command = [sys.executable, "-P", "-m", "capd.cli.main", "enforcer", "--config", str(self.directory / "capd.toml")]
        with (self.directory / "enforcer.log").open("wb") as log:
            self.enforcer = subprocess.Popen([*self.within, *command], stdout=log, stderr=log)
        status = self.directory / "run" / "enforcer" / "worker-0.status.json"
        self._wait(status.exists)

    def _wait(self, there: object) -> None:
        assert callable(there)
        deadline = time.monotonic() + READY_SECONDS
        while not there():
            assert self.enforcer is not None
            assert self.enforcer.poll() is None, (self.directory / "enforcer.log").read_text()
            assert time.monotonic() < deadline, (self.directory / "enforcer.log").read_text()
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """End the enforcer by a signal, and wait until none of its processes is left."""
        assert self.enforcer is not None
        pids = [self.enforcer.pid, *_children(self.enforcer.pid)]
        self.enforcer.send_signal(number)
        self.enforcer.wait(READY_SECONDS)
        deadline = time.monotonic() + READY_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (self.directory / "run" / "enforcer" / "worker-0.status.json").unlink()

    def stop(self) -> None:
        """End the enforcer."""
        if self.enforcer is not None and self.enforcer.poll() is None:
            self.enforcer.send_signal(signal.SIGTERM)
            self.enforcer.wait(READY_SECONDS)


@contextlib.contextmanager
def yard(directory: Path, policy: str, enforcement: str = "", before: Callable[[Yard], None] | None = None) -> Iterator[Yard]:
    """Make one with targets and an enforcer, and remove it.

    Args:
        directory: for everything on disk.
        policy: of the enforcer.
        enforcement: further keys of `[enforcement]`, and what follows it.
        before: is called when all but the enforcer is there.
    """
    name = f"capd-yard-{os.getpid()}"
    directory.chmod(0o755)
    (directory / "tls").mkdir()
    (directory / "policy").mkdir()
    cgroup = find_root() / name
    _ip("netns", "add", name)
    try:
        lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {' '.join(NAMES)}" for address in ADDRESSES)]
        (directory / "hosts").write_text("\n".join(lines) + "\n", encoding="ascii")
        (directory / "resolv.conf").write_text("nameserver 127.0.0.9\noptions timeout:1 attempts:1\n", encoding="ascii")
        _ip("-n", name, "link", "set", "lo", "up")
        for address in ADDRESSES:
            _ip("-n", name, "address", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()))
        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=RULES.encode(), check=True)
        (cgroup / "inner").mkdir(parents=True)
        made = Yard(
            name=name,
            directory=directory,
            certificates=make(directory / "tls"),
            run=_run(directory, cgroup),
            cgroup=cgroup / "inner",
        )
        made.policy.write_text(policy, encoding="utf-8")
        (directory / "capd.toml").write_text(_configuration(directory) + enforcement, encoding="utf-8")
        with _targets(made):
            if before is not None:
                before(made)
            made.start()
            yield made
    finally:
        with contextlib.suppress(UnboundLocalError):
            made.stop()
        _ip("netns", "del", name)
        own = find_root() / names_of(directory / "run", systemd=False).enforcer.lstrip("/")
        for path in (cgroup / "inner", cgroup, own):
            with contextlib.suppress(OSError):
                path.rmdir()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _run(directory: Path, cgroup: Path) -> Run:
    runs = directory / "run" / "runs"
    runs.mkdir(parents=True)
    where = RunCgroup(path=f"/{cgroup.name}", id=cgroup.stat().st_ino, unit=None)
    run = Run(id=uuid4(), name="yard", principal=user_principal(AGENT), cgroup=where, started_ns=time.time_ns())
    Registry(runs).add(run)
    for path in runs.iterdir():
        path.chmod(0o644)
    return run


def _configuration(directory: Path) -> str:
    return f"""\
state_dir = "{directory}/state"
runtime_dir = "{directory}/run"
policy_dir = "{directory}/policy"
[enforcement]
mode = "enforce"
proxy_port = {PROXY_PORT}
resolver_port = {RESOLVER_PORT}
workers = 1
ca_file = "{directory}/tls/ca.pem"
"""


@contextlib.contextmanager
def _targets(made: Yard) -> Iterator[None]:
    tls = made.certificates
    words = [sys.executable, "-P", str(SERVER), str(tls.certificate), str(tls.key)]
    with subprocess.Popen([*made.within, *words], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
