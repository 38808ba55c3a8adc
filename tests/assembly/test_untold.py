"""TLS records that moved beside TLS calls: what they are needed for is known; with more of them a session lacks something."""

from __future__ import annotations

import pytest

from capd.daemon.assembly.wire import CARRIED_BYTES_MAX, UNTOLD
from capd.probes.layouts import Tie
from tests.assembly.test_layers import AT, COMPLETE, SENT, told
from tests.assembly.test_tls import REQUESTED
from tests.assembly.world import REQUEST, RESPONSE, gaps, moved, verdicts

FULL = 16_000
PART = 1_000


def record(size: int) -> bytes:
    """Give a TLS record of so many bytes, which looks like data."""
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


def carried(direction: int, at: int, sizes: list[int]) -> list[bytes]:
    """Give what a program moves on its socket itself, one record to a call."""
    events = []
    for number, size in enumerate(sizes):
        events.append(moved(5_000 + number, 9, direction, at, record(size)))
        at += len(record(size))
    return events


@pytest.mark.parametrize("direction", [REQUEST, RESPONSE])
@pytest.mark.parametrize(
    ("sizes", "complete"), [([FULL], True), ([PART] * 15, True), ([FULL] * 2, False), ([PART] * 17, False)]
)
def test_a_library_that_moves_its_own_records_leaves_few_to_its_program(
    sizes: list[int], complete: bool, direction: int
) -> None:
    """An agent that takes over the keys, and goes on by itself, hides no more than a handshake takes."""
    position = AT + 40 if direction == REQUEST else 0
    records = told([*SENT, *carried(direction, position, sizes)])
    assert complete is (COMPLETE == verdicts(records))
    expected = [] if complete else [(direction, len(REQUESTED) if direction == REQUEST else 0, None, UNTOLD)]
    assert expected == gaps(records)


@pytest.mark.parametrize(("told_bytes", "complete"), [(12 * FULL, True), (11 * FULL, True), (10 * FULL, False), (PART, False)])
def test_records_of_a_memory_bio_are_explained_by_what_was_said(told_bytes: int, complete: bool) -> None:
    """Where a library writes into memory its program moves the records: as much is known of as TLS calls told."""
    plain = moved(3_000, 77, REQUEST, 0, bytes(told_bytes), tls=True, socket=9, tie=Tie.CIPHERTEXT)
    records = told([plain, *carried(REQUEST, AT, [FULL + 30] * 12)])
    assert complete is not any(reason == UNTOLD for *_, reason in gaps(records))
    assert 12 * FULL - 10 * FULL > CARRIED_BYTES_MAX


def test_small_records_are_explained_too() -> None:
    """Each record has more around it than was said, in the way of the oldest ciphers."""
    plain = [moved(3_000 + at, 77, REQUEST, at, b"x", tls=True, socket=9, tie=Tie.CIPHERTEXT) for at in range(1_000)]
    records = told([*plain, *carried(REQUEST, AT, [90] * 1_000)])
    assert [] == gaps(records)
