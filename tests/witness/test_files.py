"""Reading the decision log on: positions, restarts of the writer, damage, and files that are done."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

from capd.daemon.witness import files
from capd.daemon.witness.files import DecisionFiles
from capd.enforcer.decision_log import DecisionLog, read_entries


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory for a log, with one for what is damaged beside it."""
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "log").mkdir()
    return tmp_path


def reader(place: Path, places: files.Places | None = None) -> DecisionFiles:
    """Give a reader."""
    return DecisionFiles(place / "log", place / "quarantine", places)


def write(place: Path, *numbers: int, log: DecisionLog | None = None) -> DecisionLog:
    """Write entries, by a writer that begins anew if none is given."""
    made = log or DecisionLog(place / "log", "w0")
    for number in numbers:
        made.append({"kind": "test", "number": number})
    made.flush()
    return made


def newest(place: Path) -> Path:
    """Give the file that is written."""
    return max((place / "log").iterdir())


def test_each_entry_is_read_once_over_restarts_of_both(place: Path) -> None:
    """A reader that is made anew from its places goes on where it was; a writer's next file follows its last one."""
    log = write(place, 1, 2)
    first = reader(place)
    keys = [key for key, _body in first.read(0)]
    assert (2, []) == (len(set(keys)), list(first.read(0)))
    write(place, 3, log=log)
    log.close()
    write(place, 4)
    second = reader(place, copy.deepcopy(first.places))
    more = [key for key, _body in second.read(0)]
    assert (2, set(), 0) == (len(more), set(keys) & set(more), second.places.counts.damages)
    assert ["w0-00000001.log"] == second.done()
    assert [body for _key, body in reader(place).read(0)] == [body for _key, body in reader(place).read(0)]


def test_what_is_done_is_removed_by_its_writer_and_nothing_else(place: Path) -> None:
    """The writer lets go of its own files that are read, never of the one that it writes or of another's."""
    write(place, 1).close()
    log = write(place, 2)
    (place / "log" / "w1-00000001.log").write_bytes(b"")
    log.let_go(["w0-00000001.log", "w0-00000002.log", "w1-00000001.log", "../x"])
    assert ["w0-00000002.log", "w1-00000001.log"] == sorted(path.name for path in (place / "log").iterdir())
    found = reader(place)
    list(found.read(0))
    assert {"w0-00000002.log", "w1-00000001.log"} == set(found.places.files)


def test_a_torn_tail_waits_for_its_writer(place: Path) -> None:
    """An entry that is half there is no damage while its file is the last one; once another follows, it is."""
    log = write(place, 1, 2)
    log.close()
    path = newest(place)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    found = reader(place)
    assert (1, 0) == (len(list(found.read(5))), found.places.counts.damages)
    path.write_bytes(whole)
    assert (1, 0) == (len(list(found.read(5))), found.places.counts.damages)
    path.write_bytes(whole + whole[8:-3])
    assert 1 == len(list(found.read(5)))
    write(place, 3)
    assert (1, 1, 5) == (len(list(found.read(5))), found.places.counts.damages, found.places.counts.damaged_ns)
    (kept,) = (place / "quarantine").iterdir()
    assert (path.read_bytes().endswith(kept.read_bytes()), ["w0-00000001.log"]) == (True, found.done())


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_damage_is_put_aside_and_counted_once(place: Path, at: int) -> None:
    """A byte that was changed costs what follows it in its file, and is told; files after it are read."""
    write(place, 1, 2, 3).close()
    path = newest(place)
    content = bytearray(path.read_bytes())
    content[at] ^= 0x80
    path.write_bytes(content)
    write(place, 4)
    found = reader(place)
    read = list(found.read(0))
    assert (1, 1) == (found.places.counts.damages, len(list((place / "quarantine").iterdir())))
    assert 1 <= len(read) < 4
    assert ([], 1) == (list(found.read(0)), found.places.counts.damages)


def test_hostile_files_stop_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes and strange names are passed over, and a large file is read in pieces."""
    os.mkfifo(place / "log" / "w1-00000001.log")
    (place / "log" / "w2-00000001.log").symlink_to("/dev/zero")
    for name in ("x.log", "w-1.txt", ".w0-1.log.new", "a/b"):
        if "/" not in name:
            (place / "log" / name).write_bytes(b"capddec1")
    write(place, *range(100))
    monkeypatch.setattr(files, "READ_BYTES_MAX", 512)
    found, read, looks = reader(place), 0, 0
    while found.behind or not looks:
        read, looks = read + len(list(found.read(0))), looks + 1
    assert (100, True, 0) == (read, looks > 5, found.places.counts.damages)
    assert 100 == len(list(read_entries(place / "log" / "w0-00000001.log")))
    assert {"w0-00000001.log"} == set(found.places.files)


def test_files_that_are_gone_unread_are_told(place: Path) -> None:
    """A number that is missing among a writer's files is counted, by the writer; files that were read may go."""
    for number in range(1, 5):
        write(place, number).close()
    (place / "log" / "w0-00000002.log").unlink()
    (place / "log" / "w0-00000003.log").unlink()
    found = reader(place)
    lost = [(len(body) > 0, found.lost()) for _key, body in found.read(5)]
    assert [(True, []), (True, ["w0"])] == lost
    assert (2, 5) == (found.places.counts.missing_files, found.places.counts.missing_ns)
    (place / "log" / "w0-00000001.log").unlink()
    write(place, 6)
    again = reader(place, copy.deepcopy(found.places))
    assert (1, [], 2) == (len(list(again.read(6))), again.lost(), again.places.counts.missing_files)


def test_a_log_that_begins_anew_is_told(place: Path) -> None:
    """Files whose numbers go back, and one that is cut, are losses, and nothing is read twice."""
    log = write(place, 1, 2, 3)
    found = reader(place)
    assert 3 == len(list(found.read(0)))
    os.truncate(newest(place), 40)
    assert ([], ["w0"], 1) == (list(found.read(0)), found.lost(), found.places.counts.damages)
    log.close()
    write(place, 4).close()
    assert 1 == len(list(found.read(0)))
    for path in (place / "log").iterdir():
        path.unlink()
    list(found.read(0))
    write(place, 5)
    assert (1, ["w0"], 1) == (len(list(found.read(0))), found.lost(), found.places.counts.missing_files)


def test_many_files_are_read_by_and_by(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer with many files keeps no other one waiting, and loses none of its own: the next come when those are gone."""
    monkeypatch.setattr(files, "FILES_MAX", 2)
    monkeypatch.setattr(files, "DONE_MAX", 1)
    for number in range(1, 6):
        write(place, number).close()
    other = DecisionLog(place / "log", "w1")
    write(place, 9, log=other)
    found, read, looks = reader(place), 0, 0
    while read < 6:
        read, looks = read + len(list(found.read(0))), looks + 1
        for name in found.done():
            (place / "log" / name).unlink()
        assert looks < 20
    assert (0, []) == (found.places.counts.missing_files, found.lost())
