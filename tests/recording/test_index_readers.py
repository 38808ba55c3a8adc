"""The index as other users and other processes read it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from uuid import UUID

import pytest

from capd.recording.errors import NotReadableError
from capd.recording.index import Index
from capd.recording.rows import MessageRow
from tests.requirements import require_root

SESSION = UUID(int=1)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Give an empty index."""
    with Index.open(tmp_path / "index" / "capd.db") as opened:
        yield opened


def needle(ordinal: int) -> MessageRow:
    """Give a message that is searched for."""
    return MessageRow(
        session=SESSION,
        ordinal=ordinal,
        time_ns=ordinal,
        direction=None,
        protocol="http1",
        type="request",
        exchange=None,
        summary="needle",
        text="",
    )


def open_to_all(path: Path) -> None:
    """Let every user read the files of an index, and write none."""
    for directory in path.parents:
        if directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    for file in path.parent.iterdir():
        file.chmod(0o644)


READ_AS_NOBODY = """
import sys
from pathlib import Path
from capd.recording.index import Index
with Index.open(Path(sys.argv[1]), readonly=True) as index:
    for line in sys.stdin:
        print(len(index.search("needle")), flush=True)
"""


class Nobody:
    """A process of another user that has the index open for reading."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", READ_AS_NOBODY, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=65534,
            group=65534,
            extra_groups=[],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def needles(self) -> int:
        """Give how many needles it finds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline() or -1)


def test_another_user_reads_while_the_recorder_writes(index: Index) -> None:
    """A user who may only read the files sees every commit of a living writer, and the index of one that has closed."""
    require_root()
    index.commit()
    open_to_all(index.path)
    with Nobody(index.path) as reader:
        seen = []
        for ordinal in range(20):
            index.upsert_messages([needle(ordinal)])
            index.commit()
            seen.append(reader.needles())
        assert list(range(1, 21)) == seen
    index.close()
    assert ["capd.db"] == [path.name for path in index.path.parent.iterdir()]
    with Nobody(index.path) as reader:
        assert 20 == reader.needles()


WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_index_readers import needle
from capd.recording.index import Index
index = Index.open(Path(sys.argv[1]))
for ordinal in range(7):
    index.upsert_messages([needle(ordinal)])
    index.commit()
index.upsert_messages([needle(7)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_another_user_reads_what_a_killed_recorder_committed(tmp_path: Path) -> None:
    """After kill -9 everything that was committed is found, also by a user who may not repair anything, and nothing else."""
    require_root()
    path = tmp_path / "capd.db"
    code = [sys.executable, "-c", WRITE_AND_DIE, str(path), str(Path(__file__).parent)]
    died = subprocess.run(code, check=False, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": _python_path()})
    assert -signal.SIGKILL == died.returncode
    assert (tmp_path / "capd.db-wal").stat().st_size
    open_to_all(path)
    with Nobody(path) as reader:
        assert 7 == reader.needles()
    (tmp_path / "capd.db-shm").unlink()  # as after a boot from a copy of the files
    with Index.open(path) as again:
        assert 7 == len(again.search("needle"))


def _python_path() -> str:
    return os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])


def test_a_user_who_may_not_read_is_told(index: Index) -> None:
    """Without permission the error says so instead of calling the index damaged."""
    require_root()
    index.commit()
    code = READ_AS_NOBODY.replace("import sys\n", "import sys, os\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n", 1)
    done = subprocess.run([sys.executable, "-P", "-c", code, str(index.path)], capture_output=True, text=True, check=False)
    assert f"{NotReadableError.__name__}: cannot" in done.stderr
