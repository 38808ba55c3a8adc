"""What README.md tells a new user to type, typed on a machine that has never seen capd.

What is here: its five commands, word for word, one after another, and how long they take together.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import REPOSITORY
from tests.system.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

HEADING = "Five commands"
SECONDS_MAX = 120
"""A machine that does eight other things at once takes ten times as long as one that has nothing to do."""
SERVER = """\
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "18")
        self.end_headers()
        self.wfile.write(b"an example domain\\n")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/example.pem", "/root/example.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def commands() -> list[str]:
    """Give the commands of README.md, without what it says behind them."""
    _, _, behind = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition(HEADING)
    block = next(part for part in behind.split("\n\n") if part.startswith("    "))
    return [line.split("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture(scope="module")
def newcomer(machine: Machine, packages: tuple[Path, Path]) -> Iterator[Machine]:
    """Give a machine with a package in `dist`, and, for it has no network, a web server that it takes for example.org's."""
    names = ("-subj", "/CN=example.org", "-addext", "subjectAltName=DNS:example.org")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    machine.must("openssl", "req", "-x509", *curve, *names, "-keyout", "/root/example.key", "-out", "/root/example.pem")
    machine.must("cp", "/root/example.pem", "/usr/local/share/ca-certificates/example.crt")
    machine.must("update-ca-certificates")
    machine.write("/root/example.py", SERVER)
    machine.must("sh", "-c", "echo 127.0.0.1 example.org >>/etc/hosts")
    machine.must("systemd-run", "--quiet", "--unit=example", "/usr/bin/python3", "/root/example.py")
    (machine.root / "root/dist").mkdir()
    (machine.root / "root/dist" / packages[0].name).write_bytes(packages[0].read_bytes())
    yield machine
    machine("systemctl", "stop", "example")
    machine("apt-get", "purge", "--quiet", "--yes", "capd")
    machine("rm", "-r", "/root/dist", "/usr/local/share/ca-certificates/example.crt")
    machine("update-ca-certificates", "--fresh")


def test_five_commands_lead_from_the_package_to_a_recorded_agent(newcomer: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed one after another without waiting, they install capd and show what an agent said and heard over HTTPS."""
    typed = commands()
    assert 5 == len(typed)
    assert re.match(r"sudo apt install \./dist/capd_", typed[0])
    began, said, told = time.monotonic(), "", []
    for command in typed:
        line = command.removesuffix(" ID")
        if line != command:  # a person takes the id from what stands on the screen
            (row,) = (row for row in said.splitlines() if "http1" in row)
            line += f" {row.split()[0]}"
        start = time.monotonic()
        said = newcomer.must("bash", "-c", f"cd /root && {line}")
        told.append(f"{time.monotonic() - start:6.1f} s  {line}")
    took = time.monotonic() - began
    with capsys.disabled():
        told.append(f"{took:6.1f} s together, load {os.getloadavg()[0]:.0f}")
        print("", *told, sep="\n")  # noqa: T201 - the figure that README.md has is from here
    assert "GET / HTTP/" in said
    assert "an example domain" in said
    assert took < SECONDS_MAX
