"""Whether the errand that writes the catalogue can be run, and has anything to do.

What lives here: reading the two statuses that say so. What must not: the errand (cataloguer.py), which takes memory that who
waits for it must not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from capd.recording.durable import read_regular

NEEDED: Final = ("pyarrow", "pyarrow.parquet")
STATUS_BYTES_MAX: Final = 64 << 10


def possible() -> bool:
    """Tell whether what it needs is installed: capd's `fleet` extra."""
    return find_spec(NEEDED[0]) is not None


def wanted(shipper: Mapping[str, object], catalogue: Mapping[str, object]) -> bool:
    """Tell from the two statuses whether there is something to catalogue."""
    shipped, through, waiting = shipper.get("through"), catalogue.get("through"), catalogue.get("waiting")
    if not isinstance(shipped, int) or not shipped:
        return False
    return not isinstance(through, int) or shipped > through or bool(waiting)


def read_status(path: Path) -> dict[str, object]:
    """Read a status; empty when there is none."""
    try:
        found = json.loads(read_regular(path, STATUS_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
