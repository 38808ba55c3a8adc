"""Modules of packaging/system, which are no part of capd and not on any path.

What lives here: loading one. What must not: cases.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

PLACE = Path(__file__).parents[1] / "packaging" / "system"


def packaging_module(name: str) -> ModuleType:
    """Load a module that imports nothing of its neighbours."""
    spec = spec_from_file_location(name, PLACE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
