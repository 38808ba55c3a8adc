"""The configuration: an empty file is good, and whatever is wrong is said, all of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from capd.daemon import configuration, locations
from capd.daemon.configuration import MIB, Configuration
from capd.daemon.errors import ConfigurationError

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def write(directory: Path, text: str) -> str:
    """Write a configuration file and give its path."""
    path = directory / "capd.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_empty_file_is_good(tmp_path: Path) -> None:
    """An empty file gives the defaults, and so does none."""
    assert Configuration() == configuration.load(write(tmp_path, ""))
    assert (Path("/var/lib/capd"), Path("/run/capd")) == (Configuration().state_dir, Configuration().runtime_dir)


def test_all_paths_move_with_two_keys(tmp_path: Path) -> None:
    """state_dir and runtime_dir move every path of an instance, so that two can live side by side."""
    moved = configuration.load(write(tmp_path, f'state_dir = "{tmp_path}/s"\nruntime_dir = "{tmp_path}/r"\n'))
    properties = [name for name, value in vars(Configuration).items() if isinstance(value, property)]
    assert len(properties) > 10
    assert [] == [name for name in properties if not getattr(moved, name).is_relative_to(tmp_path)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stat_dir = 1", "stat_dir: no such key"),
        ("[capture]\ntire = 'auto'", "capture.tire: no such key"),
        ("[capture]\ntier = 'best'", "capture.tier: Input should be 'auto', 'modern' or 'classic'"),
        ("[capture]\ndata_ring_bytes = 100000", "capture.data_ring_bytes: must be a power of two"),
        ("[capture]\ndata_ring_bytes = 4096", "capture.data_ring_bytes: Input should be greater than or equal to 65536"),
        ("[journal]\nbytes_max = 1", "journal.bytes_max: Input should be greater than or equal to 1048576"),
        ("[journal]\ncompression = 'lz4'", "journal.compression: Input should be 'zstd' or 'none'"),
        ("[metrics]\nlisten = '0.0.0.0:9477'", "metrics.listen: 0.0.0.0 can be reached from other hosts"),
        ("state_dir = 'here'", "state_dir: must be an absolute path"),
        ("state_dir = '/a'\nruntime_dir = '/a'", "state_dir and runtime_dir must be two directories"),
        ("state_dir = [", "not TOML"),
    ],
)
def test_each_problem_names_file_key_and_reason(tmp_path: Path, text: str, problem: str) -> None:
    """Whatever is wrong with a file is told with the file's name, the key and the reason."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    """A file with four mistakes is told all four, one to a line."""
    text = "a = 1\nstate_dir = 'x'\n[capture]\ntier = 'y'\n[journal]\nbytes_max = 'z'\n"
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(write(tmp_path, text))
    keys = {line.split(": ")[1] for line in str(caught.value).splitlines()}
    assert {"a", "state_dir", "capture.tier", "journal.bytes_max"} == keys


def test_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was named and is missing is an error; a missing default is none."""
    with pytest.raises(ConfigurationError, match="No such file"):
        configuration.load(str(tmp_path / "missing.toml"))


def test_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CAPD_CONFIG is used when there is no --config, and gives way to it."""
    monkeypatch.setenv("CAPD_CONFIG", write(tmp_path, "[journal]\nbytes_max = 2097152\n"))
    assert 2 * MIB == configuration.load().journal.bytes_max
    other = tmp_path / "other.toml"
    other.write_text("")
    assert Configuration() == configuration.load(str(other))


@pytest.mark.parametrize(("text", "expected"), [("", "/run/capd/control.sock"), ('runtime_dir = "/x"', "/x/control.sock")])
def test_client_finds_the_socket_without_the_model(tmp_path: Path, text: str, expected: str) -> None:
    """A client finds the control socket by one key, and is not stopped by mistakes elsewhere in the file."""
    assert Path(expected) == locations.control_socket(write(tmp_path, f"{text}\nunknown = 1\n"))


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Give every key of a model with its default."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found |= leaves(type(default), f"{prefix}{name}.")
        else:
            found[prefix + name] = default
    return found


def test_operations_page_lists_every_key() -> None:
    """docs/operations.md has a row for each key, with its default, and for nothing else."""
    text = OPERATIONS.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", text, re.MULTILINE))
    assert {key: _toml(value) for key, value in leaves(Configuration).items()} == rows


def test_operations_page_example_is_valid() -> None:
    """Every example file in docs/operations.md is a configuration that loads."""
    examples = re.findall(r"```toml\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        configuration.parse(tomllib.loads(example), "example")


def _toml(value: object) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        assert not value
        return "{}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f'"{value}"'
