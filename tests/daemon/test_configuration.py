"""The configuration: an empty file is good, and whatever is wrong is said, all of it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from capd.daemon import configuration, configuration_reference, locations
from capd.daemon.configuration import MIB, Configuration
from capd.daemon.errors import ConfigurationError
from capd.daemon.instance_paths import InstancePaths
from tests.packaging_module import packaging_module
from tests.requirements import require_command

REPOSITORY = Path(__file__).parents[2]


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
    properties = [name for name, value in vars(InstancePaths).items() if isinstance(value, property)]
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
    assert str(caught.value).startswith(f"{path}:")
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


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Give every key of a model, looking at its classes and not at its schema."""
    for name, field in model.model_fields.items():
        below = list(models(field.annotation))
        if not below or not isinstance(field.annotation, type):
            yield prefix + name
        array = "tuple" in str(field.annotation)
        between = "" if isinstance(field.annotation, type) else "[]" if array else ".NAME"
        for one in below:
            yield from leaves(one, f"{prefix}{name}{between}.")


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """Give the models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from models(part)


def test_reference_has_every_key() -> None:
    """What the pages are made from has every key of the model, each once, with words for it."""
    entries = configuration_reference.entries()
    assert sorted(leaves(Configuration)) == sorted(entry.key for entry in entries)
    assert [] == [entry.key for entry in entries if not entry.meaning or entry.kind == "value"]
    tables = {entry.table for entry in entries} - {""}
    assert tables == set(configuration_reference.sections())


def test_page_is_made_from_the_model() -> None:
    """docs/configuration.md is what the model says: `make docs` writes it."""
    text = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert packaging_module("configuration_pages").markdown() == text


def test_manual_page_has_every_key() -> None:
    """capd.toml(5) has every key, and groff and man have nothing to say against it."""
    text = packaging_module("configuration_pages").manual("2026-01-01")
    listed = [entry for entry in configuration_reference.entries() if entry.kind != "tables by name"]
    assert [] == [entry.key for entry in listed if f"\\fB{entry.path[-1]}\\fP" not in text]
    require_command("groff")
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-Tutf8"], input=text, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_a_new_key_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page cannot stay as it is when a key of the model, its default or its limits change."""
    module = packaging_module("configuration_pages")
    before = module.markdown()
    one, *others = configuration_reference.entries()
    for changed in ((), (replace(one, default="/other"), *others), (replace(one, limits="none"), *others)):
        monkeypatch.setattr(module, "entries", lambda changed=changed: changed or tuple(others))
        assert before != module.markdown()


def test_examples_of_pages_are_valid() -> None:
    """Every example file in docs/operations.md and docs/configuration.md is a configuration that loads."""
    for name in ("operations.md", "configuration.md"):
        text = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
        examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        assert examples
        for example in examples:
            configuration.parse(tomllib.loads(example), "example")
