"""The Debian package: a tree, control files and maintainer scripts, packed so that the same input gives the same bytes.

What lives here: that form (deb(5), Debian Policy 4.6). What must not: what is installed (tree.py).
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from pathlib import Path

from layout import Layout

from capd.daemon.version import VERSION

SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
"""Of a package that has something to do."""


def build(
    repository: Path, root: Path, target: Path, layout: Layout, *, name: str, revision: str, epoch: int, level: int
) -> Path:
    """Make the package; give its path.

    Args:
        repository: a checkout.
        root: the tree.
        target: directory for the package.
        layout: Debian's.
        name: of the package, whose control files are in a directory of that name.
        revision: of the package.
        epoch: time of all files, s since 1970.
        level: of compression, 0 to 9.
    """
    version, architecture = f"{VERSION}-{revision}", _architecture()
    given, control = repository / "packaging/system/deb" / name, root / "DEBIAN"
    control.mkdir(exist_ok=True)
    overrides = root / "usr/share/lintian/overrides" / name
    overrides.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(given / "overrides", overrides)
    changelog = root / "usr/share/doc" / name / "changelog.Debian.gz"
    changelog.write_bytes(gzip.compress(_changelog(name, version, epoch).encode(), 9, mtime=0))
    for path in (overrides, changelog):
        path.chmod(0o644)
    major, minor = layout.python.split(".")
    facts = {"version": version, "architecture": architecture, "kib": _kib(root), "python": layout.python}
    text = (given / "control").read_text(encoding="utf-8").format(**facts, next=f"{major}.{int(minor) + 1}")
    (control / "control").write_text(text, encoding="utf-8")
    if configuration := [path.relative_to(root) for path in _files(root) if path.is_relative_to(root / "etc")]:
        (control / "conffiles").write_text("".join(f"/{path}\n" for path in configuration), encoding="ascii")
    for script in SCRIPTS:
        if (given / script).exists():
            shutil.copyfile(given / script, control / script)
            (control / script).chmod(0o755)
    (control / "md5sums").write_text("".join(_sums(root)), encoding="utf-8")
    for path in (control, *control.iterdir(), overrides, changelog, changelog.parent, *overrides.parents[:2]):
        os.utime(path, (epoch, epoch))
    made = target / f"{name}_{version}_{architecture}.deb"
    command = ["dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zxz", f"-z{level}", "--build", str(root), str(made)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)})
    return made


def _changelog(name: str, version: str, epoch: int) -> str:
    date = format_datetime(datetime.fromtimestamp(epoch, UTC))
    what = "What changed is in changelog.gz."
    return f"{name} ({version}) unstable; urgency=medium\n\n  * {what}\n\n -- capd authors <packages@capd.example>  {date}\n"


def _architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607 - of whoever builds


def _files(root: Path) -> list[Path]:
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if path.relative_to(root).parts[0] != "DEBIAN")


def _kib(root: Path) -> int:
    """Give the size as Debian counts it (Policy 5.6.20): each file in whole KiB, one for everything else."""
    return sum(-(-path.stat().st_size // 1024) for path in _files(root)) + sum(not path.is_file() for path in root.rglob("*"))


def _sums(root: Path) -> Iterator[str]:
    for path in _files(root):
        relative = path.relative_to(root)
        if relative.parts[0] != "etc":
            yield f"{md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {relative}\n"
