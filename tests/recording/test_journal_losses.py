"""What a power cut takes of a journal without leaving anything torn is told; a start of the daemon is no loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capd.recording.journal import Block, JournalReader, JournalWriter
from capd.recording.journal.block import file_path
from tests.recording.test_journal import append, payloads, read_all


def test_a_start_behind_another_is_no_damage(tmp_path: Path) -> None:
    """Each start of a writer has numbers of its own, far behind those before: no file is missing between them."""
    for number in range(3):
        with JournalWriter(tmp_path, number_min=0) as writer:
            append(writer, b"start %d" % number)
    assert [b"start 0", b"start 1", b"start 2"] == payloads(read_all(JournalReader(tmp_path, None)))


@pytest.mark.parametrize("begin", [0, 1, 2])
def test_a_file_that_lost_its_last_blocks_whole_is_damage(tmp_path: Path, begin: int) -> None:
    """A power cut that takes whole blocks leaves no torn one; numbers of blocks, and a reader's own memory, tell of it."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=250) as writer:
        for number in range(4):
            append(writer, b"block %d" % number * 8)
    blocks = [block for block in read_all(JournalReader(tmp_path, None)) if isinstance(block, Block)]
    assert [0, 0, 1, 1] == [block.position.file for block in blocks]
    after = blocks[begin - 1] if begin else None
    os.truncate(file_path(tmp_path, 0), blocks[1].position.offset if begin < 2 else 0)
    reader = JournalReader(tmp_path, after.next if after else None, after=after.sequence if after else None)
    assert [b"damage", *(bytes(block.payload) for block in blocks[2:])] == payloads(read_all(reader))[1 - bool(begin) :]


def test_behind_damage_more_damage_is_told(tmp_path: Path) -> None:
    """A file that was emptied behind one that is known to be torn is told by the number of the first block behind it."""
    with JournalWriter(tmp_path, level=None, file_bytes_max=250) as writer:
        for number in range(6):
            append(writer, b"block %d" % number * 8)
    torn = file_path(tmp_path, 0).stat().st_size - 1
    os.truncate(file_path(tmp_path, 0), torn)
    assert [b"damage"] == payloads(read_all(JournalReader(tmp_path, None)))[1:2]
    os.truncate(file_path(tmp_path, 1), 0)
    found = [payload[:7] for payload in payloads(read_all(JournalReader(tmp_path, None)))]
    assert [b"block 0", b"damage", b"damage", b"block 4", b"block 5"] == found
