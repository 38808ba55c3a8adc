"""Writes requirements*.txt: the versions that pip would choose today for what pyproject.toml asks for.

What lives here: asking pip and writing names and numbers. What must not: addresses of any index.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ["setuptools>=77"]
BENCH = ["mitmproxy>=11"]
HYPHENS = str.maketrans("_.", "--")
"""Names mean the same with any of the three."""
RUNTIME_TEXT = """\
# What capd runs with: exact versions, so that two machines made on different days are the same.
# The names come from pyproject.toml and what they need; `make pin` writes these files anew.
"""
FLEET_TEXT = """\
# What capd runs with beside requirements.txt where it writes or asks the catalogue of a bucket. `make pin` writes this file.
"""
DEV_TEXT = """\
# What checks and tests need beside requirements.txt and requirements-fleet.txt. `make pin` writes this file.
"""
TEST_TEXT = """\
# What tests start beside that: Spark, clients of HTTP and gRPC, Node.js. `make pin` writes this file.
"""
BENCH_TEXT = """\
# mitmproxy, which the bench runs beside the enforcer, in an environment of its own. `make pin` writes this file.
"""


def resolve(wanted: Iterable[str]) -> dict[str, str]:
    """Give name and version of all that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *wanted]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = (entry["metadata"] for entry in report["install"])
    return {entry["name"].lower().translate(HYPHENS): entry["version"] for entry in found}


def lines(pins: dict[str, str]) -> str:
    """Give one line for each pin."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def main() -> None:
    """Write the files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *BUILD]
    extras = project["optional-dependencies"]
    searching = [*needed, *extras["fleet"]]
    developing = [*searching, *extras["dev"]]
    pins = resolve([*developing, *extras["test"]])
    written: set[str] = set()
    for name, text, wanted in (
        ("requirements.txt", RUNTIME_TEXT, needed),
        ("requirements-fleet.txt", FLEET_TEXT, searching),
        ("requirements-dev.txt", DEV_TEXT, developing),
        ("requirements-test.txt", TEST_TEXT, [*developing, *extras["test"]]),
    ):
        chosen = resolve(wanted).keys() - written
        content = lines({package: version for package, version in pins.items() if package in chosen})
        (ROOT / "packaging" / name).write_text(text + content, encoding="ascii")
        written |= chosen
    (ROOT / "packaging" / "requirements-bench.txt").write_text(BENCH_TEXT + lines(resolve(BENCH)), encoding="ascii")


if __name__ == "__main__":
    main()
