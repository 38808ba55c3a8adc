"""What was compiled is used again at the next start, and only if it is exactly what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.probes import compiled, loader
from capd.probes.compiled import Compiled, DamagedError, MapShape
from tests.requirements import require_probes

NAME = "name"
PROGRAM = compiled.INSTRUCTION.pack(compiled.LOAD_MAP, compiled.PSEUDO_MAP_FD << 4 | 1, 0, 9) + bytes(8)
CONSTANT = compiled.INSTRUCTION.pack(compiled.LOAD_MAP, 1, 0, 9) + bytes(8)


def example() -> Compiled:
    """Give a program that loads one map and one number, both written as 9."""
    return compiled.unlinked({"on_it": PROGRAM + CONSTANT}, {"ring": 4, "table": 9}, {"table": MapShape(1, 4, 8, 16, 0)})


def test_only_maps_are_replaced() -> None:
    """A map's descriptor is put in anew; a constant that looks like one stays."""
    linked = example().linked("on_it", {"ring": 4, "table": 77})
    assert PROGRAM.replace(b"\x09", b"\x4d") + CONSTANT == linked


def test_a_map_that_nobody_gave_is_refused() -> None:
    """An instruction that names no known map never reaches the kernel with a number that may be another's."""
    with pytest.raises(DamagedError):
        compiled.unlinked({"on_it": PROGRAM}, {"ring": 4}, {})


def test_a_file_gives_what_was_kept(tmp_path: Path) -> None:
    """The same maps and instructions; a file under another name is not it."""
    folder = tmp_path / "probes"
    compiled.keep(folder, NAME, example(), files_max=2)
    assert example() == compiled.kept(folder, NAME)
    assert compiled.kept(folder, "other") is None
    assert (0o700, 0o600) == (folder.stat().st_mode & 0o777, (folder / "name.probes").stat().st_mode & 0o777)


@given(st.data())
def test_no_changed_byte_is_accepted(data: st.DataObject) -> None:
    """A flipped bit anywhere, or an end that is missing, is damage."""
    content = bytearray(compiled.encode(example()))
    at = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DamagedError):
        compiled.decode(bytes(content[:at]))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    if at != compiled.DIGEST_BYTES:  # the line break
        with pytest.raises(DamagedError):
            compiled.decode(bytes(content))


def test_a_file_that_others_may_have_written_is_refused(tmp_path: Path) -> None:
    """A file or directory that a group or everybody may write, a link, a pipe: none of it is used, and none of it holds up."""
    compiled.keep(tmp_path, NAME, example(), files_max=2)
    tmp_path.chmod(0o700)
    file = tmp_path / "name.probes"
    for place, mode in ((file, 0o622), (file, 0o660), (tmp_path, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert compiled.kept(tmp_path, NAME) is None
        place.chmod(before)
    assert compiled.kept(tmp_path, NAME) is not None
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert compiled.kept(tmp_path, NAME) is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert compiled.kept(tmp_path, NAME) is None


def test_the_newest_files_stay(tmp_path: Path) -> None:
    """A kernel or a version that is gone leaves nothing behind for ever."""
    for age, name in enumerate(("third", "second", "first")):
        compiled.keep(tmp_path, name, example(), files_max=2)
        os.utime(tmp_path / f"{name}.probes", (1_000 + age, 1_000 + age))
    compiled.keep(tmp_path, NAME, example(), files_max=2)
    assert {"name.probes", "first.probes"} == {path.name for path in tmp_path.iterdir()}


def test_whatever_goes_into_the_compiler_changes_the_name() -> None:
    """Neither another flag nor another split of the same text gives the same name."""
    names = [compiled.key(parts) for parts in (["a", "b"], ["ab"], ["a", "c"], ["a"], ["a", "b", ""])]
    assert len(names) == len(set(names))


@pytest.mark.kernel
def test_the_second_start_takes_no_compiler(tmp_path: Path) -> None:
    """What was kept is loaded; what is damaged, or what the kernel refuses, is compiled again, and is right afterwards."""
    require_probes()
    folder = tmp_path / "probes"

    def start() -> bool:
        loaded = loader.load("modern", 1 << 16, 1 << 20, folder)
        for descriptor in (*loaded.programs.values(), *loaded.maps.values(), loaded.control, loaded.data):
            os.close(descriptor)
        return loaded.cached

    assert not start()
    (file,) = folder.iterdir()
    assert start()
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    assert not start()
    assert good == file.read_bytes()
    kept = compiled.decode(good)
    refused = {**kept.programs, "on_exit": kept.programs["on_exit"][:-8]}
    file.write_bytes(compiled.encode(Compiled(refused, kept.names, kept.maps)))
    assert not start()
    assert start()
