"""Multiples of a byte.

What lives here: their names. What must not: sizes of anything.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
