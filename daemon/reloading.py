"""Taking a changed configuration over while the daemon runs.

What lives here: having it judged in a process of its own, what is taken over and what waits for a restart, what is told of it.
What must not: what a key does to the part that goes by it; those parts are handed in.

The daemon goes on with what it has until a whole new configuration was judged good. One that is wrong in any place is refused
as a whole: nothing of it is taken over.
"""

from __future__ import annotations

import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from capd.daemon import configuration_files, settled
from capd.daemon.configuration_effect import UNITS, changed_keys, effect_of
from capd.daemon.errors import ConfigurationError

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

SECONDS_MAX: Final = 30.0
"""For judging, which takes a quarter of a second on a machine that has nothing else to do."""
PROBLEM_LINES_MAX: Final = 20
"""Kept of what is wrong: `capd config check` has the rest."""

Take = Callable[["Configuration"], None]


class Reloading:
    """Knows the configuration in force. One thread calls it: the attendant's."""

    def __init__(self, configuration: Configuration, given: str | None, say: Callable[[str], None]) -> None:
        """Take what is in force.

        Args:
            configuration: that.
            given: the file that was named on the command line, or None.
            say: tells the operator one line.
        """
        self.configuration = configuration
        self._started_with = configuration
        self._given, self._say = given, say
        self._stamp = configuration_files.stamp(given)
        self._loaded_ns = time.time_ns()
        self._judge: subprocess.Popen[bytes] | None = None
        self._again = False
        self._due = 0.0
        self._judged_stamp = self._stamp
        self._times = 0
        self._problem: str | None = None
        self._pending: dict[str, int] = {}
        self.take: Take = lambda _configuration: None
        """Gives a new configuration to all that goes by it; raises ConfigurationError, nothing done, where it cannot be."""

    def begin(self, selector: selectors.BaseSelector) -> int:
        """Have what is on disk judged, and take it over if it is good; one reload at a time, a second one comes after it.

        Args:
            selector: of the caller's event loop.

        Returns:
            The number that `facts` says once this is done.
        """
        if self._judge is not None:
            self._again = True
            return self._times + 2
        self._judged_stamp = configuration_files.stamp(self._given)
        arguments = [] if self._given is None else [self._given]
        command = [sys.executable, "-P", "-m", "capd.daemon.settled", *arguments]
        try:
            self._judge = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            self._refuse(f"it cannot be judged: {error.strerror}")
            return self._times
        self._due = time.monotonic() + SECONDS_MAX
        assert self._judge.stdout is not None
        selector.register(self._judge.stdout, selectors.EVENT_READ, lambda: self._heard(selector))
        return self._times + 1

    def attend(self) -> None:
        """End a judge that takes too long; to be called about every second."""
        if self._judge is not None and time.monotonic() > self._due:
            self._judge.kill()

    def close(self) -> None:
        """End what is going on."""
        if self._judge is not None:
            self._judge.kill()
            self._judge.wait()

    def facts(self) -> dict[str, object]:
        """Give the part of the status, and of the settings what the status of other roles is judged by."""
        settings = self.configuration
        return {
            "configuration": {
                "files": [str(path) for path, *_others in self._stamp],
                "loaded_ns": self._loaded_ns,
                "reloads": self._times,
                "problem": self._problem,
                "changed_on_disk": configuration_files.stamp(self._given) != self._judged_stamp,
                "pending": [
                    {"key": key, "roles": list(effect_of(key).roles), "since_ns": since} for key, since in self._pending.items()
                ],
            },
            "settings": {
                "state_dir": str(self._started_with.state_dir),
                "bucket": settings.bucket_url is not None,
                "late_seconds": settings.shipper.late_seconds,
                "listen": settings.metrics.listen,
                "alerts": {
                    "enabled": settings.alerts.enabled,
                    "begin_seconds": settings.alerts.begin_seconds,
                    "end_seconds": settings.alerts.end_seconds,
                },
            },
        }

    def _heard(self, selector: selectors.BaseSelector) -> None:
        """Take what the judge says: all of it, for it says it at once."""
        judge, self._judge = self._judge, None
        assert judge is not None
        assert judge.stdout is not None
        selector.unregister(judge.stdout)
        with judge.stdout as answer:
            told = answer.read()
        judge.wait()
        try:
            found = settled.understood(told)
            if found is None:
                raise ConfigurationError("whoever judges it ended before it was done")
            self._took(found)
        except ConfigurationError as error:
            self._refuse(str(error))
        if self._again:
            self._again = False
            self.begin(selector)

    def _took(self, found: Configuration) -> None:
        """Take a good configuration over.

        Raises:
            ConfigurationError: a part cannot go by it, such as one that names a user whom this host does not have.
        """
        changed = changed_keys(self.configuration, found)
        self.take(found)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.configuration, self._stamp, self._problem = found, self._judged_stamp, None
        self._loaded_ns = time.time_ns()
        self._times += 1
        waiting = [key for key in changed if effect_of(key).roles]
        self._pending |= dict.fromkeys(waiting, now)
        # What only this process goes by, and is as it was when it started, waits no more; others may have started since.
        same = self._pending.keys() - changed_keys(self._started_with, found)
        for key in [key for key in same if effect_of(key).roles == ("daemon",)]:
            del self._pending[key]
        self._say(f"capd daemon: {_words(changed, waiting)}")

    def _refuse(self, problem: str) -> None:
        self._times += 1
        lines = problem.splitlines()
        self._problem = "\n".join(lines[:PROBLEM_LINES_MAX])
        for line in lines[:PROBLEM_LINES_MAX]:
            self._say(f"capd daemon: the configuration is refused, what was in force stays: {line}")


def _words(changed: list[str], waiting: list[str]) -> str:
    if not changed:
        return "the configuration was read again and is the same"
    taken = [key for key in changed if key not in waiting]
    told = [f"in effect now: {', '.join(taken)}"] if taken else []
    for key in waiting:
        units = " ".join(UNITS[role] for role in effect_of(key).roles)
        told.append(f"{key} waits for `systemctl restart {units}`")
    return f"the configuration was taken over; {'; '.join(told)}"
