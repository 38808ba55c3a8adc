"""What one daemon noted of losses, as the next one goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from capd.daemon import loss_log
from capd.daemon import losses as losing
from capd.daemon.loss_log import LossLog, Noted
from capd.daemon.losses import LossBook
from tests.daemon.test_drain import Kernel, clock


def fails(reason: str) -> None:
    """Be told that it cannot be written."""
    raise AssertionError(reason)


def begun(path: Path) -> LossLog:
    """Give the log of new probes."""
    log = LossLog(path, fails)
    log.begin()
    return log


def grown(book: LossBook) -> list[Any]:
    """Have the book noted; give what was new."""
    note = book.news()
    book.noted()
    return [] if note is None else cast("list[Any]", note["grown"])


def next_book(kernel: Kernel, path: Path) -> LossBook:
    """Give the book of the next daemon."""
    log = LossLog(path, fails)
    return LossBook(kernel, clock=clock, log=log, before=log.read())


def test_the_next_daemon_tells_only_what_is_new(tmp_path: Path) -> None:
    """What was noted is not told again, what was lost between the two is, and totals go on."""
    kernel = Kernel()
    book = LossBook(kernel, clock=clock, log=begun(tmp_path / "losses"))
    kernel.lose(1, 0, 100)
    kernel.lose(2, 1, 50)
    assert [[1, 0, 0, 6, 100, 2], [2, 1, 0, 6, 50, 2]] == grown(book)
    kernel.lose(1, 0, 7)  # and the daemon is killed before it is noted
    following = next_book(kernel, tmp_path / "losses")
    assert (150, 2) == (following.totals.bytes, following.totals.streams)
    kernel.lose(3, 0, 1)
    assert [[1, 0, 0, 6, 7, 2], [3, 0, 0, 6, 1, 2]] == grown(following)
    assert (158, 3) == (following.totals.bytes, following.totals.streams)
    assert [] == grown(next_book(kernel, tmp_path / "losses"))


def test_a_row_that_was_cut_off_is_told_again(tmp_path: Path) -> None:
    """Killed while it wrote a row, a daemon leaves all rows before it."""
    kernel = Kernel()
    book = LossBook(kernel, clock=clock, log=begun(tmp_path / "losses"))
    kernel.lose(1, 0, 100)
    grown(book)
    kernel.lose(2, 0, 50)
    grown(book)
    content = (tmp_path / "losses").read_bytes()
    (tmp_path / "losses").write_bytes(content[:-3])
    assert [[2, 0, 0, 6, 50, 2]] == grown(next_book(kernel, tmp_path / "losses"))


def test_streams_that_were_forgotten_count_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that the kernel has forgotten is none that the next daemon knows."""
    monkeypatch.setattr(losing, "FORGET_ABOVE", 0)
    kernel = Kernel()
    book = LossBook(kernel, clock=clock, log=begun(tmp_path / "losses"))
    kernel.lose(1, 0, 100)
    grown(book)
    book.refresh()
    kernel.lose(1, 0, 4)
    assert [[1, 0, 0, 6, 4, 2]] == grown(next_book(kernel, tmp_path / "losses"))


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often something is lost, the file has each stream a bounded number of times, and reads the same."""
    monkeypatch.setattr(loss_log, "FILE_BYTES_MAX", 2_000)
    kernel = Kernel()
    book = LossBook(kernel, clock=clock, log=begun(tmp_path / "losses"))
    for _time in range(500):
        kernel.lose(1, 0, 1)
        grown(book)
    assert (tmp_path / "losses").stat().st_size < 3_000
    noted = LossLog(tmp_path / "losses", fails).read()
    assert {(1, 0, 0, 6, 2): 500} == noted.amounts
    assert (500, 1) == (noted.bytes, noted.streams)


@pytest.mark.parametrize("content", [b"\xc1", b"\x01", b"\x92\x01\x02", b"\x94\x01\x02\x03\x04"])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that holds something else gives no counts."""
    (tmp_path / "losses").write_bytes(content)
    with pytest.raises(ValueError, match="something else"):
        LossLog(tmp_path / "losses", fails).read()


def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Then the next daemon must not go on."""
    told: list[str] = []
    LossLog(tmp_path / "missing" / "losses", told.append).add(Noted(), {})
    assert told
