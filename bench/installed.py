"""What capd takes as it is installed: memory and processor of each unit, on a machine that boots, at rest and under load.

What lives here: the machine, what is asked of it, reading its units. What must not: measuring of parts (the other files here).

Three sizes of memory. Proportional: a page that several processes have is shared out among them, so that the sum is what capd's
processes take (a machine of its own shares none with processes outside). Resident: what `ps` shows, where shared pages, and the
ring, which is mapped twice in a row, count each time. Of the kernel: maps and programs of BPF that are in no process's memory.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from tests.system.building import build
from tests.system.machine import Machine, make_root
from tests.system.test_installed import wait_healthy

RECORDING: Final = ("capd", "capd-recorder", "capd-metrics")
ALL: Final = (*RECORDING, "capd-enforcer", "capd-shipper")
SETTLING_SECONDS: Final = 15
"""After a start things are read and kept that are needed once."""
AT_REST: Final = "at rest"
LOADS: Final = {AT_REST: 0, "50 asked for": 50, "500 asked for": 500}
"""Requests a second: far more than an agent asks that waits for a model's answers, and ten times that."""
ANSWER_BYTES: Final = 1024
BUDGET_MB: Final = 120
BUDGET_SHARE: Final = 0.01
SERVER: Final = f"""\
import http.server, ssl
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: two would wait 40 ms for each other
    def do_GET(self):
        global count
        body = b"agents say this. " * {ANSWER_BYTES // 17} + b"." * {ANSWER_BYTES % 17}
        if self.path == "/count":
            body = str(count).encode()
        else:
            count += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/cert.pem", "/root/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
AGENT: Final = f"""\
import http.client, ssl, sys, time
pace, trusted = float(sys.argv[1]), sys.argv[2]
connection = http.client.HTTPSConnection("localhost", 8443, context=ssl.create_default_context(cafile=trusted))
began, count = time.monotonic(), 0
while True:
    connection.request("GET", f"/customers/{{count}}")
    assert len(connection.getresponse().read()) == {ANSWER_BYTES}
    count += 1
    time.sleep(max(0, count / pace - (time.monotonic() - began)))
"""
READER: Final = """\
import json, re, sys
from pathlib import Path
root = next(line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2")
RING = "27"
found = {}
for unit, group in zip(sys.argv[1::2], sys.argv[2::2]):
    place, sizes, kernel = Path(root + group), {"Pss": 0, "Rss": 0}, {}
    pids = (place / "cgroup.procs").read_text().split()
    for pid in pids:
        process = Path("/proc", pid)
        for line in (process / "smaps_rollup").read_text().splitlines():
            name, _, size = line.partition(":")
            if name in sizes:
                sizes[name] += int(size.split()[0]) * 1024
        for path in (process / "fdinfo").iterdir():
            told = dict(re.findall(r"^(\\w+):\\s*(\\S+)", path.read_text(), re.MULTILINE))
            identity = ("map", told.get("map_id")) if "map_id" in told else ("program", told.get("prog_id"))
            if "memlock" in told and told.get("map_type") != RING:
                kernel[identity] = int(told["memlock"])
    usage = (place / "cpu.stat").read_text().split()
    microseconds = int(usage[usage.index("usage_usec") + 1])
    found[unit] = [sizes["Pss"], sizes["Rss"], sum(kernel.values()), len(pids), microseconds]
print(json.dumps(found))
"""
POLICY: Final = """\
rules:
  - id: reading
    match: {hosts: [localhost], ports: [8443], protocols: [http], methods: [GET], paths: [/customers/*]}
    then: allow
"""
CONFIGURATION: Final = """\
bucket_url = "file:///srv/bucket"
[enforcement]
mode = "enforce"
ca_file = "/etc/capd/server.pem"
"""
TO_THE_BUCKET: Final = "[Service]\nReadWritePaths=/srv/bucket\n"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a unit takes.

    Attributes:
        proportional: megabytes of memory at the end, shared pages shared out.
        resident: megabytes, shared pages counted each time.
        kernel: megabytes of BPF maps and programs besides.
        processes: how many it has.
        share: of one core, over the time.
    """

    proportional: float
    resident: float
    kernel: float
    processes: int
    share: float


@dataclass(frozen=True, slots=True)
class Part:
    """What was measured over some time.

    Attributes:
        requests_per_second: that were answered.
        lag_bytes: what the recorder had still to read at the end.
        lost_bytes: of what was said, since the daemon started.
        units: what each takes.
    """

    requests_per_second: float
    lag_bytes: int
    lost_bytes: int
    units: dict[str, Taken]

    def together(self) -> Taken:
        """Give the sum."""
        each = self.units.values()
        return Taken(*(sum(getattr(one, field.name) for one in each) for field in fields(Taken)))


@contextmanager
def _machine() -> Iterator[Machine]:
    """Give a machine with the package, healthy."""
    with tempfile.TemporaryDirectory(prefix="capd-bench-", dir="/var/tmp") as name:
        place = Path(name)
        (package,) = build("deb", place / "package")
        make_root(place / "root")
        machine = Machine(place / "root", place / "console.log")
        try:
            machine.prepare()
            machine.boot()
            machine.install(package)
            _serve(machine)
            wait_healthy(machine)
            yield machine
        finally:
            machine.off()


def _serve(machine: Machine) -> None:
    for name, text in (("server", SERVER), ("agent", AGENT), ("reader", READER)):
        machine.write(f"/root/{name}.py", text)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    out = ("-addext", "subjectAltName=DNS:localhost", "-keyout", "/root/key.pem", "-out", "/root/cert.pem")
    machine.must("openssl", "req", "-x509", *curve, *out)
    machine.must("systemd-run", "--quiet", "--unit=server", "/usr/bin/python3", "/root/server.py")


def _with_all_roles(machine: Machine) -> None:
    """Configure and start what is not started by itself."""
    machine.must("cp", "/root/cert.pem", "/etc/capd/server.pem")
    machine.must("install", "--directory", "--owner=capd", "--group=capd", "/srv/bucket")
    machine.write("/etc/systemd/system/capd-shipper.service.d/bucket.conf", TO_THE_BUCKET)
    machine.write("/etc/capd/capd.toml", CONFIGURATION)
    machine.write("/etc/capd/policy.d/agents.yaml", POLICY)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "capd", "capd-recorder")
    machine.must("systemctl", "enable", "--now", "capd-enforcer", "capd-shipper")
    wait_healthy(machine)


def _read(machine: Machine, units: tuple[str, ...]) -> dict[str, list[int]]:
    """Give of each unit bytes of memory (proportional, resident, the kernel's), processes, and us of processor until now."""
    words = [word for unit in units for word in (unit, _property(machine, unit, "ControlGroup"))]
    found: dict[str, list[int]] = json.loads(machine.must("/usr/bin/python3", "-I", "/root/reader.py", *words))
    return found


def _property(machine: Machine, unit: str, name: str) -> str:
    return machine.must("systemctl", "show", f"--property={name}", "--value", unit).strip()


def _status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine("capd", "status", "--json").stdout)
    return found


def _answered(machine: Machine) -> int:
    return int(machine.must("curl", "--silent", "--cacert", "/root/cert.pem", "https://localhost:8443/count"))


def _measured(machine: Machine, units: tuple[str, ...], seconds: float, *, pace: int, trusted: str) -> Part:
    """Give what units take over some time, at rest, or while an agent asks that trusts the certificates in a file."""
    time.sleep(SETTLING_SECONDS)
    if pace:
        agent = ("/usr/bin/python3", "-I", "/root/agent.py", str(pace), trusted)
        machine.must("systemd-run", "--quiet", "--collect", "--unit=agent", "--slice=capd-agents.slice", *agent)
        time.sleep(SETTLING_SECONDS)
    answered, began, before = _answered(machine), time.monotonic(), _read(machine, units)
    time.sleep(seconds)
    after, took = _read(machine, units), time.monotonic() - began
    answered = _answered(machine) - answered
    shown = _status(machine)
    if pace:
        assert machine("systemctl", "is-active", "agent").stdout.strip() == "active"
        machine.must("systemctl", "stop", "agent")
    return Part(
        requests_per_second=answered / took,
        lag_bytes=shown["roles"]["recorder"]["lag_bytes"],
        lost_bytes=shown["losses"]["bytes"],
        units={unit: _taken(before[unit], after[unit], took) for unit in units},
    )


def _taken(before: list[int], after: list[int], seconds: float) -> Taken:
    *sizes, processes, used = after
    proportional, resident, kernel = (size / 1e6 for size in sizes)
    return Taken(proportional, resident, kernel, processes, (used - before[-1]) / 1e6 / seconds)


def run(seconds: float) -> Mapping[str, Part]:
    """Measure.

    Args:
        seconds: of each part.
    """
    found = {}
    with _machine() as machine:
        for load, pace in LOADS.items():
            found[f"records, {load}"] = _measured(machine, RECORDING, seconds, pace=pace, trusted="/root/cert.pem")
        _with_all_roles(machine)
        for load, pace in LOADS.items():
            trusted = "/var/lib/capd/trust/bundle.pem"
            found[f"all roles, {load}"] = _measured(machine, ALL, seconds, pace=pace, trusted=trusted)
    return found


def table(found: Mapping[str, Part]) -> Iterator[str]:
    """Give lines for people, and whether the budget at rest is met."""
    yield f"load of the machine at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    for what, part in found.items():
        state = f"the recorder {part.lag_bytes:,} B behind, {part.lost_bytes:,} B lost"
        yield f"{what}: {part.requests_per_second:.1f} requests/s, {state}"
        together = part.together()
        for unit, one in (*part.units.items(), ("together", together)):
            yield (
                f"{unit:>18} {one.proportional:7.1f} MB proportional {one.resident:7.1f} MB resident"
                f" {one.kernel:6.1f} MB kernel {one.processes:3} processes {one.share:8.2%} of a core"
            )
        if what.endswith(AT_REST):
            met = "met" if together.proportional <= BUDGET_MB and together.share <= BUDGET_SHARE else "not met"
            yield f"{'':18} budget {BUDGET_MB} MB, {BUDGET_SHARE:.0%}: {met}"
