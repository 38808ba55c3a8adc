"""What a reading verb does not load: the first line of a replay waits for every module that is imported before it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.recorded import Recording
from tests.cli.spoken import over_http, over_postgresql

NEVER = {"pydantic", "rich", "sqlite_utils", "cryptography", "obstore", "pyrage", "asyncio", "duckdb", "pyarrow", "tempfile"}
"""Libraries that others need."""
FINDING = {"zstandard", "hashlib", "capd.recording.segment", "capd.cli.http_lines"}
"""What who finds something without reading it has no use for."""
WRITING = {
    "capd.recording.journal",
    "capd.recording.segment.writer",
    "capd.recording.projection",
    "capd.enforcer.masking.scanner",
}
SCRIPT = """
import json, sys
before = set(sys.modules)  # of what a host's administrator has every interpreter load, capd is not the cause
from capd.cli.main import capd
capd.main(json.loads(sys.argv[1]), prog_name="capd", standalone_mode=False)
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["sessions"], NEVER | WRITING | FINDING),
        (["search", "customers"], NEVER | WRITING | FINDING),
        (["runs"], NEVER | WRITING | FINDING),
        (["replay", str(over_http().id)], NEVER | WRITING | {"capd.cli.postgresql_lines", "capd.cli.forms.spoken"}),
        (["replay", str(over_postgresql().id)], NEVER | WRITING | {"capd.cli.http_lines", "capd.cli.forms.spoken"}),
    ],
)
def test_readers_load_only_what_they_use(recorded: Recording, arguments: list[str], refused: set[str]) -> None:
    """No verb that reads pays for those that write, for other protocols, or for libraries that it does not ask."""
    command = json.dumps([*arguments, "--state-dir", str(recorded.state_dir)])
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT, command], capture_output=True, text=True, check=True)
    assert done.stdout
    assert set() == refused & set(json.loads(done.stderr))


def test_the_recorder_does_not_load_the_proxy() -> None:
    """Who decides nothing keeps nothing in memory of what decides: five megabytes of the budget at rest."""
    script = "import sys, capd.cli.recorder; print(*(name for name in sys.modules if name.startswith('capd.enforcer.')))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert not {"capd.enforcer.proxy.judge", "capd.enforcer.policy.policy", "capd.enforcer.sql"} & set(done.stdout.split())
