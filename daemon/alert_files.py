"""Alerts as files: one for each, for as long as it lasts.

What lives here: their form, writing, removing and reading them. What must not: when there is an alert (alerting.py).

They are for programs that page people: a role of capd may start nothing, so it leaves a file, and whoever may start something
watches the directory. And they are what a restarted role knows of what was told before, so that nothing is told twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from capd.daemon.alert_kinds import KINDS, Alert
from capd.daemon.alert_log import visible
from capd.daemon.alerting import Active
from capd.daemon.reason import Reason
from capd.recording.durable import read_regular, replace_content

BYTES_MAX: Final = 64 << 10
MODE: Final = 0o644
"""Whoever may ask for the status may know this."""


def path_of(directory: Path, alert: Alert) -> Path:
    """Say where an alert's file is."""
    return directory / f"{alert}.json"


def write(directory: Path, active: Active) -> None:
    """Leave the file of an alert that begins.

    Raises:
        OSError: it cannot be written.
    """
    reason = active.reason
    content = {
        "alert": reason.alert,
        "severity": reason.severity,
        "since": active.since,
        "reason": visible(reason.reason),
        "next_step": visible(reason.next_step),
        "message_id": KINDS[reason.alert].message_id.hex,
    }
    replace_content(path_of(directory, reason.alert), json.dumps(content, indent=1).encode() + b"\n", mode=MODE, sync=False)


def remove(directory: Path, alert: Alert) -> None:
    """Remove the file of an alert that ended.

    Raises:
        OSError: it cannot be removed.
    """
    path_of(directory, alert).unlink(missing_ok=True)


def load(directory: Path) -> dict[Alert, Active]:
    """Give what was told and had not ended; a file that says something else is no alert."""
    found = {alert: _read(path_of(directory, alert), alert) for alert in Alert}
    return {alert: active for alert, active in found.items() if active is not None}


def _read(path: Path, alert: Alert) -> Active | None:
    try:
        content = json.loads(read_regular(path, BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    match content:
        case {"since": int() | float() as since, "reason": str(reason), "next_step": str(next_step)}:
            return Active(since=since, reason=Reason(alert=alert, reason=reason, next_step=next_step))
    return None
