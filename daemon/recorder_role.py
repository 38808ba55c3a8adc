"""The recorder's process.

What lives here: who it becomes, its lock, its signals. What must not: its work (recorder.py).
"""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from capd.daemon import recorder_user
from capd.daemon.confinement import confine
from capd.daemon.errors import SandboxError
from capd.daemon.heartbeat import Heartbeat
from capd.daemon.landlock import KEEP_TREE, Right, restrict
from capd.daemon.lock import InstanceLock
from capd.daemon.recorder import POLL_SECONDS, Recorder
from capd.daemon.state_directory import read_host
from capd.recording.keys import HostKey

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

COLLECT_AFTER: Final = (50_000, 20, 100)
"""gc.set_threshold: a flush holds so many records at once that the default looks through all of them again and again, for a
sixth of the time, and finds nothing: nothing here refers to itself."""
SQLITE_TEMPORARY: Final = "SQLITE_TMPDIR"
"""Where SQLite has files that it needs for a moment; elsewhere it may not write (sqlite.org/tempfiles.html, section 5)."""
MOVE_FILES: Final = KEEP_TREE | Right.REFER
"""What cannot be read is moved from one of its directories to another."""


def run_recorder(configuration: Configuration) -> None:
    """Be the recorder until SIGTERM or SIGINT; SIGUSR1 seals the current segment. The directories must have been prepared.

    Raises:
        CapdError: it cannot start, or cannot go on; what was recorded is safe.
    """
    user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    heart = Heartbeat(os.environ, os.getpid())
    confine(user.uid, user.gid)
    confined = f"confined: user {user.name}, system calls, {_restrict_files(configuration)}"
    os.umask(0o027)
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    lock = InstanceLock(configuration.recorder_dir / "lock").acquire()
    stopped = False

    def stop_waiting(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_waiting)
    host = None
    while host is None and not stopped:
        host = read_host(configuration.host_file)
        if host is None:
            time.sleep(POLL_SECONDS)
    if host is not None:
        recorder = Recorder(configuration, host=host, user=str(user), signer=HostKey.load(configuration.keys_dir))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: recorder.stop())
        signal.signal(signal.SIGUSR1, lambda _number, _frame: recorder.ask_seal())
        if stopped:
            recorder.stop()
        recorder.write_status("running")  # whoever waited until it was ready and asks finds it
        heart.ready(f"recording; {confined}")
        recorder.run(heart.beat)
    lock.release()


def _restrict_files(configuration: Configuration) -> str:
    """Give up writing but in its own directories; say what was given up."""
    os.environ[SQLITE_TEMPORARY] = str(configuration.recorder_dir)
    places = (
        configuration.recorder_dir,
        configuration.segments_dir,
        configuration.index_dir,
        configuration.quarantine_dir,
        configuration.recorder_runtime_dir,
    )
    try:
        restrict(dict.fromkeys(places, MOVE_FILES))
    except SandboxError as error:
        return f"not files ({error})"
    return "files"
