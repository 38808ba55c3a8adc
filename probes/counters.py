"""The probes' own counters, in the order of `enum counter` in `bpf/maps.h`; a test compares the two.

What lives here: their names, and which of them mean a loss. What must not: reading them (capture).
"""

from __future__ import annotations

from typing import Final

COUNTERS: Final = (
    "data_records",
    "data_bytes",
    "control_records",
    "control_lost",
    "ring_full_records",
    "ring_full_bytes",
    "fault_bytes",
    "too_large_bytes",
    "unknown_call_bytes",
    "map_full",
    "tie_conflicts",
    "stale_calls",
    "losses_untold",
)

LOST: Final = frozenset(
    {
        "control_lost",
        "ring_full_records",
        "ring_full_bytes",
        "fault_bytes",
        "too_large_bytes",
        "unknown_call_bytes",
        "map_full",
        "losses_untold",
        "programs_skipped",
    }
)
"""Those that mean something was not recorded.

`programs_skipped` comes from the kernel: a program was already running on that CPU.
"""
