"""Metrics: every figure of a status, its page in docs, and what is built on its name."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from capd.daemon.alert_kinds import KINDS, Alert
from capd.daemon.metrics import FIGURES, PROBE_COUNTERS, Type, exposition
from tests.packaging_module import packaging_module
from tests.requirements import require_command

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
RULES = REPOSITORY / "packaging" / "prometheus" / "capd.rules.yml"
DASHBOARD = REPOSITORY / "packaging" / "grafana" / "capd.json"
HOSTILE = 'zq"} 1\ncapd_lost_bytes_total 0\n# TYPE x\\'

STATUS: dict[str, Any] = {
    "health": "degraded",
    "reasons": [{"alert": "shipper-late", "severity": "warning", "reason": HOSTILE, "next_step": HOSTILE}],
    "version": "0.1.0",
    "tier": "modern",
    "started_ns": 5_000_000_000,
    "roles": {
        "daemon": {"state": "running", "pid": 1},
        "recorder": {
            "state": "running",
            "age_seconds": 0.5,
            "lag_bytes": 7,
            "lag_seconds": 0.25,
            "sessions_open": 2,
            "sessions_total": 9,
            "sessions_evicted": 0,
            "messages": 11,
            "records": 12,
            "segments": 3,
            "damages": 0,
            "blocks_malformed": 0,
            "rss_bytes": 1 << 25,
            "witness": {
                "verdicts": 5,
                "undecided": 1,
                "unseen": 0,
                "differing": HOSTILE,
                "incomparable": 2,
                "digested": 3,
                "missing": 5,
                "log": {"damages": 1, "missing_files": 2},
            },
            "masking": {"failed": 2, "latest": "session a: b", "latest_ns": 5},
            "secrets": {"seen_total": 1, "searched_bytes": 1 << 20, "unsearched_bytes": 7, "problem": HOSTILE},
            "errors": [HOSTILE],
        },
        "enforcer": {
            "state": "running",
            "age_seconds": 1.0,
            "approvals": {"pending": 2, "problem": HOSTILE},
            "certificates": [
                {"kind": "authority", "name": HOSTILE, "until": 2e9},
                {"kind": "client", "name": HOSTILE, "until": HOSTILE},
                {"kind": "client", "name": HOSTILE, "until": 3e9},
                {"kind": HOSTILE, "name": HOSTILE, "until": 1e9},
                HOSTILE,
            ],
            "callbacks": {
                "webhooks": [
                    {
                        "name": HOSTILE,
                        "delivered": 3,
                        "retried": 1,
                        "failed": 0,
                        "dropped": 0,
                        "waiting": 2,
                        "failing_since": 5.0,
                    },
                    {"name": "b", "delivered": 4, "retried": 0, "failed": 1, "dropped": 0, "waiting": 0, "failing_since": None},
                    HOSTILE,
                ],
                "links": {"shown": 9, "decided": 2, "refused": 3, "why": {"host": HOSTILE}},
            },
        },
        "shipper": {
            "state": "retrying",
            "age_seconds": 0.5,
            "bucket": HOSTILE,
            "backlog": {"segments": 4, "bytes": 4096},
            "oldest_unshipped_seconds": 61.5,
            "last_success": 1e9,
            "errors": 5,
            "requests": 6,
            "last_error": {"message": HOSTILE, "failing_seconds": 33.0},
            "shipped": {"segments": 1, "bytes": 2, "found": 3},
            "conflicts": [HOSTILE],
            "unshippable": [],
            "local": {"segments": 1, "bytes": 2, "released_segments": 3, "released_bytes": 4},
            "retention": {"segments": 0, "bytes": 0, "holds": 1, "error": None},
            "catalogue": {"possible": True, "waiting": 2},
        },
        "metrics": {"state": "running", "age_seconds": 1.0, "untold": 0},
    },
    "disk": {"state_dir": HOSTILE, "free_bytes": 10, "total_bytes": 20},
    "rings": {"control": {"bytes": 64, "used": 1}, "data": {"bytes": 128, "used": 2}},
    "drained": {"records": 1, "bytes": 2, "discarded_bytes": 3},
    "losses": {"bytes": 4, "streams": 1, "counters": {"ring_full_bytes": 4}, "changed_ns": 2_000_000_000},
    "counters": dict.fromkeys(PROBE_COUNTERS, 1),
    "attachments": [{"path": HOSTILE}],
    "attach_failures": [HOSTILE],
    "unselected": [],
    "runs": [{"name": HOSTILE, "cgroup": HOSTILE, "labels": {HOSTILE: HOSTILE}}],
    "withheld": {"runs": 2, "attachments": 0, "attach_failures": 3, "unselected": 1, "problems": 2},
    "journal": {"backlog_bytes": 500, "bytes_max": 1000, "stopped": None},
    "clock": {"synchronised": True, "error_seconds": 0.01},
    "configuration": {"problem": HOSTILE},
    "storage": {
        "fills_bytes_per_second": 1000,
        "seconds_until_full": 7200,
        "state": "low",
        "free_inodes": 5,
        "reserve_bytes": 6,
        "held": 0,
        "refused": 0,
        "problems": [],
    },
}

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(document: dict[str, Any]) -> Samples:
    """Give what a scraper would read: name and values of labels, and the value."""
    found: Samples = {}
    for family in text_string_to_metric_families(exposition(document).decode("utf-8")):
        for sample in family.samples:
            key = sample.name, tuple(value for _, value in sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def names(found: Samples) -> set[str]:
    """Give the names of metrics."""
    return {name for name, _ in found}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("capd_info", ("modern", "0.1.0"), 1),
        ("capd_health", ("degraded",), 1),
        ("capd_health", ("healthy",), 0),
        ("capd_alert_active", ("shipper-late", "warning"), 1),
        ("capd_webhook_delivered_messages_total", (), 7),
        ("capd_webhook_waiting_messages", (), 2),
        ("capd_webhooks_failing", (), 1),
        ("capd_links_decided_total", (), 2),
        ("capd_links_refused_total", (), 3),
        ("capd_alert_active", ("bytes-lost", "critical"), 0),
        ("capd_role_up", ("shipper",), 1),
        ("capd_start_timestamp_seconds", (), 5),
        ("capd_ring_used_bytes", ("data",), 2),
        ("capd_lost_bytes_total", (), 4),
        ("capd_losses_total", ("ring_full_bytes",), 4),
        ("capd_losses_total", ("map_full",), 0),
        ("capd_last_loss_timestamp_seconds", (), 2),
        ("capd_runs", (), 3),
        ("capd_coverage_gaps", (), 4),
        ("capd_unselected_cgroups", (), 1),
        ("capd_storage_problems", (), 2),
        ("capd_storage_state", ("low",), 1),
        ("capd_journal_draining", (), 1),
        ("capd_recorder_lag_seconds", (), 0.25),
        ("capd_shipper_backlog_bytes", (), 4096),
        ("capd_shipper_oldest_unshipped_seconds", (), 61.5),
        ("capd_shipper_failing", (), 1),
        ("capd_shipper_conflicts", (), 1),
        ("capd_disk_until_full_seconds", (), 7200),
        ("capd_retention_failing", (), 0),
    ],
)
def test_figures(name: str, labels: tuple[str, ...], value: float) -> None:
    """Each figure of a status is a sample of its metric, in base units."""
    assert value == samples(STATUS)[name, labels]


def test_a_whole_status_gives_every_metric() -> None:
    """Nothing stands in the table that no status gives."""
    assert {figure.name for figure in FIGURES} == names(samples(STATUS))


def test_names_are_as_prometheus_wants_them() -> None:
    """Every name has the prefix; counters and nothing else end in `_total`; units are base units; none comes twice."""
    listed = [figure.name for figure in FIGURES]
    assert len(listed) == len(set(listed))
    assert [] == [name for name in listed if not re.fullmatch(r"capd_[a-z][a-z_]*[a-z]", name)]
    assert [] == [figure.name for figure in FIGURES if (figure.type is Type.COUNTER) != figure.name.endswith("_total")]
    assert [] == [name for name in listed if re.search(r"_(ms|ns|kb|mb|mib|minutes|hours|percent|count)(_|$)", name)]


def test_what_is_not_known_is_left_out() -> None:
    """A daemon that is down has no figures, and a shipper that nothing waits for has an age of 0 and no time until full."""
    down = {"health": "down", "reasons": [{"alert": "daemon-down"}], "roles": {"daemon": {"state": "down"}}, "disk": {}}
    found = samples(down)
    assert {"capd_health", "capd_alert_active", "capd_role_up"} == names(found)
    assert (1, 0) == (found["capd_alert_active", ("daemon-down", "critical")], found["capd_role_up", ("daemon",)])
    idle = {**STATUS["roles"]["shipper"], "oldest_unshipped_seconds": None}
    found = samples({"roles": {"shipper": idle}, "storage": {"seconds_until_full": None}})
    assert 0 == found["capd_shipper_oldest_unshipped_seconds", ()]
    assert "capd_disk_until_full_seconds" not in names(found)


def test_what_others_chose_is_in_no_line() -> None:
    """Names of runs, paths, labels and errors that look like metrics appear nowhere."""
    text = exposition(STATUS).decode("utf-8")
    assert 1 == text.count("\ncapd_lost_bytes_total ")
    assert "zq" not in text


WORDS = {"capd_info", "capd_health", "capd_alert_active", "capd_role_up", "capd_storage_state", "capd_clock_synchronised"}
"""Metrics of what is no number."""
FLAGS = {"capd_journal_draining", "capd_shipper_failing", "capd_retention_failing", "capd_configuration_refused"}
KNOWN = {key for key in samples(STATUS) if key[0] != "capd_info"}
COUNTERS = {figure.name for figure in FIGURES if figure.type is Type.COUNTER}


def everywhere(value: object, document: object = STATUS) -> Any:  # noqa: ANN401 - JSON
    """Put a value wherever there is one."""
    return {key: everywhere(value, inner) for key, inner in document.items()} if isinstance(document, dict) else value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, True, "1", None, [], {}, [1], {"a": 1}, HOSTILE])
def test_what_is_no_finite_number_gives_no_figure(value: object) -> None:
    """Where something else stands than a finite number there is no sample, but that a list is counted and null may mean 0."""
    counted = {figure.name for figure in FIGURES if isinstance(value, list) and ("count" in figure.read.__qualname__)}
    found = {key: number for key, number in samples(everywhere(value)).items() if key[0] not in WORDS | FLAGS | counted}
    assert set() == {(key, number) for key, number in found.items() if number != 0}
    assert names(found) <= {"capd_losses_total", "capd_shipper_oldest_unshipped_seconds"}


def test_no_counter_is_below_zero() -> None:
    """A report with negative numbers has no counters: they would have gone backwards."""
    assert set() == names(samples(everywhere(-1))) & (COUNTERS - {"capd_losses_total"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -1, HOSTILE, "down"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(sorted(STATUS)), inner, max_size=3),
    max_leaves=10,
)
PLACES: list[tuple[str, ...]] = [(key,) for key in STATUS]
PLACES += [("roles", role) for role in STATUS["roles"]]
PLACES += [("roles", role, key) for role, report in STATUS["roles"].items() for key in report]


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_a_report_of_any_shape_gives_good_metrics(place: tuple[str, ...], value: object) -> None:
    """Whatever a role without rights reports, a scraper reads known names and labels, finite numbers, no counter below 0."""
    document: Any = json.loads(json.dumps(STATUS))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    for (name, labels), number in samples(document).items():
        assert math.isfinite(number)
        assert number >= 0 or name not in COUNTERS
        assert (name, labels) in KNOWN or name == "capd_info"


def test_the_page_lists_what_is_exposed() -> None:
    """docs/metrics.md has one row for each metric, with its type, labels and meaning, and no other."""
    rows = re.findall(r"^\| `(capd_[a-z_]+)` \| (\w+) \| ([^|]*) \| (.*) \|$", PAGE, re.MULTILINE)
    expected = [
        (figure.name, figure.type.value, ", ".join(f"`{label}`" for label in figure.labels), figure.meaning.rstrip("."))
        for figure in FIGURES
    ]
    assert expected == rows


def test_the_page_lists_every_alert() -> None:
    """docs/metrics.md has one row for each alert, with its severity and message id; no two share an id."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (critical|warning) \| `([0-9a-f]{32})` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [(alert, kind.severity, kind.message_id.hex, kind.meaning) for alert, kind in KINDS.items()] == rows
    assert len(Alert) == len({kind.message_id for kind in KINDS.values()}) == len(KINDS)


def test_journald_takes_the_catalogue(tmp_path: Path) -> None:
    """The catalogue that is packaged has an entry for each alert, and systemd's own program takes all of it in."""
    require_command("journalctl")
    module = packaging_module("journal_catalogue")
    place = tmp_path / module.PLACE
    place.parent.mkdir(parents=True)
    place.write_text(module.text(), encoding="utf-8")
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    done = subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True, check=True
    ).stdout
    found = dict(re.findall(r"^([0-9a-f]{32}) capd: capd: the alert ([a-z-]+) ", listed, re.MULTILINE))
    assert {kind.message_id.hex: alert.value for alert, kind in KINDS.items()} == found


def test_rules_name_only_what_exists() -> None:
    """The rules for Prometheus use only metrics, and names of alerts, that there are."""
    text = RULES.read_text(encoding="utf-8")
    assert set() == set(re.findall(r"\bcapd_[a-z_]+", text)) - {figure.name for figure in FIGURES}
    (excluded,) = re.findall(r'alert!~"([a-z|-]+)"', text)
    assert set() == set(excluded.split("|")) - set(Alert)


def test_dashboard_names_only_what_exists() -> None:
    """Each panel of the dashboard asks for metrics and labels that there are, at a place of its own."""
    board = json.loads(DASHBOARD.read_bytes())
    assert board["panels"]
    labels = {label for figure in FIGURES for label in figure.labels} | {"instance"}
    for panel in board["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"] not in {"Bps", "decbytes"}, panel["title"]  # thousands, beside KiB
        for target in panel["targets"]:
            asked = set(re.findall(r"\bcapd_[a-z_]+", target["expr"]))
            assert asked
            assert set() == asked - {figure.name for figure in FIGURES}
            assert set() == set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - labels
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in board["panels"]]
    assert len(places) == len(set(places)) == len({panel["id"] for panel in board["panels"]})


def test_dashboard_tells_now_and_colours_nothing_that_is_not_known() -> None:
    """A figure of the dashboard is that of now, not the last of a silent host; where there is none the colour is no verdict."""
    stats = [panel for panel in json.loads(DASHBOARD.read_bytes())["panels"] if panel["type"] == "stat"]
    assert stats
    for panel in stats:
        assert {(target.get("instant"), target.get("range")) for target in panel["targets"]} == {(True, False)}, panel["title"]
        assert panel["options"]["textMode"] == "value_and_name"  # `auto` leaves the host out where one alone has a figure
        nothing, *verdicts = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert nothing["value"] is None
        assert verdicts[0]["value"] == 0, panel["title"]
        assert nothing["color"] not in {verdict["color"] for verdict in verdicts}
