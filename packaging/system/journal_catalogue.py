"""What `journalctl -x` shows beside capd's lines in the journal, made from the table of alerts.

What lives here: the form of the catalogue. What must not: what an alert means (daemon/alert_kinds.py).

Source: systemd.io/CATALOG. A distribution's package of systemd takes the file in when it appears; by hand: `journalctl
--update-catalog`.
"""

from __future__ import annotations

from pathlib import Path

from capd.daemon.alert_kinds import KINDS, Alert, Kind

PLACE = Path("usr/lib/systemd/catalog/capd.catalog")
PAGE = "file:///usr/share/doc/capd/metrics.md"


def text() -> str:
    """Give the whole file."""
    return "\n".join(_entry(alert, kind) for alert, kind in KINDS.items())


def _entry(alert: Alert, kind: Kind) -> str:
    """Give an alert's entry; what stands between @ is filled in from the line's own fields."""
    return f"""\
-- {kind.message_id.hex}
Subject: capd: the alert {alert} @CAPD_ALERT_STATE@
Defined-By: capd
Support: {PAGE}
Documentation: {PAGE}

It stands for this: {kind.meaning}.

Here: @CAPD_REASON@

To do: @CAPD_NEXT_STEP@

Severity: {kind.severity}. `capd status` shows what is so now; an alert that ended needs nothing done.
"""
