"""The configuration in a role: the same values, without the library that judged them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import BaseModel

from capd.daemon import configuration, settled
from capd.daemon.errors import ConfigurationError

TEXT = """
bucket_url = "s3://a-bucket"
[capture]
data_ring_bytes = 1048576
[masking]
keys = ["pin"]
[[recording.scope]]
level = "full"
run = "open-*"
[recording.scope.labels]
team = "a"
[[masking.pattern]]
name = "ours"
pattern = "our-[0-9]{8}"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Write a configuration with something in every form that a value can have."""
    path = tmp_path / "capd.toml"
    path.write_text(TEXT + f'[bucket]\nca_file = "{tmp_path}/ca.pem"\n', encoding="utf-8")
    return str(path)


def properties(kind: type[BaseModel]) -> set[str]:
    """Give what a model says beside its keys."""
    ours = [one for one in kind.__mro__ if one.__module__.startswith("capd.")]
    return {name for one in ours for name, value in vars(one).items() if isinstance(value, property)}


def same(model: object, values: object) -> bool:
    """Tell whether values are what a model says, key for key and path for path."""
    if isinstance(model, tuple):
        return isinstance(values, tuple) and all(same(a, b) for a, b in zip(model, values, strict=True))
    if not isinstance(model, BaseModel):
        return model == values
    kind = type(model)
    names = {*kind.model_fields, *properties(kind)}
    return names == set(vars(values)) and all(same(getattr(model, name), getattr(values, name)) for name in names)


def test_every_key_and_path_is_there(config: str) -> None:
    """What a role holds has each key, of each section and each item of a list, and each path that follows."""
    assert same(configuration.load(config), settled.load(config))


def test_a_process_with_threads_needs_no_child(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another thread running nothing is forked, and the values are the same."""
    monkeypatch.setattr("os.fork", lambda: pytest.fail("forked"))
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        assert same(configuration.load(config), settled.load(config))
    finally:
        ended.set()
        other.join()


def test_what_is_wrong_is_told_as_ever(tmp_path: Path) -> None:
    """The error of a wrong file crosses the process with all its lines and its hint."""
    path = tmp_path / "capd.toml"
    path.write_text("a = 1\n[journal]\nbytes_max = 'z'\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as expected:
        configuration.load(str(path))
    with pytest.raises(ConfigurationError) as caught:
        settled.load(str(path))
    assert (str(expected.value), expected.value.hint) == (str(caught.value), caught.value.hint)


@pytest.mark.parametrize(
    ("role", "modules"),
    [
        ("up", "supervision"),
        ("daemon", "capture_role"),
        ("daemon", "enforcement, capd.daemon.kept_descriptors"),
        ("recorder", "recorder"),
        ("shipper", "shipper"),
        ("enforcer", "enforcer_role"),
        ("metrics", "metrics_role"),
    ],
)
def test_no_role_holds_the_library(role: str, modules: str, config: str) -> None:
    """After a role has its configuration and all its modules, neither pydantic nor the model is in its memory."""
    library = ["pydantic", "capd.daemon.configuration", "capd.daemon.recording_policy", "duckdb", "rich"]
    script = (
        f"import sys, capd.cli.{role}, capd.daemon.settled as settled; settled.load({config!r});"
        f"import capd.daemon.{modules};"
        f"print(sorted(set({library}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
