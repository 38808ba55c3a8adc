"""The files of the configuration: which are read, which wins, and on which line each value is."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon import configuration, configuration_files, locations, toml_lines
from capd.daemon.configuration_reference import toml
from capd.daemon.errors import ConfigurationError
from tests.requirements import require_root

EVERYTHING = '''# a comment with [brackets] = "and more"
title = "TOML # no comment"
site."google.com".x = true
'quoted key' = 1

[owner]
born = 1979-05-27 07:32:00
text = """
[not a table]
a = 1 \\" ""
"""
literal = \'\'\'
b = 2\'\'\'
after.this = [ 1, # one ]
  [ "a,]", 'b' ],
  { c = 3, d.e = [4] },
]

[[retention]]
name = "x"
[retention.deep]
k = 1
[[retention]]
name = "y"
[[retention.inner]]
z = {}
[a.b.c]
d = 2020-01-01
'''
LINES = {
    ("title",): 2,
    ("site", "google.com", "x"): 3,
    ("quoted key",): 4,
    ("owner",): 6,
    ("owner", "born"): 7,
    ("owner", "text"): 8,
    ("owner", "literal"): 12,
    ("owner", "after", "this"): 14,
    ("owner", "after", "this", 0): 14,
    ("owner", "after", "this", 1, 1): 15,
    ("owner", "after", "this", 2, "d", "e", 0): 16,
    ("retention",): 19,
    ("retention", 0, "name"): 20,
    ("retention", 0, "deep", "k"): 22,
    ("retention", 1): 23,
    ("retention", 1, "inner", 0, "z"): 26,
    ("a", "b", "c", "d"): 28,
}


def paths(value: object, at: toml_lines.Path = ()) -> Iterator[toml_lines.Path]:
    """Give every table, key and element that tomllib found."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in inner:
        yield (*at, name)
        yield from paths(below, (*at, name))


def test_lines_are_told() -> None:
    """Every form in which TOML can say something is found on its line."""
    found = toml_lines.lines_of(EVERYTHING)
    assert LINES == {path: found.get(path) for path in LINES}
    assert set(paths(tomllib.loads(EVERYTHING))) <= set(found)


VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-. \"'é", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc-_.[]\"' ", min_size=1, max_size=5), VALUES, max_size=5))
def test_every_value_has_a_line(document: dict[str, object]) -> None:
    """Whatever tomllib finds in a document has a line, and the lines grow."""
    text = "".join(f"{toml({name: value})[2:-2]}\n" for name, value in document.items())
    assert document == tomllib.loads(text)
    found = toml_lines.lines_of(text)
    assert set(paths(document)) == set(found)
    assert [found[name,] for name in document] == list(range(1, len(document) + 1))


def files(directory: Path, **texts: str) -> str:
    """Write capd.toml (`main`) and files of conf.d by name, and give the path of the first."""
    (directory / "conf.d").mkdir()
    for name, text in texts.items():
        place = directory / "capd.toml" if name == "main" else directory / "conf.d" / f"{name}.toml"
        place.write_text(text, encoding="utf-8")
    return str(directory / "capd.toml")


LATE = ("shipper", "late_seconds")
RULES = "[[retention]]\nname='{}'"


@pytest.mark.parametrize(
    ("texts", "key", "expected"),
    [
        (["[shipper]\nlate_seconds = 1"], LATE, (1, "capd.toml:2")),
        (["[shipper]\nlate_seconds = 1", "[shipper]\nlate_seconds = 2"], LATE, (2, "1.toml:2")),
        (["", "shipper.late_seconds = 2", "\n\nshipper.late_seconds = 3"], LATE, (3, "2.toml:3")),
        (["[shipper]\nlate_seconds = 1", "[shipper]\nbytes_per_second = 2"], LATE, (1, "capd.toml:2")),
        (["selection.slices = ['a']", "selection.slices = ['b']"], ("selection", "slices"), (["b"], "1.toml:1")),
        ([RULES.format("a"), RULES.format("b")], ("retention", 0, "name"), ("a", "capd.toml:2")),
        ([RULES.format("a"), RULES.format("b")], ("retention", 1, "name"), ("b", "1.toml:2")),
        ([RULES.format("a"), RULES.format("b"), RULES.format("c")], ("retention", 2, "name"), ("c", "2.toml:2")),
        ([RULES.format("a"), "retention = []", RULES.format("c")], ("retention", 0, "name"), ("c", "2.toml:2")),
    ],
)
def test_later_files_win(tmp_path: Path, texts: list[str], key: configuration_files.Key, expected: tuple[object, str]) -> None:
    """Tables are put together, arrays of tables continued; an empty array, and all else, takes the earlier one's place."""
    main, *dropped = texts
    named = {str(number): text for number, text in enumerate(dropped, 1)}
    layered = configuration_files.read_layered(files(tmp_path, main=main, **named))
    value: object = layered.values
    for part in key:
        value = value[part]  # type: ignore[index] # the case says what is there
    assert expected == (value, str(layered.origins[key]).rpartition("/")[2])
    configuration.judge(layered)


def test_order_is_the_names(tmp_path: Path) -> None:
    """Files of conf.d count in the order of their names; hidden ones and others than *.toml are not read."""
    path = files(tmp_path, main="", **{"20-b": "shipper.late_seconds = 20", "10-a": "shipper.late_seconds = 10"})
    (tmp_path / "conf.d" / ".hidden.toml").write_text("nonsense")
    (tmp_path / "conf.d" / "90.toml.dpkg-old").write_text("nonsense")
    layered = configuration_files.read_layered(path)
    assert ["capd.toml", "10-a.toml", "20-b.toml"] == [file.name for file in layered.files]
    assert 20 == configuration.judge(layered).shipper.late_seconds


def test_all_files_that_are_no_toml_are_told(tmp_path: Path) -> None:
    """Two files that cannot be read are told both, each with its name."""
    with pytest.raises(ConfigurationError) as caught:
        configuration_files.read_layered(files(tmp_path, main="a = [", a="b = {"))
    assert ["capd.toml:1", "a.toml:1"] == [line.split(": ")[0].rpartition("/")[2] for line in str(caught.value).splitlines()]


def test_clients_go_by_dropped_files_too(tmp_path: Path) -> None:
    """Who looks for the socket or the recording finds it where a file of conf.d says."""
    path = files(tmp_path, main='state_dir = "/a"', a='state_dir = "/b"\nruntime_dir = "/c"\n')
    assert (Path("/b"), Path("/c/control.sock")) == (locations.state_directory(path), locations.control_socket(path))


@pytest.fixture(name="open_directory")
def _open_directory() -> Iterator[Path]:
    """Give a directory that every user can look into."""
    with tempfile.TemporaryDirectory(prefix="capd-configuration-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def test_what_cannot_be_read_says_nothing_to_clients_and_stops_roles(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not be read is no error for `capd run`, and never taken for an empty one by a role."""
    require_root()
    path = Path(
        files(open_directory, main='runtime_dir = "/closed"', a='runtime_dir = "/open"', b='runtime_dir = "/also-closed"')
    )
    monkeypatch.setattr(configuration_files, "CONFIGURATION", path)
    monkeypatch.delenv("CAPD_CONFIG", raising=False)
    for shut in (path, open_directory / "conf.d" / "b.toml"):
        shut.chmod(0o600)
    user = os.fork()
    if user == 0:  # in a child, because a process that gave up root does not get it back
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            assert Path("/open") == locations.runtime_directory(None)
            with pytest.raises(ConfigurationError, match="Permission denied"):
                configuration.load(None)
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(user, 0)[1])


@pytest.mark.parametrize("which", ["conf.d", "conf.d/a.toml"])
@pytest.mark.parametrize(("uid", "mode"), [(0, 0o775), (0, 0o777), (65534, 0o755)])
def test_what_others_can_write_is_not_read(open_directory: Path, which: str, uid: int, mode: int) -> None:
    """In conf.d, which nobody names, nothing counts that another user can write: neither for a role nor for a client."""
    require_root()
    path = files(open_directory, main="", a='runtime_dir = "/elsewhere"')
    os.chown(open_directory / which, uid, 0)
    (open_directory / which).chmod(mode)
    for read in (configuration.load, locations.runtime_directory):
        with pytest.raises(ConfigurationError, match=r"could change what capd does"):
            read(path)


def test_who_names_a_file_trusts_its_owner(open_directory: Path) -> None:
    """Root may go by a developer's file, and by what he has put beside it."""
    require_root()
    path = files(open_directory, main="", a='runtime_dir = "/elsewhere"')
    for one in (path, open_directory / "conf.d", open_directory / "conf.d" / "a.toml"):
        os.chown(one, 65534, 0)
    assert Path("/elsewhere") == configuration.load(path).runtime_dir


def test_a_stamp_changes_with_the_files(tmp_path: Path) -> None:
    """A file that is written, comes or goes makes another stamp; looking twice does not."""
    path = files(tmp_path, main="", a="")
    stamps = [configuration_files.stamp(path), configuration_files.stamp(path)]
    (tmp_path / "conf.d" / "b.toml").write_text("")
    stamps.append(configuration_files.stamp(path))
    (tmp_path / "conf.d" / "a.toml").unlink()
    stamps.append(configuration_files.stamp(path))
    Path(path).write_text("[capture]\n")
    stamps.append(configuration_files.stamp(path))
    assert (True, 4) == (stamps[0] == stamps[1], len(set(stamps)))
