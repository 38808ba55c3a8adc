"""What can go wrong with a recording, in words for the person who has to act.

What lives here: the base class of capd's errors, the exit statuses, and one class for each failure of files on disk.
What must not: handling of errors, failures of probes or protocols.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final


class ExitStatus(IntEnum):
    """What a capd command exits with. Numbers are frozen: scripts depend on them."""

    OK = 0
    NEGATIVE = 1
    """A negative answer: degraded, altered, nothing found."""
    USAGE = 2
    """The command was used wrongly, or capd is down."""
    NOT_PERMITTED = 3
    HOST = 4
    """The kernel or the host lacks something that capd needs."""
    STATE = 5
    """The state directory is unusable or full."""
    CORRUPT = 6
    """Data on disk is damaged, or written by a newer capd."""
    ALREADY_RUNNING = 7
    UNREACHABLE = 8
    """The daemon cannot be reached."""
    BUCKET = 9
    """The bucket cannot be used."""


class CapdError(Exception):
    """Base of the errors that a person may see: `str()` is one line that says what is wrong.

    Attributes:
        exit_status: what a command that ends with this error exits with.
        hint: one line that says what to do next; empty when there is nothing to do.
    """

    exit_status: ClassVar[int] = ExitStatus.NEGATIVE
    hint: ClassVar[str] = ""


class StateDirectoryError(CapdError):
    """A file of the state directory cannot be used."""

    exit_status = ExitStatus.STATE
    hint = "check that the state directory exists, is mounted read-write and belongs to capd; `capd doctor` looks"

    def __init__(self, operation: str, path: Path, error: OSError) -> None:
        super().__init__(f"cannot {operation} {path}: {error.strerror or error}")
        self.path = path
        self.errno = error.errno


class StorageFullError(StateDirectoryError):
    """There is no room left for what has to be written. What was written before is whole; the call may be repeated."""

    hint = "free space on that file system, or mount a larger one (docs/operations.md, More room); capd goes on by itself"


class NotReadableError(StateDirectoryError):
    """The caller may not read, or not write, a file of the state directory."""

    exit_status = ExitStatus.NOT_PERMITTED
    hint = "run the command as root or as the recorder's user"


class NewerVersionError(CapdError):
    """A file was written in a format that this capd does not know yet."""

    exit_status = ExitStatus.CORRUPT
    hint = "read it with the capd that wrote it, or a later one"

    def __init__(self, path: Path | str, found: int, known: int) -> None:
        super().__init__(f"{path} has format version {found}; this capd reads versions up to {known}")
        self.found = found
        self.known = known


class CatalogueError(CapdError):
    """The catalogue of a bucket holds something that cannot be in one."""

    exit_status = ExitStatus.CORRUPT
    hint = "the segments are the record: `capd verify --bucket URL` checks them, and --state-dir reads a copy of a host's"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the bucket's catalogue cannot be read: {reason}")


class CorruptSegmentError(CapdError):
    """A segment does not hold what was written into it.

    Attributes:
        path: the file.
        frame: number of the frame, from 0; None when the damage is in the file header, the footer or the trailer.
        offset: byte in the file where the damaged part starts.
        reason: what is wrong there.
    """

    exit_status = ExitStatus.CORRUPT
    hint = "`capd verify` lists all damage; what comes before the damaged frame can still be read"

    def __init__(self, path: Path | str, frame: int | None, offset: int, reason: str) -> None:
        place = "" if frame is None else f"frame {frame}, "
        super().__init__(f"{path}: {place}byte {offset}: {reason}")
        self.path = path
        self.frame = frame
        self.offset = offset
        self.reason = reason


class EncryptedError(CapdError):
    """The recording is encrypted, and no identity was given to read it with."""

    exit_status = ExitStatus.NOT_PERMITTED
    hint = "give `--identity FILE` (or CAPD_IDENTITY) with the age identity of one of the recipients"

    def __init__(self, what: Path | str, recipients: int) -> None:
        whom = "one recipient" if recipients == 1 else f"{recipients} recipients"
        super().__init__(f"{what} is encrypted to {whom}")


class WrongIdentityError(EncryptedError):
    """None of the identities given opens the recording. age does not tell whose would."""

    hint = "find the identity of a recipient that `[encryption] recipients` named when this was recorded"

    def __init__(self, what: Path | str, source: str, identities: int, recipients: int) -> None:
        super().__init__(what, recipients)
        whose = "the identity" if identities == 1 else f"none of the {identities} identities"
        verb = "does not open" if identities == 1 else "opens"
        self.args = (f"{self.args[0]}; {whose} in {source} {verb} it",)


class RecipientError(CapdError):
    """A recipient is none that capd can encrypt to."""

    exit_status = ExitStatus.USAGE
    hint = "`age-keygen -y IDENTITY_FILE` prints the recipient of an identity: it starts with age1"

    def __init__(self, text: str, *, secret: bool) -> None:
        what = "an identity, which is secret and has no place here" if secret else f"{text!r}, which is no age X25519 recipient"
        super().__init__(f"a recipient is {what}")


class IdentityFileError(CapdError):
    """The file given with --identity holds something else than age identities."""

    exit_status = ExitStatus.USAGE
    hint = "give the file that `age-keygen` wrote; its identities start with AGE-SECRET-KEY-1"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no identity file: {reason}")


class HostKeyError(CapdError):
    """The key that signs, or checks, a host's recording cannot be used."""

    exit_status = ExitStatus.STATE
    hint = 'the daemon makes `state_dir/keys` at its first start; bring a copy back, or see "Keys" in docs/operations.md'

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"cannot use the key {path}: {reason}")


class PinsError(CapdError):
    """The file in which `capd verify` remembers keys and heads holds something else."""

    exit_status = ExitStatus.CORRUPT
    hint = "bring a copy back, or give another file with `--pins FILE`; what was pinned there is not checked then"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} holds no pins: {reason}")


class IndexUnusableError(CapdError):
    """The index cannot be opened or is not an index of capd."""

    exit_status = ExitStatus.CORRUPT
    hint = "stop the recorder and remove the index: it is rebuilt from the segments at the next start"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use the index {path}: {reason}")
        self.path = path


class NothingRecordedError(CapdError):
    """There is no recording where one was looked for."""

    exit_status = ExitStatus.STATE
    hint = "check the path or URL, or `state_dir` in the configuration, or start capd with `capd up`"

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"there is no recording in {path}")
        self.path = path


class NothingSealedError(CapdError):
    """There is no sealed segment: nothing says whether the record is whole."""

    exit_status = ExitStatus.STATE
    hint = "what agents say is sealed some seconds later; if there were segments before, `capd verify BUCKET` has what was sent"

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"there is no sealed segment in {path}, so nothing to verify")
        self.path = path


class UnknownSessionError(CapdError):
    """No session or run has the given id; what had it may have expired."""

    exit_status = ExitStatus.NEGATIVE
    hint = "`capd sessions` and `capd runs` list the ids"

    def __init__(self, text: str, what: str = "session", *, expired: str = "", behind: str = "") -> None:
        gone = f" any more, if there was: {expired}" if expired else ""
        super().__init__(f"there is no {what} {text!r}{gone}" + (f"; {behind}" if behind else ""))
        self.expired, self.behind = expired, behind


class AmbiguousSessionError(CapdError):
    """A shortened id fits more than one session or run."""

    exit_status = ExitStatus.USAGE
    hint = "give more digits of the id"

    def __init__(self, text: str, matches: list[str], what: str = "session") -> None:
        super().__init__(f"{what} {text!r} is ambiguous: {', '.join(matches)}")
        self.matches = matches


class NotTextError(CapdError):
    """What is looked for is no text in UTF-8, so that nothing recorded can be equal to it."""

    exit_status = ExitStatus.USAGE
    hint = "give it in UTF-8; `locale` says what this terminal sends"

    def __init__(self, given: str) -> None:
        super().__init__(f"{given!r} is no text in UTF-8: no id, name or target can be that")


class RecordTooLargeError(CapdError):
    """A record is larger than any reader would accept, so it must not be written."""

    exit_status = ExitStatus.CORRUPT
    hint = "this is a defect of capd: report it"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a record of {size} bytes is over the limit of {limit}")


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


def state_error(operation: str, path: Path, error: OSError) -> StateDirectoryError:
    """Give the error class that tells a person what an OSError on a file of the state directory means."""
    if error.errno in _FULL:
        return StorageFullError(operation, path, error)
    if error.errno in _FORBIDDEN:
        return NotReadableError(operation, path, error)
    return StateDirectoryError(operation, path, error)


@contextmanager
def on_disk(operation: str, path: Path) -> Iterator[None]:
    """Turn every OSError of the block into a StateDirectoryError that says which operation failed on which file."""
    try:
        yield
    except OSError as error:
        raise state_error(operation, path, error) from error
