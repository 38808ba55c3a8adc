"""What is mounted, and mounting what is missing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from capd.daemon import mountinfo
from capd.daemon.mountinfo import Mount
from tests.daemon.conftest import in_namespace

LINES = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
42 31 0:38 /docker/x /mnt/with\\040space\\134 ro,nosuid - cgroup2 none rw
43 31 0:39 / /ro rw - ext4 /dev/vda ro,discard
nonsense
1 2 3
"""


def test_lines_of_mountinfo() -> None:
    """Optional fields, escapes, read-only mounts and read-only file systems are understood; other lines are passed over."""
    expected = [
        Mount(root="/", point=Path("/proc"), type="proc", writable=True),
        Mount(root="/", point=Path("/sys/fs/cgroup/unified"), type="cgroup2", writable=True),
        Mount(root="/docker/x", point=Path("/mnt/with space\\"), type="cgroup2", writable=False),
        Mount(root="/", point=Path("/ro"), type="ext4", writable=False),
    ]
    assert expected == list(mountinfo.parse(LINES))


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text gives mounts or nothing, never an exception."""
    assert all(isinstance(mount, Mount) for mount in mountinfo.parse(text))


MOUNT = """
from capd.daemon import mounts
print(*sorted(mounts.missing()))
print(*mounts.mount_missing(), sep="|")
print(*mounts.missing())
print(*mounts.mount_missing())
"""
GONE = "for at in /sys/fs/bpf /sys/kernel/tracing; do while umount -l $at 2>/dev/null; do :; done; done"


def test_missing_ones_are_mounted_and_said() -> None:
    """What is not mounted of bpffs and tracefs is mounted where it belongs, each is said, and a second time nothing happens."""
    done = in_namespace(MOUNT, prepare=GONE)
    said = "bpf was not mounted: mounted it at /sys/fs/bpf|tracefs was not mounted: mounted it at /sys/kernel/tracing"
    assert ("", f"bpf tracefs\n{said}\n\n\n") == (done.stderr, done.stdout)


AT_ONCE = """
import threading
from capd.daemon import mounts
asked = threading.Barrier(8)
def start(missing=mounts.missing()):
    asked.wait()
    said.append([mounts._mount(kind, point).partition(" at ")[0] for kind, point in missing.items()])
said = []
threads = [threading.Thread(target=start) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(said), sorted({words for each in said for words in each}), len(mounts.missing()))
"""


def test_two_that_start_at_once_mount_once() -> None:
    """Who finds that another was faster goes on."""
    done = in_namespace(AT_ONCE, prepare=GONE)
    assert "" == done.stderr
    assert ("8", "0") == (done.stdout.split()[0], done.stdout.split()[-1])
    assert "tracefs was not mounted: another mounted it" in done.stdout
    assert "cannot be" not in done.stdout


def test_refusal_of_the_kernel_gives_the_command() -> None:
    """Without the right to mount, the error says what to type for tracefs; bpffs, which nothing needs, is only mentioned."""
    script = f"""
import ctypes
ctypes.CDLL(None).prctl(24, 21, 0, 0, 0)  # PR_CAPBSET_DROP CAP_SYS_ADMIN
import os
os.setgroups([]); os.setresuid(65534, 65534, 65534)
{MOUNT}"""
    done = in_namespace(script, prepare=GONE)
    assert 1 == done.returncode
    assert "Operation not permitted (`mount -t tracefs tracefs /sys/kernel/tracing`)" in done.stderr
