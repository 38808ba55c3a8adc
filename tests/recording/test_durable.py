"""Durable writes: whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from capd.recording.durable import open_regular, read_regular, replace_content, write_whole
from capd.recording.errors import NotReadableError, StateDirectoryError, StorageFullError, on_disk
from capd.recording.index import Index

FileLimit = Callable[[int], AbstractContextManager[None]]


def test_a_replaced_file_has_the_new_content_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """Replacing leaves exactly one file with exactly the content and mode that were asked for."""
    path = tmp_path / "position"
    for content in (b"first", b"", b"third, longer than the first"):
        replace_content(path, content, mode=0o644)
        assert (content, 0o644, ["position"]) == (
            path.read_bytes(),
            path.stat().st_mode & 0o777,
            [path.name for path in tmp_path.iterdir()],
        )


def test_a_replacement_that_finds_no_room_leaves_the_old_content(tmp_path: Path, file_limit: FileLimit) -> None:
    """When the new content cannot be written whole, the old one is untouched."""
    path = tmp_path / "position"
    replace_content(path, b"old")
    with file_limit(1000), pytest.raises(OSError, match="too large"):
        replace_content(path, bytes(2000))
    assert b"old" == path.read_bytes()


@pytest.mark.parametrize("trap", [lambda path, other: path.symlink_to(other), lambda path, _other: os.mkfifo(path)])
def test_nothing_is_written_through_what_a_role_put_there(tmp_path: Path, trap: Callable[[Path, Path], None]) -> None:
    """Who owns the directory may put a link or a pipe under the name that is written first: it fails, at once."""
    other, path = tmp_path / "other", tmp_path / "key"
    other.write_bytes(b"another's")
    trap(tmp_path / ".key.new", other)
    with pytest.raises(OSError, match=r"symbolic links|No such device"):
        replace_content(path, b"secret")
    assert (b"another's", False) == (other.read_bytes(), path.exists())


def test_a_write_that_finds_no_room_is_taken_back(tmp_path: Path, file_limit: FileLimit) -> None:
    """A write that stops half-way cuts the file to where it started, and says so."""
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert 6 == write_whole(fd, [b"abc", b"", b"def"], 0)
    with file_limit(1000), pytest.raises(OSError, match="too large"):
        write_whole(fd, [b"x" * 600, memoryview(b"y" * 600)], 6)
    os.close(fd)
    assert b"abcdef" == path.read_bytes()


def test_many_parts_are_written_in_order_however_the_kernel_splits_them(tmp_path: Path) -> None:
    """More bytes than the kernel takes in one call all arrive, in order."""
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    parts = [bytes([n]) * (n * 1000) for n in range(50)]
    assert sum(map(len, parts)) == write_whole(fd, parts, 0)
    os.close(fd)
    assert b"".join(parts) == path.read_bytes()


@pytest.mark.parametrize(
    ("number", "expected", "status"),
    [
        (errno.ENOSPC, StorageFullError, 5),
        (errno.EDQUOT, StorageFullError, 5),
        (errno.EFBIG, StorageFullError, 5),
        (errno.EACCES, NotReadableError, 3),
        (errno.EROFS, StateDirectoryError, 5),
        (errno.EIO, StateDirectoryError, 5),
    ],
)
def test_each_failure_of_the_disk_has_its_class(number: int, expected: type[StateDirectoryError], status: int) -> None:
    """An OSError becomes the class that tells a person what to do, in one line with the file's name and a hint."""
    with pytest.raises(StateDirectoryError) as caught, on_disk("write", Path("/var/lib/capd/x")):
        raise OSError(number, os.strerror(number))
    error = caught.value
    assert (expected, status) == (type(error), error.exit_status)
    assert f"cannot write /var/lib/capd/x: {os.strerror(number)}" == str(error)
    assert error.hint


def test_a_full_device_is_told_as_full() -> None:
    """A write to a device without room ends in StorageFullError."""
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(StorageFullError), on_disk("write", Path("/dev/full")):
        os.write(fd, b"x")
    os.close(fd)


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    """A pipe, a device or a directory where a file is expected is refused at once; a link to a file is that file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null", "."):
        with pytest.raises(OSError, match="it is no regular file"):
            open_regular(tmp_path / name)
    with os.fdopen(open_regular(tmp_path / "link"), "rb") as file:
        assert b"x" == file.read()


def test_a_small_file_is_read_within_its_bound(tmp_path: Path) -> None:
    """A file of the expected size is read; a larger one, and a pipe, are refused."""
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    assert b"12345" == read_regular(tmp_path / "file", 5)
    for name, limit, words in (("file", 4, "larger than 4 bytes"), ("pipe", 4, "it is no regular file")):
        with pytest.raises(OSError, match=words):
            read_regular(tmp_path / name, limit)


@pytest.mark.parametrize("what", ["verify_files([path])", "list(JournalReader(path.parent, None).read() for _ in range(2))"])
def test_a_pipe_among_files_that_are_checked_keeps_nobody_waiting(tmp_path: Path, what: str) -> None:
    """`verify` of a pipe, and a journal with one in it, end at once with an error that names it."""
    path = tmp_path / ("0000000000000001.journal" if "Journal" in what else "000000000001.seg")
    os.mkfifo(path)
    code = "import sys; from pathlib import Path; from capd.recording.verify import verify_files\n"
    code += f"from capd.recording.journal import JournalReader; path = Path(sys.argv[1]); list({what})"
    done = subprocess.run([sys.executable, "-P", "-c", code, path], capture_output=True, text=True, check=False, timeout=20)
    assert "it is no regular file" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["segments/000000000001.seg", "index/capd.db", "index/capd.db-wal"])
def test_a_pipe_among_the_recorders_files_keeps_no_reader_waiting(tmp_path: Path, name: str) -> None:
    """Whoever reads what the recorder owns meets an error, not a pipe that never ends."""
    (tmp_path / "segments").mkdir()
    with Index.open(tmp_path / "index" / "capd.db"):
        pass
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    code = "import sys; from uuid import UUID; from pathlib import Path; from capd.recording.archive import Archive\n"
    code += "archive = Archive(Path(sys.argv[1])); archive.index.counts(); list(archive.records(UUID(int=1)))"
    done = subprocess.run([sys.executable, "-P", "-c", code, tmp_path], capture_output=True, text=True, check=False, timeout=20)
    assert "it is no regular file" in done.stderr.splitlines()[-1]
