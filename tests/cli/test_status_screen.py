"""`capd status` on a terminal: all that an operator asks for, on one screen, and a line for each thing that is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from capd.cli import status
from capd.cli.line import plain
from capd.daemon.alert_kinds import Alert

LINES_MAX = 40
"""Of a usual host: a terminal of today shows as many."""
FEW = 24
"""Of a host that has nothing but what it has without a configuration."""
NOW_NS = 1_700_000_000 * 10**9

BARE: dict[str, Any] = {
    "health": "healthy",
    "reasons": [],
    "roles": {
        "daemon": {"state": "running", "pid": 11},
        "recorder": {"state": "running", "pid": 12, "lag_bytes": 0, "sessions_open": 3, "sessions_total": 120},
        "metrics": {"state": "running", "pid": 13},
    },
    "disk": {"state_dir": "/var/lib/capd", "free_bytes": 50 << 30, "total_bytes": 100 << 30},
    "version": "9.8.7",
    "tier": "modern",
    "warnings": [],
    "rings": {"control": {"bytes": 4 << 20, "used": 0}, "data": {"bytes": 64 << 20, "used": 5}},
    "drained": {"bytes": 1 << 30, "records": 777},
    "journal": {"backlog_bytes": 1 << 20, "bytes_max": 8 << 30},
    "losses": {"bytes": 0, "streams": 0, "counters": {}},
    "attachments": [{"path": f"/usr/lib/libssl.so.{number}"} for number in range(2)],
    "attach_failures": [],
    "withheld": {"runs": 0, "attach_failures": 0},
    "storage": {
        "state": "ok",
        "described": "50 GiB free",
        "held": 0,
        "problems": [],
        "seconds_until_full": None,
    },
    "configuration": {"files": ["/etc/capd/capd.toml"], "problem": None, "changed_on_disk": False, "pending": []},
    "clock": {"synchronised": True, "error_seconds": 0.004},
    "enforcement": {"mode": "off"},
    "runs": [],
}
SHIPPER = {
    "state": "running",
    "pid": 14,
    "bucket": "s3://recordings",
    "backlog": {"segments": 2, "bytes": 5 << 20},
    "oldest_unshipped_seconds": 7.0,
    "last_success": 1e9,
    "object_lock": {"enabled": True, "mode": "COMPLIANCE", "days": 365},
    "catalogue": {"through": 41, "waiting": 1},
}
ENFORCER = {
    "state": "running",
    "pid": 15,
    "approvals": {"pending": 2},
    "callbacks": {
        "webhooks": [
            {"name": "chat", "delivered": 5, "waiting": 0, "failed": 0, "dropped": 0, "last_error": ""},
        ]
    },
}
ENFORCEMENT = {
    "mode": "enforce",
    "problem": None,
    "canary": {"time_ns": NOW_NS, "result": "closed"},
    "namespaces": {"known": [{"problem": None}]},
    "refused": {"table": {"tcp": 4}, "programs": {}},
}


def run(number: int) -> dict[str, Any]:
    """Give a live run."""
    return {
        "run": f"0197f3a4-b5c6-7000-8000-{number:012}",
        "name": "agent",
        "principal": {"name": "ann"},
        "processes": 3,
        "cgroup": f"/capd-agents.slice/agent-{number}.service",
    }


def usual() -> dict[str, Any]:
    """Give the status of a host with everything: a bucket, enforcement, approvals, some runs."""
    found = copy.deepcopy(BARE)
    found["roles"] |= {"shipper": SHIPPER, "enforcer": ENFORCER}
    found["enforcement"] = ENFORCEMENT
    found["runs"] = [run(number) for number in range(5)]
    return found


def screen(found: dict[str, Any], columns: int | None = 120) -> list[str]:
    """Give what a terminal shows."""
    return [plain(line) for line in status.lines(found, columns)]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("verdict", "capd is healthy"),
        ("roles", "running (pid 11)"),
        ("the enforcer", "running (pid 15)"),
        ("tier", "modern"),
        ("version", "capd 9.8.7"),
        ("coverage", "2 TLS libraries watched, none that cannot be"),
        ("loss", "lost        nothing"),
        ("runs", "runs        5 live"),
        ("a run", "/capd-agents.slice/agent-4.service"),
        ("sessions", "3 open, 120 since the recorder started"),
        ("mode and canary", "enforce: closed, tried"),
        ("approvals", "2 wait for a person: capd approvals"),
        ("webhooks", "chat: 5 delivered, 0 waiting"),
        ("storage", "ok: 50 GiB free"),
        ("bucket", "s3://recordings, object lock COMPLIANCE for 365 days"),
        ("bucket backlog", "2 segments"),
        ("clock", "kept right, to 0.004 s"),
        ("configuration", "/etc/capd/capd.toml"),
    ],
)
def test_what_an_operator_asks_for_is_there(item: str, words: str) -> None:
    """Each thing that an operator wants to know of a usual host is on the screen."""
    assert words in "\n".join(screen(usual())), item


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"storage": {"seconds_until_full": 7_500}}, "full in 2 h 5 min at the present rate"),
        ({"storage": {"seconds_until_full": 400_000}}, "full in 4 days at the present rate"),
        (
            {"clock": {"synchronised": False, "error_seconds": None}},
            "not kept right: times in the record may be off; `timedatectl",
        ),
        ({"clock": {"synchronised": None, "error_seconds": None}}, "the kernel does not say"),
        ({"configuration": {"changed_on_disk": True}}, "changed on disk since: `systemctl reload capd`"),
        (
            {"configuration": {"pending": [{"key": "bucket.region", "roles": ["shipper"]}]}},
            "bucket.region waits for `systemctl restart capd-shipper`",
        ),
        ({"configuration": {"files": []}}, "no file, defaults"),
        ({"attach_failures": ["/opt/x: no symbols"]}, "1 cannot be watched: their sessions are opaque"),
        ({"attach_failures": ["/opt/x: no symbols"]}, "not watched: /opt/x: no symbols"),
        ({"losses": {"bytes": 2048, "streams": 1, "counters": {"ring_full": 3}}}, "2.0 KiB of 1 streams (ring_full 3)"),
    ],
)
def test_what_is_not_as_usual_is_there(changes: dict[str, Any], words: str) -> None:
    """What differs from a usual host is on the screen, with what to do about it."""
    found = usual()
    for key, value in changes.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    assert words in "\n".join(screen(found)), screen(found)


@pytest.mark.parametrize("alert", list(Alert))
def test_each_thing_that_is_wrong_has_its_line_and_what_to_do(alert: Alert) -> None:
    """Whatever the reason, it is at the top with its next step below it."""
    found = usual() | {"health": "degraded"}
    found["reasons"] = [{"alert": alert, "severity": "warning", "reason": f"because of {alert}", "next_step": f"mend {alert}"}]
    assert ["capd is degraded", f"  ! because of {alert}", f"    mend {alert}"] == screen(found)[:3]


def test_it_is_one_screen() -> None:
    """A usual host fits into one screen, a bare one into a small one, and a thousand of anything adds no second."""
    bare, everything = screen(BARE), screen(usual())
    assert len(bare) <= FEW, "\n".join(bare)
    assert len(everything) <= LINES_MAX, "\n".join(everything)
    many = usual()
    many["runs"] = [run(number) for number in range(1000)]
    many["attachments"] *= 500
    many["attach_failures"] = ["/opt/x: no symbols"] * 1000
    assert len(screen(many)) <= LINES_MAX + 15
    assert [] == [line for line in screen(many, 80) if len(line) > 160]
