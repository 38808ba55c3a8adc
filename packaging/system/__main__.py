"""Makes a package: `python packaging/system deb|rpm|tree DIRECTORY`, as `make deb`, `make rpm` and those of capd-fleet do.

What lives here: the command line. What must not: what is in a package (tree.py, fleet.py), its form (deb.py, rpm.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import deb
import fleet
import layout
import rpm
import tree

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = "3.12"
"""RHEL 10's."""
LEVELS = {"deb": 6, "rpm": 19}
TREES = {tree.NAME: tree.lay_out, fleet.NAME: fleet.lay_out}


def epoch() -> int:
    """Give the time that all files get: the commit's, so that the same commit gives the same bytes; s since 1970."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    command = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Make one package, or only its tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=["deb", "rpm", "tree"])
    parser.add_argument("directory", type=Path, help="where it is put")
    parser.add_argument("--package", choices=TREES, default=tree.NAME, help=f"which; {tree.NAME} without it")
    parser.add_argument(
        "--revision", action="append", help="of the package, behind capd's version; 1 without it; each makes one"
    )
    parser.add_argument("--level", type=int, help="of compression; deb: 0 to 9 of xz, rpm: 1 to 19 of zstd")
    parser.add_argument("--python", default=PYTHON, help=f"of the rpm's distribution; {PYTHON} without it")
    asked = parser.parse_args()
    os.umask(0o022)
    asked.directory.mkdir(parents=True, exist_ok=True)
    family = layout.fedora(asked.python) if asked.form == "rpm" else layout.debian()
    lay_out = TREES[asked.package]
    if asked.form == "tree":
        lay_out(REPOSITORY, asked.directory, family, epoch())
        return
    make = {"deb": deb.build, "rpm": rpm.build}[asked.form]
    level = LEVELS[asked.form] if asked.level is None else asked.level
    with tempfile.TemporaryDirectory(prefix="capd-package-") as temporary:
        root = Path(temporary) / "root"
        lay_out(REPOSITORY, root, family, epoch())
        for revision in asked.revision or ["1"]:
            own = Path(temporary) / f"revision-{revision}"  # a package adds to its tree
            shutil.copytree(root, own, symlinks=True)
            facts = {"name": asked.package, "revision": revision, "epoch": epoch(), "level": level}
            made = make(REPOSITORY, own, asked.directory, family, **facts)
            sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
