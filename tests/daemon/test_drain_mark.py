"""What a daemon that was killed while it drained leaves, and what the next one makes of it: real files, a ring in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import drain as draining
from capd.daemon import drain_mark
from capd.daemon.configuration import MIB, JournalSection
from capd.daemon.drain import Drain
from capd.daemon.drain_mark import DrainMark
from capd.daemon.losses import LossBook
from capd.daemon.spool import Spool
from capd.recording.journal import Block, JournalReader, Source
from capd.recording.journal.block import file_path
from tests.daemon.test_drain import Kernel, MemoryRing, clock

RECORDS = [os.urandom(300_000) for _ in range(8)]
DEATHS = {"behind the release": (0, True), "before it": (0, False)} | {
    f"with {cut} bytes to write": (cut, False) for cut in (1_000, 300_030, 300_072)
}
"""How many bytes of the last block were not written yet (payload, header, all); whether the ring has its room back."""


class KilledError(Exception):
    """Stands for the end of the process."""


class FollowedRing(MemoryRing):
    """A ring that the next daemon may have to move on, and at whose release this one may be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.dies_at = -1
        self.dies_behind = False

    def release(self) -> None:
        """Give room back, or die before or behind it."""
        dies, self.dies_at = self.dies_at == 0, self.dies_at - 1
        if not dies or self.dies_behind:
            super().release()
        if dies:
            raise KilledError

    def skip_to(self, position: int) -> None:
        """Forget what is before."""
        del self.pending[: position - self.position]
        self.position = position


def spool(directory: Path, bytes_max: int) -> Spool:
    """Open the journal."""
    section = JournalSection(bytes_max=bytes_max, compression="none")
    return Spool(directory / "journal", directory / "position", section, group=None, disk=lambda: None)


def drain(ring: MemoryRing, journal: Spool, mark: DrainMark) -> None:
    """Drain all there is, with a control ring that stays empty."""
    losses = LossBook(Kernel(), clock=clock)
    made = Drain(MemoryRing(), ring, journal, clock=clock, losses=losses, mark=mark)
    while made.turn().bytes:
        pass


def recorded(directory: Path) -> tuple[bytes, list[Any]]:
    """Give the payload of the journal, and the damages that a reader is told."""
    found = list(iter(JournalReader(directory / "journal", None).read, None))
    data = b"".join(bytes(item.payload) for item in found if isinstance(item, Block))
    return data, [item for item in found if not isinstance(item, Block)]


@pytest.mark.parametrize("bytes_max", [256 * MIB, 4 * MIB], ids=["one file", "many files"])
@pytest.mark.parametrize("block", [0, 1, 7])
@pytest.mark.parametrize("death", DEATHS)
def test_nothing_is_told_twice_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str, block: int, bytes_max: int
) -> None:
    """Killed at any block, however much of it was written, the next daemon's journal has each record once and no damage."""
    monkeypatch.setattr(draining, "BLOCK_BYTES", 1)  # a block for each record
    ring = FollowedRing()
    ring.put(*RECORDS)
    expected = bytes(ring.pending)
    cut, released = DEATHS[death]
    ring.dies_at, ring.dies_behind = block, released
    journal = spool(tmp_path, bytes_max)
    with pytest.raises(KilledError):
        drain(ring, journal, DrainMark(tmp_path / "mark"))
    path = file_path(tmp_path / "journal", journal.position.file)
    os.truncate(path, path.stat().st_size - cut)
    journal.close()
    left = drain_mark.left(tmp_path / "mark")
    assert left is not None
    for _again in range(2):  # killed while it does so, it does so again
        drain_mark.settle(left, tmp_path / "journal", {Source.DATA: ring})
    drain(ring, spool(tmp_path, bytes_max), DrainMark(tmp_path / "mark"))
    assert (expected, []) == recorded(tmp_path)


def test_a_mark_that_is_not_whole_is_none(tmp_path: Path) -> None:
    """Without its file, or with a part of it, nobody knows what was on its way."""
    assert drain_mark.left(tmp_path / "mark") is None
    (tmp_path / "mark").write_bytes(bytes(12))
    assert drain_mark.left(tmp_path / "mark") is None
