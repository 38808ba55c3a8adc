"""Numbers and positions of the journal: what a power cut and a flipped bit make of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capd.recording.journal import Block, JournalDamage, JournalReader, JournalWriter, Position, Source


def test_numbers_are_not_used_again_after_a_power_cut(tmp_path: Path) -> None:
    """When files vanish whose names were never synced, the next writer's number is higher than theirs, and a reader waits."""
    with JournalWriter(tmp_path, number_min=0, file_bytes_max=1) as first:
        for _ in range(3):
            first.append(Source.DATA, b"x", count=1, boottime_ns=1, realtime_ns=1)
        reached = first.position
    for path in sorted(tmp_path.glob("*.journal"))[1:]:
        path.unlink()
    with JournalReader(tmp_path, reached) as reader:
        assert reader.read() is None
        assert reached == reader.position
        with JournalWriter(tmp_path, number_min=0) as second:
            assert second.position.file > reached.file
            second.append(Source.DATA, b"new", count=1, boottime_ns=1, realtime_ns=1)
            found = [reader.read(), reader.read()]
        assert isinstance(found[0], JournalDamage)
        assert isinstance(found[1], Block)
        assert b"new" == bytes(found[1].payload)


def test_what_earlier_writers_wrote_is_synced_before_a_new_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut takes blocks of the newest start only: where an earlier one's last blocks are missing, nothing tells it."""
    with JournalWriter(tmp_path, number_min=0, file_bytes_max=1) as first:
        for _ in range(3):
            first.append(Source.DATA, b"x", count=1, boottime_ns=1, realtime_ns=1)
    earlier = {path.stat().st_ino for path in [tmp_path, *tmp_path.glob("*.journal")]}
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def watched(fd: int) -> None:
        sync(fd)
        synced.append((os.fstat(fd).st_ino, {path.stat().st_ino for path in tmp_path.glob("*.journal")} <= earlier))

    monkeypatch.setattr(os, "fsync", watched)
    JournalWriter(tmp_path, number_min=0).close()
    assert earlier == {inode for inode, before in synced if before} & earlier


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"9" * 30, b"\xff"])
def test_a_damaged_reservation_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in `next`, the writer goes on after the files that are there."""
    JournalWriter(tmp_path).close()
    (tmp_path / "next").write_bytes(content)
    with JournalWriter(tmp_path, number_min=0) as writer:
        assert 1 == writer.position.file


def test_a_position_file_with_a_wrong_number_is_none() -> None:
    """No single changed bit makes another position of it; one of an earlier capd, without a checksum, is read."""
    data = Position(300, 70_000).to_bytes()
    assert Position(300, 70_000) == Position.from_bytes(data)
    assert Position(3, 4) == Position.from_bytes(b"\x92\x03\x04")
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):  # msgpack has words of its own
            Position.from_bytes(bytes(wrong))
