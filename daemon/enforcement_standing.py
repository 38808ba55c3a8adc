"""What of an instance's forcing stands in the kernel without regard to any daemon, and taking it away.

What lives here: looking and removing, for `capd enforcement off` and for a daemon that is not to enforce. What must not:
putting anything there (enforcement.py).
"""

from __future__ import annotations

from typing import Final

from capd.daemon.enforcement_names import EnforcementNames

LAYERS: Final = 2
"""How many there are: the table, the programs."""


def standing(names: EnforcementNames) -> list[str]:
    """Name what stands: the table, the programs, both or nothing. What cannot be looked at is not named."""
    from capd.enforcer.forcing.ruleset import ForcingError, Ruleset  # noqa: PLC0415 - only who has netfilter needs it
    from capd.probes.barrier_pins import stands  # noqa: PLC0415 - as above

    found = []
    try:
        ruleset = Ruleset()
        try:
            if ruleset.flags(names.table) is not None:
                found.append(f"the nftables table {names.table}")
        finally:
            ruleset.close()
    except ForcingError:
        found = []
    if stands(names.pins):
        found.append(f"the programs in {names.pins}")
    return found


def remove(names: EnforcementNames) -> list[str]:
    """Take both layers away. Gives what was there.

    Raises:
        ForcingError: a living process owns the table.
        OSError: the kernel refused to remove the programs.
    """
    from capd.enforcer.forcing.ruleset import Ruleset  # noqa: PLC0415 - as above
    from capd.probes.barrier_pins import Barrier  # noqa: PLC0415 - as above

    found = standing(names)
    ruleset = Ruleset()
    try:
        ruleset.remove(names.table)
    finally:
        ruleset.close()
    Barrier(names.pins).remove()
    return found
