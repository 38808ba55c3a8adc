"""The version of capd, as its package says.

What lives here: one constant. What must not: imports that are slow; `capd --version` and the start of `capd run` read it.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""The same as in pyproject.toml; a test compares them. importlib.metadata would cost 20 ms at each start."""
