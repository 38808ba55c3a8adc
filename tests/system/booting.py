"""A machine with capd, an agent that starts with it, and a sink that counts what reaches it.

What lives here: both programs, putting them there, asking what they said. What must not: judging.
"""

from __future__ import annotations

from pathlib import Path

from tests.daemon.conftest import wait_until
from tests.system.machine import Machine

SINK = """\
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"told " + self.path.encode())
    def log_message(self, *_):
        print("reached", self.path, flush=True)
def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 7000))
        while True: print("reached", server.recv(100), flush=True)
threading.Thread(target=datagrams, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 7000), Handler).serve_forever()
"""
AGENT = """\
import socket, sys, time, urllib.request
times, paths = int(sys.argv[1]), sys.argv[2:]
while times:
    times -= 1
    for path in paths:
        try: print(urllib.request.urlopen("http://127.0.0.1:7000" + path, timeout=5).read().decode(), flush=True)
        except OSError as error: print("failed", error, flush=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try: client.sendto(b"datagram", ("127.0.0.1", 7000))
        except OSError as error: print("failed", error, flush=True)
    time.sleep(0.2)
"""
UNITS = {
    "sink": "[Service]\nExecStart=/usr/bin/python3 /root/sink.py\n[Install]\nWantedBy=basic.target\n",
    "agent": "[Unit]\nAfter=sink.service\n[Service]\nSlice=capd-agents.slice\n"
    "ExecStart=/usr/bin/python3 /root/agent.py -1 /allowed /denied\n[Install]\nWantedBy=multi-user.target\n",
}
UNDER = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
"""A service that is put under capd by the drop-in that the package brings."""
POLICY = """\
rules:
  - id: reading
    match: {hosts: [127.0.0.1], ports: [7000], protocols: [http], methods: [GET], paths: [/allowed]}
    then: allow
"""
ENFORCE = '[enforcement]\nmode = "enforce"\n'


def reached(machine: Machine) -> str:
    """Give what the sink got since the machine booted."""
    return "\n".join(line for line in told(machine, "sink").splitlines() if line.startswith("reached"))


def told(machine: Machine, unit: str) -> str:
    """Give what a unit said since the machine booted."""
    return machine.must("journalctl", "--boot", f"--unit={unit}", "--output=cat", "--quiet", "--no-pager")


def tries(machine: Machine, path: str) -> list[str]:
    """Give what an agent says that tries once, as a unit of the slice that starts now."""
    unit = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--slice=capd-agents.slice")
    return machine.must(*unit, "/usr/bin/python3", "/root/agent.py", "1", path).splitlines()


def install(machine: Machine, package: Path) -> None:
    """Put capd there, which records only, a sink, an agent that starts with the machine, and a service under capd."""
    machine.write("/root/sink.py", SINK)
    machine.write("/root/agent.py", AGENT)
    for name, text in UNITS.items():
        machine.write(f"/etc/systemd/system/{name}.service", text)
    machine.install(package)
    wait_until(lambda: machine("capd", "status").returncode == 0, "healthy")
    machine.must("systemctl", "enable", "--now", "sink")
    machine.must("systemctl", "enable", "agent")
    machine.write("/etc/systemd/system/under.service", UNDER)
    machine.must("mkdir", "/etc/systemd/system/under.service.d")
    machine.must("cp", "/usr/share/doc/capd/examples/under-capd.conf", "/etc/systemd/system/under.service.d")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "enable", "under")
