"""What the package capd installs, as a tree of files: the same bytes for the same commit.

What lives here: which file goes where, and what such trees have in common. What must not: the form of a package, what happens
when it is installed, what the package capd-fleet adds (fleet.py).

Libraries that the distribution lacks, or has too old, come along in an environment of their own below /usr/lib/capd, made for
the distribution's interpreter, which sees the distribution's packages too: bcc belongs to the system's LLVM.
What differs between families of distributions is in layout.py.
"""

from __future__ import annotations

import compileall
import gzip
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import documents
import journal_catalogue
import manual
from layout import Layout

NAME = "capd"
HOME = Path("usr/lib/capd")
LAUNCHER = """\
#!/usr/lib/capd/bin/python -IB
from capd.cli.main import main

main()
"""
"""Isolated: neither the caller's directory nor the caller's PYTHON variables decide what root runs. Nothing is compiled where
it is installed: what is not of the package would stay behind it."""
SETTINGS = "home = /usr/bin\ninclude-system-site-packages = true\n"
UNITS = Path("usr/lib/systemd/system")
RENAMED = {"capd.sysusers": Path("usr/lib/sysusers.d/capd.conf"), "capd.tmpfiles": Path("usr/lib/tmpfiles.d/capd.conf")}
INSTALLERS = ("pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "pkg_resources", "distutils-precedence.pth")
"""Libraries that only installing needs; nothing of capd imports them."""
LEFTOVERS = ("bin", "bazel-project")
"""Commands, and what some wheels of cel-expr-python carry of how they were made: 800 files of others' sources."""
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
TRACES = ("direct_url.json", "REQUESTED", "INSTALLER", "RECORD")
"""What pip notes of how it installed: paths of this machine, and lists that are not true any more."""


def lay_out(repository: Path, root: Path, layout: Layout, epoch: int) -> None:
    """Make the tree.

    Args:
        repository: a checkout.
        root: a directory that is empty or not there.
        layout: of the family of distributions.
        epoch: time that every file gets, s since 1970.
    """
    _environment(repository, root, layout)
    _command(root, layout)
    _units(repository, root)
    _documents(repository, root, epoch)
    for path, content in layout.papers(NAME, repository, libraries(root, layout)).items():
        place(root, path).write_bytes(content)
    _catalogue(root)
    _completions(root, layout)
    _configuration(repository, root)
    settle(root, epoch)


def libraries(root: Path, layout: Layout) -> Path:
    """Give where the packages of the environment are."""
    return root / HOME / "lib" / f"python{layout.python}" / "site-packages"


def bring(target: Path, layout: Layout, pinned: Path) -> None:
    """Put libraries there, as wheels for the layout's Python.

    Args:
        target: directory of the environment's packages.
        layout: of the family of distributions.
        pinned: file with their names and exact versions, which has all that they need or that is there already.
    """
    _pip(target, *layout.wheels, "--only-binary", ":all:", "--requirement", str(pinned))


def finish(target: Path, layout: Layout, left_out: Iterable[str]) -> None:
    """Take away what nobody needs there, look whether the rest fits, and compile it where the layout says so.

    Args:
        target: directory of the environment's packages.
        layout: of the family of distributions.
        left_out: patterns of files and directories.
    """
    for pattern in left_out:
        _remove(target.glob(pattern))
    _remove(target.rglob("__pycache__"))
    for trace in TRACES:
        _remove(target.glob(f"*.dist-info/{trace}"))
    _must_fit(target, layout)
    if layout.compiled:
        _compile(target)


def place(root: Path, path: Path) -> Path:
    """Give where a file goes, in a directory that is there."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def settle(root: Path, epoch: int) -> None:
    """Give every file the same time and one of two modes."""
    for directory, _, files in os.walk(root):
        for path in (Path(directory), *(Path(directory) / name for name in files)):
            if not path.is_symlink():
                keeps = path.is_dir() or path.parent.name == "bin"
                path.chmod(0o755 if keeps else 0o644)
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def _environment(repository: Path, root: Path, layout: Layout) -> None:
    target = libraries(root, layout)
    target.mkdir(parents=True)
    bring(target, layout, repository / "packaging/requirements.txt")
    with tempfile.TemporaryDirectory(prefix="capd-source-") as temporary:
        _pip(target, "--no-build-isolation", str(_source(repository, Path(temporary))))
    finish(target, layout, (*INSTALLERS, *LEFTOVERS))


def _pip(target: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "--quiet", "install"]
    subprocess.run([*command, "--no-compile", "--no-deps", "--target", str(target), *words], check=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _source(repository: Path, copy: Path) -> Path:
    """Copy what capd is built from: what an earlier build left in the checkout would come along, whatever was removed since."""
    for name in SOURCES:
        shutil.copyfile(repository / name, copy / name)
    shutil.copytree(repository / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


def _must_fit(target: Path, layout: Layout) -> None:
    """Refuse what another Python's compiled library would be: it is installed, and cannot be imported."""
    fits = (f".cpython-{layout.python.replace('.', '')}-", ".abi3.")
    if wrong := [path.name for path in target.rglob("*.so") if not any(tag in path.name for tag in fits)]:
        raise SystemExit(f"not for Python {layout.python}: {', '.join(wrong)}")


def _compile(target: Path) -> None:
    """Compile all of it, never to be looked at again: the package manager replaces source and bytecode together."""
    sys.pycache_prefix = None  # of whoever builds: bytecode belongs beside its source here
    compileall.compile_dir(
        target,
        quiet=2,
        stripdir=str(target.parents[4]),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=os.cpu_count() or 1,
    )


def _command(root: Path, layout: Layout) -> None:
    (root / HOME / "bin").mkdir()
    (root / HOME / "bin/python").symlink_to(Path("../../../bin") / layout.interpreter.name)
    (root / HOME / "pyvenv.cfg").write_text(SETTINGS, encoding="ascii")
    launcher = place(root, Path("usr/bin/capd"))
    launcher.write_text(LAUNCHER, encoding="ascii")
    launcher.chmod(0o755)


def _units(repository: Path, root: Path) -> None:
    for source in sorted((repository / "systemd").iterdir()):
        shutil.copyfile(source, place(root, RENAMED.get(source.name, UNITS / source.name)))


def _documents(repository: Path, root: Path, epoch: int) -> None:
    for name, text in documents.pages(repository):
        place(root, documents.DIRECTORY / name).write_text(text, encoding="utf-8")
    target = root / documents.DIRECTORY
    shutil.copytree(repository / "packaging/system/examples", target / "examples", copy_function=shutil.copyfile)
    for folder in ("grafana", "prometheus"):
        shutil.copytree(repository / "packaging" / folder, target / "examples" / folder, copy_function=shutil.copyfile)
    for name, page in manual.pages(epoch):
        content = gzip.compress(documents.in_manual(page).encode(), 9, mtime=0)
        place(root, Path(f"usr/share/man/man{name[-1]}/{name}.gz")).write_bytes(content)


def _catalogue(root: Path) -> None:
    place(root, journal_catalogue.PLACE).write_text(journal_catalogue.text(), encoding="utf-8")


def _completions(root: Path, layout: Layout) -> None:
    for shell, path in layout.completions.items():
        environment = {**os.environ, "_CAPD_COMPLETE": f"{shell}_source"}
        command = [sys.executable, "-P", "-m", "capd.cli.main"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        place(root, path).write_bytes(done.stdout)


def _configuration(repository: Path, root: Path) -> None:
    shutil.copyfile(repository / "packaging/system/capd.toml", place(root, Path("etc/capd/capd.toml")))
    (root / "etc/capd/policy.d").mkdir()
    (root / "etc/capd/conf.d").mkdir()
