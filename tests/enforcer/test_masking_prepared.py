"""Identifiers are checked also where nothing can be loaded any more, as in a recorder that gave up its rights below /root."""

from __future__ import annotations

import subprocess
import sys

from capd.enforcer.masking.identifiers import EXAMPLES, NAMES

SCRIPT = """
import builtins, io, sys
from capd.enforcer.masking import identifiers
if "prepared" in sys.argv:
    identifiers.prepare()

class Refused:
    def find_spec(self, name, path=None, target=None):
        raise ModuleNotFoundError(name)

def refuse(*arguments, **settings):
    raise PermissionError(str(arguments[0]))

sys.meta_path.insert(0, Refused())
builtins.open = io.open = refuse
for name, number in identifiers.EXAMPLES.items():
    assert identifiers.valid(name, number.encode())
    assert not identifiers.valid(name, number[:-1].encode() + b"?")
"""


def status(*arguments: str) -> int:
    """Run the checks in a process of their own."""
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, check=False).returncode


def test_every_identifier_has_an_example() -> None:
    """So that all of them are prepared."""
    assert set(NAMES) == set(EXAMPLES)


def test_a_prepared_process_loads_nothing_more() -> None:
    """After `prepare` numbers are checked without an import or a file; without it that fails, as it should for this test."""
    assert 0 == status("prepared")
    assert 0 != status()
