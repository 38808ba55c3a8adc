"""Files with probes: who may have how many, and what a file may cost that is looked through."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capd.probes import budget, elf, sites
from capd.probes.attachments import NotWatchedError
from capd.probes.budget import ATTACHMENTS_MAX, PER_OWNER_MAX, PER_RUN_MAX, Claim
from capd.probes.capture import Capture
from tests.probes.watching import PYTHON
from tests.requirements import require

LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
GIB = 1 << 30


def greedy(claims: list[Claim | None], owner: str, runs: int) -> int:
    """Let all runs of an owner take what they get, one after the other; give how much that is."""
    taken = 0
    for run in range(runs):
        claim = Claim(hash((owner, run)), owner)
        while budget.refusal(claims, claim) is None:
            claims.append(claim)
            taken += 1
    return taken


def test_no_owner_can_take_what_others_need() -> None:
    """However many runs take whatever they get, a tenth owner still gets a file, and a second run of an owner too."""
    claims: list[Claim | None] = [None] * 5
    shares = [greedy(claims, f"user {number}", runs=20) for number in range(10)]
    assert [PER_OWNER_MAX] * 2 == shares[:2]
    assert min(shares) > 0
    assert len(claims) <= ATTACHMENTS_MAX
    claims = []
    assert PER_RUN_MAX == greedy(claims, "user", runs=1)
    assert greedy(claims, "user", runs=2) > 0
    assert "of this run have probes already" in str(budget.refusal([Claim(1, "a")] * PER_RUN_MAX, Claim(1, "a")))
    assert "files of a have probes already" in str(budget.refusal([Claim(1, "a")] * PER_OWNER_MAX, Claim(2, "a")))


def test_all_files_together_have_a_limit() -> None:
    """Where the limit is reached nothing is attached, not even what is installed."""
    full: list[Claim | None] = [None] * ATTACHMENTS_MAX
    for wanted in (None, Claim(1, "a")):
        assert f"{ATTACHMENTS_MAX} files have probes already" == budget.refusal(full, wanted)
    assert budget.refusal(full[1:], None) is None


@contextmanager
def mapping(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that has a library mapped."""
    script = f"import ctypes; ctypes.CDLL('{path}'); print('x', flush=True); input()"
    with subprocess.Popen([PYTHON, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def mapped_as(path: Path) -> tuple[int, int]:
    """Give device and inode of a file as the kernel's events have them."""
    status = path.stat()
    return os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino


def test_a_run_over_its_share_is_refused_until_room_is_made(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's third library is refused when two are its share, and watched when a run that is over gives up its own."""
    require(LIBSSL.exists(), f"needs {LIBSSL}")
    monkeypatch.setattr(budget, "PER_RUN_MAX", 2)
    monkeypatch.setattr(budget, "PER_OWNER_MAX", 3)
    monkeypatch.setattr("capd.probes.capture.RELEASE_SECONDS", 0.0)
    copies = [tmp_path / f"{number}.so" for number in range(4)]
    for copy in copies:
        shutil.copy(LIBSSL, copy)

    def look(copy: Path, run: int) -> bool:
        with mapping(copy) as process:
            capture.select_process(process.pid, run)
            found = capture.on_file_mapped(process.pid, *mapped_as(copy), Claim(run, "user ann"))
            capture.release_process(process.pid, run)
            return found is not None and found.claim == Claim(run, "user ann")

    with mapping(copies[0]) as first, mapping(copies[1]) as second:
        for process, copy in ((first, copies[0]), (second, copies[1])):
            capture.select_process(process.pid, 901)
            assert capture.on_file_mapped(process.pid, *mapped_as(copy), Claim(901, "user ann"))
        for _round in range(2):
            with pytest.raises(NotWatchedError, match="2 files of this run have probes already"):
                look(copies[2], 901)
        assert look(copies[2], 902)
        capture.release_process(second.pid, 901)
        capture.release_process(first.pid, 901)
        # The first is in use by another run, the second by none that is recorded.
        capture.select_process(first.pid, 903)
        assert look(copies[3], 903)
        watched = {attachment.path.rpartition("/")[2] for attachment in capture.attachments}
        assert {"0.so", "3.so"} <= watched
        assert "1.so" not in watched
        capture.release_process(first.pid, 903)


def sparse(path: Path, symbols: int, strings: int) -> None:
    """Make an ELF file that is nearly all hole: a symbol table and a string table of any size."""
    tables = 3
    at = 64
    strings_at = GIB
    symbols_at = strings_at + strings
    sections = [
        struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", 0, elf.SHT_DYNSYM, 0, 0, symbols_at, symbols * 24, 2, 0, 8, 24),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, strings_at, strings, 0, 0, 1, 0),
    ]
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, at, 0, 64, 56, 0, 64, tables, 0)
    with path.open("wb") as file:
        file.write(head + b"".join(sections))
        file.seek(strings_at + strings - len(b"SSL_read\0") - 1)
        file.write(b"SSL_read\0")
        file.truncate(symbols_at + symbols * 24)


@pytest.mark.usefixtures("few_objects")
def test_holes_cost_nothing(tmp_path: Path) -> None:
    """A file with a string table of 256 MiB and two million symbols that are all holes is looked through at once."""
    sparse(tmp_path / "hole.so", 0, elf.STRINGS_BYTES_MAX)
    began = time.process_time()
    assert [] == sites.plan(elf.load(tmp_path / "hole.so"))
    assert time.process_time() - began < 0.1


def test_a_file_has_only_so_much_time(tmp_path: Path) -> None:
    """When its time is up, a file is too large, wherever looking was by then."""
    sparse(tmp_path / "large.so", elf.SYMBOLS_MAX, 4096)
    ticks = iter(range(10**9))
    content = elf.FileContent(os.open(tmp_path / "large.so", os.O_RDONLY), seconds=20, clock=lambda: float(next(ticks)))
    with pytest.raises(elf.TooLargeElfError, match="cannot be looked through in 3 s"):
        sites.plan(elf.Elf(content))


def test_what_took_too_long_once_is_not_looked_at_again(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large is refused at once the next time, until it changes."""
    path = tmp_path / "large.so"
    sparse(path, 10, 4096)
    looks = []

    def too_large(place: Path) -> elf.Elf:
        looks.append(place)
        raise elf.TooLargeElfError("it cannot be looked through in 3 s")

    monkeypatch.setattr("capd.probes.attachments.elf.load", too_large)
    for _round in range(3):
        with pytest.raises(NotWatchedError):
            capture._attachments.attach(path, Claim(1, "a"))
    assert [path] == looks
    path.write_bytes(b"another")
    with pytest.raises(NotWatchedError):
        capture._attachments.attach(path, Claim(1, "a"))
    assert [path, path] == looks
