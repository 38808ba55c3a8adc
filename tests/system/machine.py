"""A Debian machine that boots: a root file system under systemd-nspawn, with this kernel.

What lives here: making it, booting it, running commands in it, powering it off. What must not: what is tried on it.

Its network is a loopback of its own, and so is the cgroup below which all of its cgroups are: of two machines that had the same
one, what one forces in its `capd-agents.slice` would be forced in the other's. Its processes and BPF programs are the kernel's,
which other tests share.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from tests.daemon.conftest import wait_until

PACKAGES: Final = "systemd,systemd-sysv,dbus,python3-bpfcc,nftables,ca-certificates,procps,iproute2,openssl,curl,sudo,rpm"
KEPT: Final = os.environ.get("CAPD_TEST_ROOT", "")
"""A root file system that was made before, for whoever runs these tests often."""
COMMAND_SECONDS_MAX: Final = 180
BOOT_SECONDS_MAX: Final = 120
HIERARCHIES: Final = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
"""By which systemd-nspawn knows where it is; with cgroup2 alone it is the one above them."""
_numbers = count()
WRITABLE: Final = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes"}
"""Without it tracefs is hidden."""


def mirror() -> str:
    """Give where this machine has its Debian packages from."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("URIs:"):
                return line.split()[1]
    lines = Path("/etc/apt/sources.list").read_text(encoding="utf-8").splitlines()
    return next(next(word for word in line.split() if "://" in word) for line in lines if line.startswith("deb "))


def make_root(root: Path) -> None:
    """Make a Debian 12 with what capd's package depends on, so that installing it needs no network; or copy one."""
    if KEPT:
        subprocess.run(["cp", "--archive", "--reflink=auto", KEPT, str(root)], check=True)
        return
    source = f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror()} bookworm main"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root), source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


class Machine:
    """One machine."""

    def __init__(self, root: Path, console: Path) -> None:
        """Take its root file system, and where its console goes."""
        self.root = root
        self._console = console
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup = f"capd-machine-{os.getpid()}-{next(_numbers)}"

    def boot(self) -> None:
        """Start it, and wait until all of its services are there."""
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no", "--keep-unit"),
                    *("--private-network", "--capability=all", "--system-call-filter=bpf perf_event_open @debug"),
                    *("--console=pipe", "--boot"),
                ],
                preexec_fn=self._enter_cgroup,  # noqa: PLW1509 - as short as can be
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, **WRITABLE},
            )
        try:
            wait_until(self._booted, "booted", BOOT_SECONDS_MAX)
        except AssertionError as error:
            self.off()
            raise AssertionError(self._console.read_text(errors="replace")[-2000:]) from error

    def _enter_cgroup(self) -> None:
        """In systemd-nspawn, before it begins: enter cgroups of its own."""
        for hierarchy in [Path(one) for one in HIERARCHIES if Path(one).is_dir()] or [Path(HIERARCHIES[0]).parent]:
            (hierarchy / self._cgroup).mkdir(exist_ok=True)
            (hierarchy / self._cgroup / "cgroup.procs").write_text("0", encoding="ascii")

    def prepare(self) -> None:
        """Put there what a machine has and this container has not, before its first boot."""
        self.write("/etc/hosts", "127.0.0.1 localhost\n")

    def _booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._console.read_text(errors="replace")[-2000:]
        return self("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    def __call__(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside: in the namespaces of its first process, the child of systemd-nspawn.

        And at its root: where these tests run in a chroot themselves, the root of its mount namespace is not its own.
        """
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii").split()
        command = ["nsenter", f"--target={children[-1] if children else 0}", "--all", "--root", "--wd", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX, input=text)

    def must(self, *words: str, text: str = "") -> str:
        """Run a command that must succeed; give what it says."""
        done = self(*words, text=text)
        assert 0 == done.returncode, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *packages: Path) -> None:
        """Install packages whose other dependencies are there, as an operator would, inside."""
        targets = [self.root / "root" / package.name for package in packages]
        for package, target in zip(packages, targets, strict=True):
            target.write_bytes(package.read_bytes())
        self.must("apt-get", "install", "--quiet", "--yes", *(f"/root/{target.name}" for target in targets))
        for target in targets:
            target.unlink()

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Put a file there."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
        target.chmod(mode)

    def off(self) -> None:
        """Power it off, and remove the empty cgroups that it leaves."""
        if self._process is None:
            return
        self("systemctl", "poweroff")
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        end = time.monotonic() + 10
        while any(left := [_removed(path) for path in self._cgroups()]) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(left)

    def _cgroups(self) -> list[Path]:
        above = Path(HIERARCHIES[0]).parent
        return [path for pattern in ("", "*/") for path in above.glob(f"{pattern}{self._cgroup}")]


def _removed(directory: Path) -> bool:
    """Remove empty cgroups; say whether something stayed."""
    for below, _directories, _files in os.walk(directory, topdown=False):
        with suppress(OSError):
            Path(below).rmdir()
    return directory.exists()
