"""The directories of an instance: made, owned and checked before anything is recorded.

What lives here: who owns what, whether it can be written, how much room there is, the host's id. What must not: what is in
the files.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from capd.daemon.errors import HostIdError, StateDirectoryFullError
from capd.daemon.locations import CALLBACKS_RUNTIME
from capd.daemon.recorder_user import RecorderUser
from capd.daemon.units import MIB
from capd.recording.durable import OTHERS_WRITE, read_regular, replace_content
from capd.recording.errors import on_disk

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
HOST_FILE_BYTES_MAX: Final = 64
"""A UUID in any of its spellings; root reads no more of a file than it needs."""


@dataclass(frozen=True, kw_only=True)
class _Directory:
    path: Path
    uid: int
    gid: int
    mode: int


def prepare_enforcer(configuration: Configuration, uid: int, gid: int, reader_gid: int) -> None:
    """Make the enforcer's directories, let its group read which runs there are, and the recorder's what was decided.

    Args:
        configuration: of this instance.
        uid: the enforcer's user.
        gid: its group.
        reader_gid: the recorder's group.

    Raises:
        StateDirectoryError: one cannot be made or changed.
    """
    _make(
        [
            _Directory(path=configuration.enforcer_dir, uid=uid, gid=reader_gid, mode=0o710),
            # Files in it get its group, which may read them, and nothing else.
            _Directory(path=configuration.decisions_dir, uid=uid, gid=reader_gid, mode=0o2750),
            _Directory(path=configuration.approvals_dir, uid=uid, gid=gid, mode=0o700),
            _Directory(path=configuration.callbacks_dir, uid=uid, gid=gid, mode=0o700),
            _Directory(path=configuration.enforcer_runtime_dir, uid=uid, gid=gid, mode=0o755),
            _Directory(path=configuration.enforcer_runtime_dir / CALLBACKS_RUNTIME, uid=uid, gid=gid, mode=0o755),
            _Directory(path=configuration.trust_dir, uid=0, gid=0, mode=0o755),
            # Files in it get its group.
            _Directory(path=configuration.runs_dir, uid=0, gid=gid, mode=0o2750),
        ]
    )


def prepare(configuration: Configuration, user: RecorderUser) -> None:
    """Make the directories that are missing and give each the owner and mode that keep the roles apart.

    What the recorder owned under another number is given to `user`: that happens once, when the package makes its user.

    Raises:
        StateDirectoryError: one cannot be made or changed.
    """
    _make(_layout(configuration, user))


def _make(directories: list[_Directory]) -> None:
    for directory in directories:
        with on_disk("make", directory.path):
            if directory.path.exists() and not directory.path.is_dir():
                raise OSError(errno.ENOTDIR, "there is something else, which is no directory")
            directory.path.mkdir(mode=directory.mode, parents=True, exist_ok=True)
        with on_disk("give an owner to", directory.path):
            opened = _open(directory.path)
            try:
                _own(opened, directory)
            finally:
                os.close(opened)


def check_room(configuration: Configuration) -> None:
    """Refuse to start where the first minutes would already fill the disk.

    Raises:
        StateDirectoryFullError: less is free than `journal.free_bytes_min`.
        StateDirectoryError: the file system cannot be asked.
    """
    free = free_bytes(configuration.state_dir)
    wanted = configuration.journal.free_bytes_min
    if free < wanted:
        raise StateDirectoryFullError(
            f"{configuration.state_dir} has {free // MIB} MiB free, journal.free_bytes_min wants {wanted // MIB} MiB"
        )


def free_bytes(directory: Path) -> int:
    """Say how many bytes an unprivileged process, as the recorder is, may still write there.

    Raises:
        StateDirectoryError: the file system cannot be asked.
    """
    with on_disk("ask for free space in", directory):
        found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def host_id(path: Path) -> UUID:
    """Give this host's id; the first start makes it.

    Raises:
        StateDirectoryError: the file cannot be read or written, or holds something else.
    """
    with on_disk("read", path):
        if not path.exists():
            replace_content(path, f"{uuid4()}\n".encode(), mode=0o644)
        text = read_regular(path, HOST_FILE_BYTES_MAX)
    try:
        return UUID(text.decode("ascii").strip())
    except ValueError as error:
        raise HostIdError("read the host's id from", path, OSError("it is no UUID")) from error


def read_host(path: Path) -> UUID | None:
    """Give the host's id; None while the daemon has not written it."""
    try:
        return UUID(read_regular(path, HOST_FILE_BYTES_MAX).decode("ascii").strip())
    except (OSError, ValueError):
        return None


def boot_id() -> UUID:
    """Give the kernel's id of this boot."""
    return UUID(BOOT_ID.read_text(encoding="ascii").strip())


def _layout(configuration: Configuration, user: RecorderUser) -> list[_Directory]:
    def of_root(path: Path, mode: int, gid: int = 0) -> _Directory:
        return _Directory(path=path, uid=0, gid=gid, mode=mode)

    def of_recorder(path: Path, mode: int) -> _Directory:
        return _Directory(path=path, uid=user.uid, gid=user.gid, mode=mode)

    return [
        of_root(configuration.state_dir, 0o755),
        of_root(configuration.journal_dir, 0o750, user.gid),
        of_root(configuration.keys_dir, 0o750, user.gid),
        of_root(configuration.probes_dir, 0o700),
        of_recorder(configuration.recorder_dir, 0o750),
        of_recorder(configuration.segments_dir, 0o750),
        of_recorder(configuration.index_dir, 0o750),
        of_recorder(configuration.quarantine_dir, 0o750),
        of_recorder(configuration.shipper_dir, 0o750),
        of_recorder(configuration.deletions_dir, 0o750),
        of_root(configuration.runtime_dir, 0o755),
        *([of_root(configuration.runs_dir, 0o700)] if configuration.enforcement.mode == "off" else []),
        of_recorder(configuration.recorder_runtime_dir, 0o755),
        of_recorder(configuration.shipper_runtime_dir, 0o755),
        of_recorder(configuration.metrics_runtime_dir, 0o755),
        of_recorder(configuration.alerts_dir, 0o755),
    ]


def _open(path: Path) -> int:
    """Open a directory. Root may have put a link to one in its place; one in a directory of a role leads nowhere.

    Raises:
        OSError: it is none, or such a link.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    above = path.parent.stat()
    trusted = above.st_uid in {0, os.geteuid()} and not above.st_mode & OTHERS_WRITE
    return os.open(path, flags if trusted else flags | os.O_NOFOLLOW)


def _own(opened: int, directory: _Directory) -> None:
    """Set owner and mode of a directory that is open.

    What the former owner may have put there for us to give away stays as it is: whatever links lead to, and whatever was not
    its own, as a hard link to another's file is.
    """
    found = os.fstat(opened)
    if (found.st_uid, found.st_gid) != (directory.uid, directory.gid):
        for name in os.listdir(opened) if directory.uid != 0 else ():
            _give(opened, name, found.st_uid, directory)
        os.chown(opened, directory.uid, directory.gid)
    if found.st_mode & 0o7777 != directory.mode:
        os.chmod(opened, directory.mode)


def _give(opened: int, name: str, former: int, directory: _Directory) -> None:
    """Give an entry of a directory to its new owner, if it is a file or directory of the former one."""
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)
    except FileNotFoundError:
        return
    try:
        entry = os.fstat(descriptor)
        if entry.st_uid == former and (stat.S_ISREG(entry.st_mode) or stat.S_ISDIR(entry.st_mode)):
            # By descriptor, so that nothing else can be put under the name in between.
            os.chown(f"/proc/self/fd/{descriptor}", directory.uid, directory.gid)
    finally:
        os.close(descriptor)
