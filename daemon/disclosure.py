"""What of the daemon's status a caller may see: root all of it, anybody else what concerns himself.

What lives here: the rule. What must not: who asks (control.py), what there is to see (attendant.py).

Runs have names, labels and cgroups that their owners chose, libraries have paths in their owners' directories. How many
there are, how much is captured and lost, and how full things are is for everybody: it says whether one's own
run is recorded well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

LISTS: Final = ("runs", "attachments", "attach_failures")
"""Lists of a status whose elements each have an `uid`: whose they are, None for what is nobody's own."""

FORCED_OTHERS: Final = ("selected", "escaped", "users", "namespaces")
"""What `enforcement` names that belongs to other people."""


def disclosed(status: Mapping[str, object], uid: int) -> dict[str, object]:
    """Give what of a status a user may see.

    Args:
        status: all of it; the elements of `LISTS` each carry `uid`.
        uid: who asks.

    Returns:
        The status with lists of what is the user's or nobody's, and `withheld`: how many elements of each list are not shown.
    """
    shown = dict(status)
    withheld = {}
    for name in LISTS:
        elements = cast("Sequence[Mapping[str, object]]", status[name])
        common = (uid,) if name == "runs" else (uid, None)
        mine = [element for element in elements if uid == 0 or element["uid"] in common]
        withheld[name] = len(elements) - len(mine)
        shown[name] = [element["text"] if name == "attach_failures" else element for element in mine]
    storage = cast("Mapping[str, Sequence[object]]", status["storage"])
    unselected = cast("Sequence[object]", status["unselected"])
    enforcement = cast("Mapping[str, object]", status["enforcement"])
    others = {
        "unselected": unselected,
        "problems": storage["problems"],
        "escaped": cast("Sequence[object]", enforcement.get("escaped", ())),
    }
    withheld |= {name: 0 if uid == 0 else len(elements) for name, elements in others.items()}
    if uid != 0:
        shown["unselected"] = []
        shown["storage"] = {**storage, "problems": []}
        shown["enforcement"] = {key: value for key, value in enforcement.items() if key not in FORCED_OTHERS}
    return {**shown, "withheld": withheld}
