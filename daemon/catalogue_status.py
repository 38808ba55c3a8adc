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
EXPIRY_SECONDS: Final = 3600.0
"""How often it is tried to remove files that the bucket protects."""
STATUS_BYTES_MAX: Final = 64 << 10


def possible() -> bool:
    """Tell whether what it needs is installed: the package capd-fleet, or capd's `fleet` extra."""
    return find_spec(NEEDED[0]) is not None


def wanted(shipper: Mapping[str, object], catalogue: Mapping[str, object], now: float = 0.0) -> bool:
    """Tell from the two statuses whether there is something to catalogue, or to take out; `now`: wall time in seconds."""
    retention, known = shipper.get("retention"), catalogue.get("deletions")
    records = retention.get("records") if isinstance(retention, Mapping) else None
    more = isinstance(records, int) and records > (known if isinstance(known, int) else 0)
    return _new(shipper, catalogue) or (more and expiry_due(catalogue, now))


def expiry_due(catalogue: Mapping[str, object], now: float) -> bool:
    """Tell whether what expired may be looked at: what the bucket protects only now and then."""
    tried = catalogue.get("expiry_time")
    return not isinstance(tried, int | float) or not 0 <= now - tried < EXPIRY_SECONDS


def _new(shipper: Mapping[str, object], catalogue: Mapping[str, object]) -> bool:
    settled = shipper.get("settled")
    if not isinstance(settled, int) or not settled:
        return False
    return settled != catalogue.get("settled") or bool(catalogue.get("waiting"))


def read_status(path: Path) -> dict[str, object]:
    """Read a status; empty when there is none."""
    try:
        found = json.loads(read_regular(path, STATUS_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
