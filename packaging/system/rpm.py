"""The rpm of Fedora, RHEL and their relatives: a tree and a spec, built so that the same input gives the same bytes.

What lives here: what the specs (rpm/) do not know by themselves. What must not: what is installed (tree.py), what happens
when it is (the specs).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fleet
import notices
import tree
from layout import Layout

from capd.daemon.version import VERSION

CONFIGURATION = Path("etc/capd")
OWNED = (
    CONFIGURATION,
    tree.HOME,
    *(Path("usr/share") / kind / package for kind in ("doc", "licenses") for package in (tree.NAME, fleet.NAME)),
    Path("usr/share/bash-completion"),
    Path("usr/share/zsh"),
    Path("usr/share/fish"),
)
"""Directories that are a package's, with what is below; of shells' it is one of many owners, for it needs none of them, and
capd-fleet is one of those with libraries beside capd."""
LICENCES = Path("usr/share/licenses")
DAY = "%a %b %d %Y"
UNITS = ("capd*.target", "capd*.timer", "capd*.service")
REFUSES = "RefuseManualStop=yes"
RESTARTED = ("capd.service", "capd-recorder.service", "capd-metrics.service", "capd-shipper.service", "capd-enforcer.service")
"""In the order of the Debian package."""


def build(
    repository: Path, root: Path, target: Path, layout: Layout, *, name: str, revision: str, epoch: int, level: int
) -> Path:
    """Make the package; give its path.

    Args:
        repository: a checkout.
        root: the tree.
        target: directory for the package.
        layout: Fedora's.
        name: of the package, whose spec has that name.
        revision: of the package.
        epoch: time of all files, s since 1970.
        level: of compression, 1 to 19.
    """
    _name_bytecode(root, layout, epoch)
    with tempfile.TemporaryDirectory(prefix="capd-rpm-") as temporary:
        place = Path(temporary)
        (place / "files").write_text("".join(_files(root)), encoding="utf-8")
        release = f"{revision}.py{layout.python.replace('.', '')}"
        filled = {
            **_facts(repository, root, layout, epoch),
            "RELEASE": release,
            "LEVEL": str(level),
            "FILES": str(place / "files"),
        }
        spec = place / f"{name}.spec"
        spec.write_text(_filled(repository / "packaging/system/rpm" / spec.name, filled), encoding="utf-8")
        # Of a home without macros of whoever builds.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "HOME": temporary, "LC_ALL": "C.UTF-8"}
        command = ["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {place}/build", str(spec)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"rpmbuild failed:\n{done.stdout}{done.stderr}")
        (made,) = (place / "build/RPMS").rglob("*.rpm")
        return Path(shutil.copy(made, target))


def _facts(repository: Path, root: Path, layout: Layout, epoch: int) -> dict[str, str]:
    libraries = tree.libraries(root, layout)
    major, minor = layout.python.split(".")
    sysusers = (repository / "systemd/capd.sysusers").read_text(encoding="utf-8").splitlines()
    bundled = (
        f"Provides:       bundled(python3dist({_plain(one.name)})) = {one.version}" for one in notices.bundled(libraries)
    )
    return {
        "VERSION": VERSION,
        "ARCHITECTURE": platform.machine(),
        "LICENSE": notices.expression(libraries),
        "PYTHON": layout.python,
        "NEXT": f"{major}.{int(minor) + 1}",
        "INTERPRETER": str(layout.interpreter),
        "LIBRARIES": f"/{libraries.relative_to(root)}",
        "BUNDLED": "\n".join(bundled),
        "SYSUSERS": "\n".join(line for line in sysusers if not line.startswith("#")),
        "RESTARTED": " ".join(RESTARTED),
        "UNITS": " ".join(_stoppable(root / tree.UNITS)),
        "DATE": datetime.fromtimestamp(epoch, UTC).strftime(DAY),
        "TREE": str(root),
    }


def _stoppable(units: Path) -> Iterator[str]:
    """Give those that are stopped when the package goes: all but one that refuses, because agents are cut off by it."""
    for path in (path for pattern in UNITS for path in sorted(units.glob(pattern))):
        if REFUSES not in path.read_text(encoding="utf-8").splitlines():
            yield path.name


def _filled(spec: Path, facts: dict[str, str]) -> str:
    text = spec.read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace(f"@{name}@", value)
    return text


def _plain(name: str) -> str:
    """Give a library's name as Python's packages compare it (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def _name_bytecode(root: Path, layout: Layout, epoch: int) -> None:
    """Put an empty file in the place of all bytecode that the target will make, so that the package can own it."""
    tag = f"cpython-{layout.python.replace('.', '')}"
    for source in sorted(tree.libraries(root, layout).rglob("*.py")):
        cache = source.parent / "__pycache__"
        cache.mkdir(exist_ok=True)
        made = cache / f"{source.stem}.{tag}.pyc"
        made.touch()
        for path in (made, cache, source.parent):
            os.utime(path, (epoch, epoch))


def _files(root: Path) -> Iterator[str]:
    """Give the lines of %files, each with what is particular about it."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        directory = path.is_dir() and not path.is_symlink()
        if directory and not any(relative.is_relative_to(owned) for owned in OWNED):
            continue
        yield f'{_particular(relative, directory=directory)}"/{relative}"\n'


def _particular(relative: Path, *, directory: bool) -> str:
    if directory:
        return "%dir %attr(0755,root,root) "
    mode = "" if relative.parent.name == "bin" else "%attr(0644,root,root) "
    if relative.is_relative_to(CONFIGURATION):
        return f"%config(noreplace) {mode}"
    if relative.is_relative_to(LICENCES):
        return f"%license {mode}"
    if relative.suffix == ".pyc":
        return f"%ghost {mode}"
    return mode
