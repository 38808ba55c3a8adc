"""One capd to a set of directories."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from capd.daemon.errors import AnotherCapdError
from capd.daemon.lock import InstanceLock, holder
from capd.recording.errors import StateDirectoryError
from tests.daemon.conftest import ENVIRONMENT, PYTHON

HOLD = """
import sys
from pathlib import Path
from capd.daemon.lock import InstanceLock
lock = InstanceLock(*map(Path, sys.argv[1:])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def hold(*places: Path) -> subprocess.Popen[str]:
    """Start a process that holds locks until its standard input ends."""
    command = [PYTHON, "-P", "-c", HOLD, *map(str, places)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    assert "held\n" == process.stdout.readline()
    return process


def test_second_process_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    """While another process holds the file, the error has its pid, the place and exit status 7."""
    file = tmp_path / "daemon.lock"
    with hold(file) as other:
        with pytest.raises(AnotherCapdError) as caught:
            InstanceLock(file).acquire()
        assert f"another capd is running (pid {other.pid}): it holds {file}" == str(caught.value)
        assert 7 == caught.value.exit_status
        other.communicate("")


def test_shared_state_directory_is_refused(tmp_path: Path) -> None:
    """Two instances with different lock files but the same journal exclude each other, and a refused one leaves no lock."""
    journal, first, second = tmp_path / "journal", tmp_path / "a.lock", tmp_path / "b.lock"
    journal.mkdir()
    with hold(first, journal) as other:
        with pytest.raises(AnotherCapdError, match="journal"):
            InstanceLock(second, journal).acquire()
        InstanceLock(second).acquire().release()
        other.communicate("")


def test_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    """After kill -9 of the holder the lock is free at once, though its file is still there."""
    file = tmp_path / "daemon.lock"
    with hold(file) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert file.exists()
    InstanceLock(file).acquire().release()
    assert os.getpid() == holder(file)


def test_unusable_place_is_named(tmp_path: Path) -> None:
    """A lock file that cannot be made is a state directory error that names it; a symbolic link is not followed."""
    with pytest.raises(StateDirectoryError, match="missing"):
        InstanceLock(tmp_path / "missing" / "daemon.lock").acquire()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateDirectoryError, match="link"):
        InstanceLock(tmp_path / "link").acquire()


@pytest.mark.parametrize("content", [b"", b"x", b"9" * 100, b"-1", b"\xff"])
def test_holder_of_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """A lock file with anything but a pid in it names nobody, or cuts what is too long."""
    file = tmp_path / "daemon.lock"
    file.write_bytes(content)
    assert (int("9" * 20) if content.startswith(b"9") else None) == holder(file)
