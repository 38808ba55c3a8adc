"""Cycles: blocks are put together as the daemon drained them, and none is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon.recorder_cycles import Cycles
from capd.recording.journal import Block, JournalDamage, JournalReader, JournalWriter, Source

LETTERS = {"n": Source.NOTE, "c": Source.CONTROL, "d": Source.DATA}


def write(directory: Path, letters: str) -> None:
    """Append a block for each letter, a new file for each "|"."""
    for part in letters.split("|"):
        with JournalWriter(directory) as writer:
            for number, letter in enumerate(part):
                writer.append(LETTERS[letter], letter.encode(), count=1, boottime_ns=number, realtime_ns=number)


def word(cycle: list[Block]) -> str:
    """Give the letters of a cycle."""
    return b"".join(block.payload for block in cycle).decode()


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("cdcd", ["cd", "cd"]),
        ("ncdncd", ["ncd", "ncd"]),
        ("cddc", ["cdd", "c"]),
        ("ccd", ["c", "cd"]),
        ("cn", ["c", "n"]),
        ("nncd|cd", ["nncd", "cd"]),
        ("d|d", ["dd"]),
        ("", []),
    ],
)
def test_a_cycle_is_a_turn_of_the_daemon(tmp_path: Path, letters: str, expected: list[str]) -> None:
    """Notes, control and data of one turn are one cycle; the last is held back until it is asked for."""
    write(tmp_path, letters)
    cycles = Cycles(JournalReader(tmp_path, None))
    found = []
    while (cycle := cycles.next()) is not None:
        assert not isinstance(cycle, JournalDamage)
        found.append(word(cycle))
    rest = cycles.rest()
    assert expected == found + ([word(rest)] if rest else [])
    assert not cycles.waiting


@given(letters=st.text("ncd", max_size=12), cuts=st.sets(st.integers(0, 11)))
def test_cuts_move_no_block(tmp_path_factory: pytest.TempPathFactory, letters: str, cuts: set[int]) -> None:
    """Wherever cycles have to end, together they are the journal, and each cut is an end."""
    directory = tmp_path_factory.mktemp("journal")
    write(directory, letters)
    reader = JournalReader(directory, None)
    blocks = []
    while (block := reader.read()) is not None:
        assert isinstance(block, Block)
        blocks.append(block)
    cycles = Cycles(JournalReader(directory, None))
    cycles.cut = frozenset(block.next for number, block in enumerate(blocks) if number in cuts)
    found: list[list[Block]] = []
    while (cycle := cycles.next() or cycles.rest()) and not isinstance(cycle, JournalDamage):
        found.append(cycle)
    assert letters == "".join(word(cycle) for cycle in found)
    assert cycles.cut <= {cycle[-1].next for cycle in found}


@pytest.mark.parametrize(
    ("taken", "following", "parted"),
    [
        ("c", "d", True),
        ("cd", "d", True),
        ("n", "c", True),
        ("d", "d", True),
        ("cd", "cd", False),
        ("c", "c", False),
        ("cd", "n", False),
    ],
)
def test_a_turn_that_is_given_in_parts_is_told(tmp_path: Path, taken: str, following: str, parted: bool) -> None:
    """What was asked for before its turn was there has an end that must be remembered, if more of the turn comes."""
    write(tmp_path, taken)
    cycles = Cycles(JournalReader(tmp_path, None))
    while cycles.next() is not None:
        assert cycles.parted is None
    end = cycles.rest()[-1].next
    write(tmp_path, following)
    cycle = cycles.next() or cycles.rest()
    assert not isinstance(cycle, JournalDamage)
    assert following == word(cycle)
    assert cycles.parted == (end if parted else None)
    assert not cycles.next()
    assert cycles.parted == (end if parted else None)


def test_where_reading_begins_may_be_within_a_turn(tmp_path: Path) -> None:
    """Nobody knows whether what was read last, before a start, was a whole turn; so the first cycle tells where it begins."""
    write(tmp_path, "cdcd")
    before = Cycles(JournalReader(tmp_path, None))
    first = before.next()
    assert isinstance(first, list)
    cycles = Cycles(JournalReader(tmp_path, first[-1].next))
    assert cycles.next() is None
    assert "cd" == word(cycles.rest())
    assert first[-1].next == cycles.parted


def test_damage_comes_between_the_cycles_around_it(tmp_path: Path) -> None:
    """What was drained before the damage is given first, and reading goes on behind it."""
    write(tmp_path, "cd")
    first = next(iter(tmp_path.iterdir()))
    first.write_bytes(first.read_bytes() + b"torn")
    write(tmp_path, "c")
    cycles = Cycles(JournalReader(tmp_path, None))
    before, damage = cycles.next(), cycles.next()
    assert isinstance(before, list)
    assert "cd" == word(before)
    assert isinstance(damage, JournalDamage)
    assert "c" == word(cycles.next() or cycles.rest())  # type: ignore[arg-type]
