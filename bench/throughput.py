"""How much capture sustains: a sender at full speed, everything it says and hears into the journal on disk, what was lost.

What lives here: the flood and its figures. What must not: printing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from bench.instance import Instance, started


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """One flood.

    Attributes:
        message_bytes: of each call.
        wanted_per_second: calls that the sender was to make; 0 for as many as it could.
        seconds: how long.
        records_per_second: records in the journal.
        megabytes_per_second: payload in the journal, 10^6 bytes.
        lost_bytes: payload that is not.
        lost_share: of the payload.
    """

    message_bytes: int
    wanted_per_second: int
    seconds: float
    records_per_second: float
    megabytes_per_second: float
    lost_bytes: int
    lost_share: float


RECORDS_PER_SECOND = 300_000
BYTES_PER_SECOND = 1_000_000_000


def target(message_bytes: int) -> int:
    """Give the calls per second that the budget names: 300,000 records or 1 GB of payload, whichever comes first."""
    return min(RECORDS_PER_SECOND, BYTES_PER_SECOND // message_bytes)


def flood(load: str, message_bytes: int, seconds: float, per_second: int, *, tier: str = "auto") -> Sustained:
    """Run the sender as an agent under a daemon without recorder, and compare what it did with what was captured."""
    with started("daemon", tier=tier) as instance:
        before = _counters(instance)
        said = json.loads(instance.run([load, "stream", str(message_bytes), str(seconds), str(per_second)]))
        time.sleep(1)  # the last block
        after = _counters(instance)
    moved = {name: after[name] - before.get(name, 0) for name in after}
    lost = moved["ring_full_bytes"] + moved["fault_bytes"] + moved["too_large_bytes"] + moved["unknown_call_bytes"]
    return Sustained(
        message_bytes=message_bytes,
        wanted_per_second=per_second,
        seconds=said["seconds"],
        records_per_second=moved["data_records"] / said["seconds"],
        megabytes_per_second=moved["data_bytes"] / said["seconds"] / 1e6,
        lost_bytes=lost,
        lost_share=lost / said["bytes"],
    )


def _counters(instance: Instance) -> dict[str, int]:
    status = instance.ask("status")
    return {name: int(value) for name, value in status["counters"].items()}
