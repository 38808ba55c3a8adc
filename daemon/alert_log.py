"""The line that tells that an alert begins or ends.

What lives here: its words and fields, and where it goes: to journald if standard error does, else to standard error.
What must not: when something is told (alerting.py).

A reason may quote what a bucket or a recorder said, and a log is read in terminals and by programs that go by lines: it is one
line, of characters that can be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from capd.daemon import journald
from capd.daemon.alert_kinds import KINDS, Severity
from capd.daemon.alerting import Change

IDENTIFIER: Final = "capd"
PRIORITIES: Final = {Severity.CRITICAL: 2, Severity.WARNING: 4}
"""syslog(3): LOG_CRIT, LOG_WARNING."""
NOTICE: Final = 5
TEXT_CHARACTERS_MAX: Final = 1000
"""Of a reason: enough for every one of ours, with an error of a bucket in it."""
INVISIBLE: Final = "\N{REPLACEMENT CHARACTER}"


def visible(text: str) -> str:
    """Give a text without what steers a terminal or ends a line, and of bounded length."""
    shown = text[:TEXT_CHARACTERS_MAX]
    return "".join(character if character.isprintable() else INVISIBLE for character in shown)


def message(change: Change) -> str:
    """Give the change as one line for people."""
    reason = change.active.reason
    if change.begins:
        return visible(f"alert {reason.alert} begins ({reason.severity}): {reason.reason}; {reason.next_step}")
    return visible(f"alert {reason.alert} ends after {change.seconds:.0f} s; it was: {reason.reason}")


def fields(change: Change) -> dict[str, str]:
    """Give the change as the fields of a journald entry (docs/metrics.md)."""
    reason = change.active.reason
    return {
        "MESSAGE": message(change),
        "MESSAGE_ID": KINDS[reason.alert].message_id.hex,
        "PRIORITY": str(PRIORITIES[reason.severity] if change.begins else NOTICE),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CAPD_ALERT": reason.alert,
        "CAPD_ALERT_STATE": "begins" if change.begins else "ends",
        "CAPD_SEVERITY": reason.severity,
        "CAPD_REASON": visible(reason.reason),
        "CAPD_NEXT_STEP": visible(reason.next_step),
        "CAPD_SINCE": f"{change.active.since:.3f}",
        "CAPD_SECONDS": f"{change.seconds:.0f}",
    }


class AlertLog:
    """Writes the lines."""

    def __init__(self, stream: str | None, send: Callable[[bytes], None] = journald.send) -> None:
        """Take JOURNAL_STREAM of the environment, and how journald is told."""
        self._stream, self._send = stream, send

    def write(self, change: Change) -> None:
        """Tell a change once.

        Raises:
            OSError: nobody takes it.
        """
        if journald.receives(sys.stderr.fileno(), self._stream):
            try:
                self._send(journald.entry(fields(change)))
                return
            except OSError:  # the stream that it reads may still be there
                pass
        sys.stderr.write(f"{IDENTIFIER}: {message(change)}\n")
        sys.stderr.flush()
