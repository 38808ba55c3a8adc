"""The decision log on disk: whole, bounded, and never silent about what it could not write.

What lives here: files. What must not: decisions in themselves.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from capd.enforcer import decision_log
from capd.enforcer.decision_log import DecisionLog, read_entries


def everything(directory: Path) -> list[dict[str, object]]:
    """Read all files."""
    return [entry for path in sorted(directory.glob("*.log")) for entry in read_entries(path)]


def test_entries_are_there_after_a_flush(tmp_path: Path) -> None:
    """What was flushed is read by others at once, in order and numbered; what was not, is not there."""
    log = DecisionLog(tmp_path, "w0")
    log.append({"kind": "decision", "allowed": True})
    log.append({"kind": "close"})
    assert [] == everything(tmp_path)
    log.flush()
    assert [(1, "decision"), (2, "close")] == [(entry["sequence"], entry["kind"]) for entry in everything(tmp_path)]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_end_costs_the_last_entry(tmp_path: Path, cut: int) -> None:
    """A file that a crash left in the middle of an entry is read up to there; the next writer begins a new one."""
    log = DecisionLog(tmp_path, "w0")
    for number in range(3):
        log.append({"number": number})
    log.close()
    path = next(tmp_path.glob("*.log"))
    os.truncate(path, path.stat().st_size - cut)
    assert [0, 1, 2][: len(everything(tmp_path))] == [entry["number"] for entry in everything(tmp_path)]
    assert len(everything(tmp_path)) >= 1
    again = DecisionLog(tmp_path, "w0")
    again.append({"number": 9})
    again.flush()
    assert 9 == everything(tmp_path)[-1]["number"]


def test_damage_is_told(tmp_path: Path) -> None:
    """A changed byte in the middle is no end."""
    log = DecisionLog(tmp_path, "w0")
    for number in range(3):
        log.append({"number": number})
    log.close()
    path = next(tmp_path.glob("*.log"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        everything(tmp_path)


@pytest.mark.parametrize("short", [False, True])
def test_what_was_not_written_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    """A full disk, or a write that was cut short, raises; what comes after it goes into a new file and is read."""
    log = DecisionLog(tmp_path, "w0")
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if short:
            return write(descriptor, content[:-1])
        raise OSError(errno.ENOSPC, "no space")

    log.append({"number": 1})
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"space|room"):
        log.flush()
    monkeypatch.setattr(os, "write", write)
    log.append({"number": 2})
    log.flush()
    assert [(2, 2)] == [(entry["sequence"], entry["number"]) for entry in everything(tmp_path)]


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest closed files go, and the numbers of the entries say that they did."""
    monkeypatch.setattr(decision_log, "FILE_BYTES_MAX", 64)
    monkeypatch.setattr(decision_log, "KEPT_BYTES_MAX", 3 * 64)
    log = DecisionLog(tmp_path, "w0")
    for number in range(20):
        log.append({"number": number})
        log.flush()
    left = [entry["number"] for entry in everything(tmp_path)]
    assert 3 * 64 >= sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    assert 19 == left[-1]
    assert log.removed > 0
    assert list(range(int(str(left[0])), 20)) == left


def test_a_full_disk_pushes_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often nothing could be written, and however often a writer starts, what was written before stays."""
    log = DecisionLog(tmp_path, "w0")
    log.append({"number": 1})
    log.flush()
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", full)
    for _ in range(100):
        log.append({"number": 2})
        with pytest.raises(OSError, match="space"):
            log.flush()
    monkeypatch.setattr(os, "write", write)
    assert 1 == len(list(tmp_path.glob("*.log")))
    for _ in range(100):
        DecisionLog(tmp_path, "w0").close()
    assert 1 == everything(tmp_path)[0]["number"]


def test_writers_do_not_meet(tmp_path: Path) -> None:
    """Each worker has files of its own."""
    for name in ("w0", "w1"):
        log = DecisionLog(tmp_path, name)
        log.append({"writer": name})
        log.close()
    assert ["w0", "w1"] == [entry["writer"] for entry in everything(tmp_path)]
