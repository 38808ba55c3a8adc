"""How many files with probes one run, one owner and all of them may have.

What lives here: the rule; pure. What must not: attaching, files.

A file with probes costs kernel memory for as long as it has them, so there is a limit for all.
Who could use it up alone would keep everybody else's TLS from being read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ATTACHMENTS_MAX: Final = 512
"""Files with probes, the installed ones included; no host that is known has a tenth of that."""
PER_OWNER_MAX: Final = 128
"""Of one owner's runs together, while as many again stay free: so a second, a third and a tenth owner still gets some."""
PER_RUN_MAX: Final = 64
"""Of one run, while as many again are left of its owner's share. A run with ten virtual environments has a third of it."""
assert PER_RUN_MAX * 2 <= PER_OWNER_MAX
assert PER_OWNER_MAX * 2 <= ATTACHMENTS_MAX


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom a file is watched.

    Attributes:
        run: key of the run that mapped it first.
        owner: for whom that run acts: a user, a unit.
    """

    run: int
    owner: str


def refusal(claims: Iterable[Claim | None], wanted: Claim | None) -> str | None:
    """Say why one more file cannot be watched, or None if it can.

    Args:
        claims: of the files that have probes; None for those that were installed when capd started.
        wanted: of the file in question.
    """
    known = list(claims)
    free = ATTACHMENTS_MAX - len(known)
    if free <= 0:
        return f"{ATTACHMENTS_MAX} files have probes already"
    if wanted is None:
        return None
    held = Counter(claim.owner for claim in known if claim is not None)[wanted.owner]
    owners = min(PER_OWNER_MAX, held + free) - held
    if owners <= 0 or held + 1 >= free:  # with this one too, as many as he holds are left for the others
        return f"{held} files of {wanted.owner} have probes already, and others get what is left"
    of_run = sum(claim is not None and claim.run == wanted.run for claim in known)
    if of_run >= PER_RUN_MAX or of_run >= owners:
        return f"{of_run} files of this run have probes already, and others get what is left"
    return None
