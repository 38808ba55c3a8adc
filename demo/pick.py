"""Finds one session in the output of `capd sessions --json`.

What lives here: a look-up for the demo's script. What must not: anything that a person would need; they use `capd sessions`.

    pick.py PROTOCOL PROGRAM     prints the id of the first closed session of that executable; fails if there is none
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath


def pick(sessions: Iterable[Mapping[str, object]], protocol: str, program: str) -> str | None:
    """Give the id of the first closed session of a protocol whose executable's name begins with `program`."""
    for session in sessions:
        process = session["process"]
        executable = PurePath(str(process["exe"])).name if isinstance(process, Mapping) else ""
        if session["protocol"] == protocol and session["state"] == "closed" and executable.startswith(program):
            return str(session["session"])
    return None


def main(protocol: str, program: str) -> int:
    """Read the list from standard input, print the id."""
    found = pick(json.load(sys.stdin), protocol, program)
    if found is None:
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
