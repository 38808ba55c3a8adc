"""What differs between two families of distributions: their Python, and where completions, licences and news go.

What lives here: those differences. What must not: what both have (tree.py), the form of a package (deb.py, rpm.py).
"""

from __future__ import annotations

import gzip
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import notices

HOST = Path("/usr/bin/python3")
GLIBC_MINORS = (5, 12, *range(17, 35))
"""Wheels for glibc 2.34, which RHEL 9 and 10 and every Fedora have, or for an older one."""
OLDER_NAMES = ("manylinux1", "manylinux2010", "manylinux2014")
"""Of 2.5, 2.12 and 2.17, before wheels said it in numbers (PEP 600)."""

Papers = Callable[[str, Path, Path], Mapping[Path, bytes]]
"""Gives files by their place, from the package's name, a checkout, and the directory of the libraries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One family, and one Python of it."""

    python: str
    """Such as `3.12`: compiled libraries are bound to it."""
    interpreter: Path
    wheels: tuple[str, ...]
    """What pip is told, so that it takes libraries for that Python."""
    compiled: bool
    """Whether bytecode comes along. Only the interpreter that will run it can make it."""
    completions: Mapping[str, Path]
    papers: Papers


def debian() -> Layout:
    """Give Debian's: made on the distribution that it is for, by its own interpreter."""
    return Layout(
        python=_version_of_host(),
        interpreter=HOST,
        wheels=(),
        compiled=True,
        completions={
            "bash": Path("usr/share/bash-completion/completions/capd"),
            "zsh": Path("usr/share/zsh/vendor-completions/_capd"),
            "fish": Path("usr/share/fish/vendor_completions.d/capd.fish"),
        },
        papers=_debian_papers,
    )


def fedora(python: str) -> Layout:
    """Give that of Fedora, RHEL and their relatives, made elsewhere.

    Args:
        python: the target's, such as `3.12`.
    """
    machine = platform.machine()
    platforms = [*(f"manylinux_2_{minor}" for minor in GLIBC_MINORS), *OLDER_NAMES]
    wheels = ["--implementation", "cp", "--python-version", python]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        wheels += ["--abi", abi]
    for name in platforms:
        wheels += ["--platform", f"{name}_{machine}"]
    return Layout(
        python=python,
        interpreter=Path(f"/usr/bin/python{python}"),
        wheels=(*wheels, "--platform", "any"),
        compiled=False,
        completions={
            "bash": Path("usr/share/bash-completion/completions/capd"),
            "zsh": Path("usr/share/zsh/site-functions/_capd"),
            "fish": Path("usr/share/fish/vendor_completions.d/capd.fish"),
        },
        papers=_fedora_papers,
    )


def _version_of_host() -> str:
    command = [HOST, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _debian_papers(package: str, repository: Path, libraries: Path) -> Mapping[Path, bytes]:
    place = Path("usr/share/doc") / package
    return {
        place / "copyright": notices.copyright_file(libraries).encode(),
        place / "changelog.gz": gzip.compress((repository / "CHANGELOG.md").read_bytes(), 9, mtime=0),
    }


def _fedora_papers(package: str, repository: Path, libraries: Path) -> Mapping[Path, bytes]:
    place = Path("usr/share/licenses") / package
    return {
        place / "LICENSE": (repository / "LICENSE").read_bytes(),
        place / "NOTICES": notices.whole_texts(libraries).encode(),
        Path("usr/share/doc") / package / "CHANGELOG.md": (repository / "CHANGELOG.md").read_bytes(),
    }
