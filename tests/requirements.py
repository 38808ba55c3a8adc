"""What a test needs from the machine it runs on.

What lives here: the one way to skip a test. What must not: fixtures, or a skip without a reason.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

BTF = Path("/sys/kernel/btf/vmlinux")


def in_ci() -> bool:
    """Tell whether this is a machine that must have everything."""
    return os.environ.get("CI", "").lower() == "true"


def require(condition: object, reason: str) -> None:
    """Skip the running test with a reason unless the condition holds; with CI=true fail instead, so that nothing is missed."""
    if condition:
        return
    if in_ci():
        pytest.fail(f"CI=true forbids to skip: {reason}", pytrace=False)
    pytest.skip(reason)


def require_obtained(directory: Path, what: str) -> None:
    """Skip unless the environment brought something there.

    Where `make env-test` tried and it cannot be had today from others, that is no fault of this machine, nor of what is tested:
    then a test is left out with CI=true, too, and says why.
    """
    told = directory / "not-to-be-had"
    if told.exists():
        pytest.skip(f"{what} is not to be had: {told.read_text(encoding='utf-8', errors='replace').strip()}")
    require((directory / ".ready").exists(), f"needs {what}; `make env-test` brings it")


def require_root() -> None:
    """Skip unless the test may do everything: loading probes, mounting, other users' processes."""
    require(os.geteuid() == 0, "needs root")


def require_command(*names: str) -> None:
    """Skip unless all these programs are on PATH."""
    for name in names:
        require(shutil.which(name), f"needs the program {name}")


def require_probes() -> None:
    """Skip unless the running kernel can take capd's probes and this user may load them."""
    require_root()
    require(BTF.exists(), f"needs {BTF}")
    require(kernel() >= (5, 8), "needs kernel 5.8 or later")


def kernel() -> tuple[int, int]:
    """Give the running kernel's version, such as (6, 1)."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))
