"""Writes enforcer/redis/data/commands.txt: what a server of its own says about its commands.

What lives here: the question to the server. What must not: what capd adds by hand (enforcer/redis).

Run: packaging/redis_catalogue.py -p PORT >enforcer/redis/data/commands.txt
     (the options are redis-cli's)

A line is: name, arity, flags, categories, and of each key specification: flags, where the search begins, how keys are found
(redis.io, "Key specifications"). Names of subcommands stand behind that of their command and a bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def ask(*words: str) -> Any:  # noqa: ANN401 - whatever it answers
    """Ask the server something."""
    command = ["/usr/bin/redis-cli", "-3", "--json", *sys.argv[1:], *words]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def search(spec: dict[str, Any]) -> str:
    """Give how a specification finds its keys, in one word each."""
    words = []
    for part in ("begin_search", "find_keys"):
        inside = spec[part]["spec"]
        words.append(":".join([spec[part]["type"], *(str(inside[name]) for name in sorted(inside))]))
    return ",".join(["+".join(sorted(spec["flags"])), *words])


def lines(commands: list[Any]) -> list[str]:
    """Give the lines of commands and their subcommands."""
    found = []
    for name, arity, flags, _first, _last, _step, categories, _tips, specs, subcommands in commands:
        words = [name.upper(), str(arity), "+".join(sorted(flags)) or "-", "+".join(sorted(categories)) or "-"]
        found.append(" ".join([*words, *map(search, specs)]))
        found += lines(subcommands)
    return found


def main() -> None:
    """Ask, and print."""
    sys.stdout.write("\n".join([f"# Redis {ask('HELLO')['version']}", *sorted(lines(ask("COMMAND")))]) + "\n")


if __name__ == "__main__":
    main()
