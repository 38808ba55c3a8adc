"""Runs: which there are, and their files, so that a restarted daemon takes up those that still live.

What lives here: what is known of a run, its JSON form, the registry. What must not: making cgroups, selecting in the kernel.
"""

from __future__ import annotations

import json
import pwd
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from capd.daemon.cgroups import RunCgroup
from capd.daemon.errors import TooManyRunsError
from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import on_disk

FILE_BYTES_MAX: Final = 1 << 20
"""Of a run's file: several times what a request for a run may hold."""
NAME_CHARACTERS_MAX: Final = 200
OWN_LABELS: Final = "capd."
OUTER_RUN_LABEL: Final = OWN_LABELS + "outer_run"
"""On a run that was started from within another one: the id of that one."""
LABELS_MAX: Final = 64
LABEL_CHARACTERS_MAX: Final = 256
"""What a person can still read in a list; labels are for grouping, not for storing."""
ALL_LABELS_CHARACTERS_MAX: Final = 4096
"""Of one run: status lists them for all runs, and must stay an answer that a client takes."""
LIVE_MAX: Final = 4096
"""As many cgroups as the kernel's table of them has room for (probes/bpf/maps.h)."""
LIVE_RESERVED: Final = 1024
"""Of these, for root and for what selectors find: whatever users do, an operator can start a run."""
LIVE_PER_USER_MAX: Final = 512
"""Of one user but root, while there is room for as many again; see `Registry.check_room`."""
assert LIVE_PER_USER_MAX * 2 < LIVE_MAX - LIVE_RESERVED


@dataclass(frozen=True, kw_only=True)
class Run:
    """One agent execution.

    Attributes:
        id: UUIDv7, unique over all hosts.
        name, labels: as its owner calls it.
        principal: who it acts for: kind, name, uid, verified.
        cgroup: where it lives.
        command, cwd: as the client states them; empty and None for a run made by a selector.
        adopted: True when a selector made a run of what already ran.
        started_ns: wall time.
    """

    id: UUID
    name: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    principal: Mapping[str, object]
    cgroup: RunCgroup
    command: list[str] = field(default_factory=list)
    cwd: str | None = None
    adopted: bool = False
    started_ns: int

    @property
    def key(self) -> int:
        """Give the 64-bit number that stands for this run in kernel events; never 0, the same after a restart."""
        return int.from_bytes(blake2b(self.id.bytes, digest_size=8).digest(), "little") | 1

    @property
    def uid(self) -> int | None:
        """Give the user who made it; None for a run that a selector made."""
        uid = self.principal.get("uid")
        return uid if isinstance(uid, int) else None

    @property
    def owner(self) -> str:
        """Name whom it acts for, as far as shares of what is scarce go."""
        return f"{self.principal.get('kind')} {self.principal.get('name')}"

    def to_json(self) -> dict[str, object]:
        """Give the form of the run's file."""
        return {
            "id": str(self.id),
            "name": self.name,
            "labels": dict(self.labels),
            "principal": dict(self.principal),
            "cgroup": {"path": self.cgroup.path, "id": self.cgroup.id, "unit": self.cgroup.unit},
            "command": self.command,
            "cwd": self.cwd,
            "adopted": self.adopted,
            "started_ns": self.started_ns,
        }


def from_json(values: Mapping[str, object]) -> Run:
    """Read the form of the run's file.

    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    cgroup = cast("Mapping[str, object]", values["cgroup"])
    return Run(
        id=UUID(cast("str", values["id"])),
        name=cast("str | None", values["name"]),
        labels=cast("Mapping[str, str]", values["labels"]),
        principal=cast("Mapping[str, object]", values["principal"]),
        cgroup=RunCgroup(
            path=cast("str", cgroup["path"]),
            id=cast("int", cgroup["id"]),
            unit=cast("str | None", cgroup["unit"]),
        ),
        command=cast("list[str]", values["command"]),
        cwd=cast("str | None", values["cwd"]),
        adopted=cast("bool", values["adopted"]),
        started_ns=cast("int", values["started_ns"]),
    )


def user_principal(uid: int) -> dict[str, object]:
    """Give the principal of a run whose owner is known by user id alone."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return {"kind": "user", "name": name, "uid": uid, "verified": False}


def unit_principal(unit: str) -> dict[str, object]:
    """Give the principal of a run that a selector found."""
    return {"kind": "unit", "name": unit, "verified": False}


class Registry:
    """The live runs, each with a file in the runtime directory: after a reboot the files are gone, as the runs are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs: dict[int, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: int) -> Run | None:
        """Give the run of a key, None if it is not live."""
        return self._runs.get(key)

    def by_cgroup(self, path: str) -> Run | None:
        """Give the run that lives in a cgroup or above it, None if there is none."""
        inside = (run for run in self if path == run.cgroup.path or path.startswith(f"{run.cgroup.path.rstrip('/')}/"))
        return max(inside, key=lambda run: len(run.cgroup.path), default=None)

    def add(self, run: Run) -> None:
        """Take a run in and write its file.

        Raises:
            StateDirectoryError: the file cannot be written; the run is not taken in.
        """
        path = self._file(run)
        content = json.dumps(run.to_json(), ensure_ascii=True).encode("ascii")
        with on_disk("write", path):
            # Their directory decides who can read them: root, and the enforcer where there is one.
            replace_content(path, content, mode=0o640, sync=False)
        self._runs[run.key] = run

    def check_room(self, uid: int | None) -> None:
        """Refuse a run for which there is no room.

        A user but root never has more live runs than are still free for users. So the first ones may have 512 each, later ones
        half of what is left, and half of that again: there is one for a user who has none until a dozen users have conspired.

        Args:
            uid: the user who wants one; None for what a selector found, which is root's wish.

        Raises:
            TooManyRunsError: there is none.
        """
        if len(self) >= LIVE_MAX:
            raise TooManyRunsError(f"{LIVE_MAX} runs are live, and no more can be")
        if not uid:
            return
        users = Counter(run.uid for run in self)
        own = users[uid]
        free = LIVE_MAX - LIVE_RESERVED - sum(count for other, count in users.items() if other)
        if own >= LIVE_PER_USER_MAX:
            raise TooManyRunsError(f"one user has at most {LIVE_PER_USER_MAX} live runs")
        if own >= free:
            raise TooManyRunsError(f"all users together have so many live runs that user {uid}, with {own}, gets no more")

    def forget(self, run: Run) -> None:
        """Forget a run that ended. Its file stays until `remove`: a later daemon that finds it tells the end."""
        self._runs.pop(run.key, None)

    def remove(self, run: Run) -> None:
        """Remove the file of a run whose end is told."""
        self._file(run).unlink(missing_ok=True)

    def load(self) -> list[Run]:
        """Read what an earlier daemon left. They are not taken in: the caller looks which of them still live.

        A file that cannot be read as a run is removed: nothing can be done with it.
        """
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(from_json(json.loads(read_regular(path, FILE_BYTES_MAX))))
            except (OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
        return found

    def cgroups_left(self, number_of: Callable[[str], int | None]) -> dict[int, str]:
        """Give the cgroups of what an earlier daemon left, by the kernel's number, as far as they are still the same.

        Args:
            number_of: gives the number of a cgroup by its path, None if there is none.
        """
        found = {run.cgroup.id: run.cgroup.path for run in self.load()}
        return {number: path for number, path in found.items() if number_of(path) == number}

    def _file(self, run: Run) -> Path:
        return self._directory / f"{run.id}.json"
