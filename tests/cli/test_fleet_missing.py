"""capd as its package comes, without the libraries for a bucket's catalogue: each command says which package brings them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from capd.cli import status
from capd.cli.line import plain
from capd.recording.errors import ExitStatus
from tests.requirements import require_root

LACKING = ("duckdb", "fsspec", "pyarrow")
SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({LACKING!r}))  # as Python keeps what is not to be found
from capd.cli.main import main
main()
"""
SAYS = "install capd-fleet"


def without(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run capd as if nobody had installed them."""
    command = [sys.executable, "-P", "-c", SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [("sessions",), ("runs",), ("search", "customers"), ("show", "0197f3a4"), ("replay", "0197f3a4"), ("export", "it")]
)
def test_who_reads_a_bucket_is_told_what_to_install(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Whatever is asked of a bucket's catalogue ends with the name of the package, and no Python of ours on the screen."""
    done = without(*words, "--bucket", tmp_path)
    assert (ExitStatus.USAGE, "") == (done.returncode, done.stdout)
    assert SAYS in done.stderr
    assert "Traceback" not in done.stderr


def test_who_writes_the_catalogue_is_told_what_to_install(tmp_path: Path) -> None:
    """The errand, which the timer starts, ends with the name of the package and has put nothing into the bucket."""
    require_root()
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    config = tmp_path / "capd.toml"
    keys = {"state_dir": tmp_path / "state", "runtime_dir": tmp_path / "run", "bucket_url": bucket}
    config.write_text("".join(f'{key} = "{path}"\n' for key, path in keys.items()), encoding="utf-8")
    done = without("catalogue", "--config", config)
    assert (ExitStatus.USAGE, "") == (done.returncode, done.stdout)
    assert SAYS in done.stderr
    assert "Traceback" not in done.stderr
    assert [] == list(bucket.iterdir())


def test_status_says_what_to_install() -> None:
    """Beside the bucket stands why it has no catalogue."""
    facts = {
        "pid": 14,
        "bucket": "s3://recordings",
        "backlog": {"segments": 0, "bytes": 0},
        "catalogue": {"possible": False},
    }
    said = [plain(line) for line in status._shipper(facts)]
    assert any("catalogue" in line and SAYS in line for line in said), said
