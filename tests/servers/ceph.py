"""A real S3 server: Ceph's radosgw with one monitor and one OSD in memory, on free loopback ports, over TLS.

What lives here: starting and stopping it, making buckets in it. What must not: anything of a test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from capd.recording.bucket.location import Options, parse
from capd.recording.bucket.signed import SignedRequests
from tests.e2e.certificates import Certificates
from tests.requirements import require_command, require_root

ACCESS_KEY, SECRET_KEY = "AKTEST", "SKTEST"
START_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 90.0
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
ms_bind_msgr1 = false
ms_mon_client_mode = crc
log_file = {directory}/$name.log
log_to_stderr = false
run_dir = {directory}
admin_socket =
pid_file = {directory}/$name.pid
crash_dir = {directory}
mon_data = {directory}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 1
osd_data = {directory}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_scrub_load_threshold = 2000
rgw_frontends = beast endpoint=127.0.0.1:{plain} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={certificate} \
ssl_private_key={key}
rgw_enable_usage_log = false
rgw_thread_pool_size = 16
keyring = {directory}/keyring
"""
_NO_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceph:
    """A running server.

    Attributes:
        port: where it speaks TLS on 127.0.0.1.
        plain_port: where it speaks HTTP.
        authority: PEM to trust.
        shared: buckets that tests share, by whether they lock objects.
    """

    port: int
    plain_port: int
    authority: Path
    shared: dict[bool, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"https://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(self.authority),
        }

    def requests(self, bucket: str) -> SignedRequests:
        """Give signed requests about one bucket."""
        options = Options(endpoint=f"https://127.0.0.1:{self.port}", region="us-east-1", ca_file=self.authority)
        return SignedRequests(parse(f"s3://{bucket}"), options, self.environment)

    def url(self, *, lock: bool = False) -> str:
        """Give the URL of an empty part of a bucket that others use too: making a bucket takes half a second."""
        if lock not in self.shared:
            self.shared[lock] = self.make("shared", lock=lock)
        return f"s3://{self.shared[lock]}/part/{uuid.uuid4().hex[:12]}"

    def make(self, name: str, *, lock: bool = False, retention: tuple[str, int] | None = None) -> str:
        """Make a bucket and give its name: the words of `name` and something unique.

        Args:
            name: words.
            lock: with object lock, which brings versions.
            retention: mode and days of the default retention; implies `lock`.
        """
        bucket = f"{_NO_NAME.sub('-', name.lower()).strip('-')[:40]}-{uuid.uuid4().hex[:8]}"
        requests = self.requests(bucket)
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if lock or retention else {}
        assert requests.request("PUT", None, {}, headers=headers).status == 200
        if retention is not None:
            mode, days = retention
            rule = f"<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule>"
            body = f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
            answer = requests.request("PUT", None, {"object-lock": ""}, body.encode())
            assert answer.status == 200, answer.body
        return bucket


@contextmanager
def server(directory: Path, certificates: Certificates) -> Iterator[Ceph]:
    """Run the server with its files in a directory; stop it at the end. Takes about 13 seconds to start."""
    require_root()
    require_command("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")
    for name in ("mon", "osd", "rgw"):
        (directory / name).mkdir(parents=True)
    monitor, plain, tls = _free_ports(3)
    configuration = directory / "ceph.conf"
    fsid = str(uuid.uuid4())
    files = {"certificate": certificates.certificate, "key": certificates.key, "directory": directory, "fsid": fsid}
    configuration.write_text(CONFIGURATION.format(monitor=monitor, plain=plain, tls=tls, **files), encoding="ascii")
    try:
        _start(directory, configuration, fsid=fsid, monitor=monitor)
        _wait_for(tls)
        user = ("user", "create", "--uid=t", "--display-name=t", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        _run("radosgw-admin", "-c", configuration, "-n", "client.rgw.a", *user)
        yield Ceph(port=tls, plain_port=plain, authority=certificates.authority)
    finally:
        _stop(directory)


def _start(directory: Path, configuration: Path, *, fsid: str, monitor: int) -> None:
    keyring, map_ = directory / "keyring", directory / "monmap"
    for number, name in enumerate(("client.admin", "client.rgw.a", "mon.")):
        create = ("--create-keyring",) if number == 0 else ()
        rights = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        _run("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *rights)
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}]", map_)
    with_file = ("-c", configuration)
    _run("ceph-mon", *with_file, "--mkfs", "--keyring", keyring, "-i", "a", "--monmap", map_)
    _run("ceph-mon", *with_file, "-i", "a")
    osd = str(uuid.uuid4())
    _run("ceph", *with_file, "osd", "new", osd)
    _run("ceph", *with_file, "osd", "crush", "add", "osd.0", "1", "root=default", "host=h")
    _run("ceph-osd", *with_file, "-i", "0", "--mkfs", "--osd-uuid", osd)
    _run("ceph-osd", *with_file, "-i", "0")
    _run("radosgw", *with_file, "-n", "client.rgw.a", f"--rgw-data={directory / 'rgw'}")


def _run(*command: str | Path) -> None:
    environment: Mapping[str, str] = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    done = subprocess.run(  # the daemons it leaves behind must not keep a pipe of ours open
        [program, *map(str, command[1:])],
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=START_SECONDS_MAX,
    )
    assert done.returncode == 0, f"{command[0]} ended with status {done.returncode}: {' '.join(map(str, command))}"


def _stop(directory: Path) -> None:
    """End what runs, by the numbers in its files, the gateway first."""
    for name in ("client.rgw.a", "osd.0", "mon.a"):
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = int((directory / f"{name}.pid").read_text(encoding="ascii"))
            os.kill(pid, signal.SIGTERM if name == "client.rgw.a" else signal.SIGKILL)
            _wait_gone(pid)


def _wait_gone(pid: int) -> None:
    end = time.monotonic() + STOP_SECONDS_MAX
    while time.monotonic() < end and Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, "radosgw did not start"
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on now: Ceph's programs must be told theirs beforehand."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()
