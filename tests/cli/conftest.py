"""What the tests of the reading verbs share: a recording to read, and the command to read it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from capd.cli import export, keys, replay, runs, search, sessions, show, verify
from tests.cli.recorded import Recording, run_records
from tests.cli.spoken import over_http, over_postgresql

VERBS: dict[str, click.Command] = {
    "runs": runs.command,
    "sessions": sessions.command,
    "show": show.command,
    "search": search.command,
    "replay": replay.command,
    "export": export.command,
    "verify": verify.command,
    "keys": keys.command,
}
Capd = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what verify remembers out of the home directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    """Give an empty state directory to record into."""
    made = Recording(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def recorded(recording: Recording) -> Recording:
    """Give a state directory with one run and its two sessions, in two segments."""
    run = run_records()
    recording.write([*run[:5], *over_http().records])
    recording.write([*over_postgresql().records, *run[5:]])
    return recording


@pytest.fixture
def capd(recording: Recording) -> Capd:
    """Give a function that runs a verb on the recording, as the command line would."""

    def invoke(verb: str, *arguments: str, state_dir: Path | None = recording.state_dir) -> Result:
        place = [] if state_dir is None else ["--state-dir", str(state_dir)]
        return CliRunner().invoke(VERBS[verb], [*arguments, *place], prog_name=f"capd {verb}", standalone_mode=False)

    return invoke
