"""One capd to a set of directories."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from capd.daemon import lock, state_directory
from capd.daemon.configuration import Configuration
from capd.daemon.errors import AnotherCapdError
from capd.daemon.lock import InstanceLock, ending, holder, is_ending
from capd.daemon.recorder_user import RecorderUser
from capd.recording.errors import StateDirectoryError
from tests.daemon.conftest import ENVIRONMENT, PYTHON

NOBODY = RecorderUser(uid=61190, gid=61190, name="61190", reason="a test")
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


@pytest.mark.parametrize(
    ("flags", "masks", "expected"),
    [
        (0x400140, ("0", "0"), False),
        (0x400144, ("0", "0"), True),
        (0x400140, ("0", "0000000000000100"), True),
        (0x400140, ("0000000000000100", "0"), True),
        (0x400140, ("0", "0000000000004000"), False),
    ],
)
def test_who_was_killed_is_ending(flags: int, masks: tuple[str, str], expected: bool) -> None:
    """A process that exits, or that SIGKILL waits for, is ending; SIGTERM alone ends nobody."""
    stat = f"77 (a (b) c) S 1 77 77 0 -1 {flags} 0 0\n"
    assert expected is ending(stat, f"Name:\tx\nSigPnd:\t{masks[0]}\nShdPnd:\t{masks[1]}\n")


def test_who_was_killed_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of a process that is ending are taken when the kernel has freed them; whoever lives is not waited for."""
    file = tmp_path / "daemon.lock"
    assert not is_ending(os.getpid())
    with hold(file) as other:
        looks = []

        def looked(pid: int) -> bool:
            looks.append(pid)
            if len(looks) == 3:
                other.kill()
            return True

        monkeypatch.setattr(lock, "is_ending", looked)
        InstanceLock(file).acquire().release()
    assert [other.pid] * 3 == looks[:3]
    assert is_ending(other.pid)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_lock(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe or a directory in place of a lock file is named in an error, and keeps nobody waiting who asks for the holder."""
    place = tmp_path / "daemon.lock"
    make(place)
    with pytest.raises(StateDirectoryError, match=f"cannot open {place}: "):
        InstanceLock(place).acquire()
    assert holder(place) is None


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
    """Two instances with different lock files but the same state exclude each other, and a refused one leaves no lock."""
    state, first, second = tmp_path / "state.lock", tmp_path / "a.lock", tmp_path / "b.lock"
    with hold(first, state) as other:
        with pytest.raises(AnotherCapdError, match="state"):
            InstanceLock(second, state).acquire()
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


def test_others_cannot_take_the_lock(configuration: Configuration, root: None) -> None:
    """Neither another user nor the recorder can open what the daemon locks: either could keep capd from starting again."""
    state_directory.prepare(configuration, NOBODY)
    locked = [configuration.lock_file, configuration.state_lock_file]
    for file in locked:
        file.touch(mode=0o644)
    InstanceLock(*locked).acquire().release()
    for uid in (65534, NOBODY.uid):
        for file in locked:
            command = [
                "setpriv",
                f"--reuid={uid}",
                f"--regid={uid}",
                "--clear-groups",
                "flock",
                "--nonblock",
                str(file),
                "true",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert "Permission denied" in done.stderr


@pytest.mark.parametrize("content", [b"", b"x", b"9" * 100, b"-1", b"\xff"])
def test_holder_of_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """A lock file with anything but a pid in it names nobody."""
    file = tmp_path / "daemon.lock"
    file.write_bytes(content)
    assert holder(file) is None
