"""Health: a table of facts and verdicts."""

from __future__ import annotations

import json
import os
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import health, status_facts
from capd.daemon.alert_kinds import Alert
from capd.daemon.configuration import Configuration
from capd.daemon.control import ControlServer, Peer, Verb
from capd.daemon.enforcer_facts import EnforcerFacts
from capd.daemon.health import (
    DaemonFacts,
    Facts,
    ShipperFacts,
    StorageFacts,
    Verdict,
)
from capd.daemon.health_enforcement import CANARY_NS_STALE, EnforcementFacts
from capd.daemon.health_masking import MaskingFacts
from capd.daemon.health_secrets import SecretFacts
from capd.daemon.health_upkeep import Certificate, UpkeepFacts
from capd.daemon.health_witness import WitnessFacts
from capd.daemon.reason import LOSS_NS_RECENT
from capd.daemon.status import _reported, gather
from tests.daemon.conftest import in_namespace

DAEMON = DaemonFacts(
    stopped=None,
    lost_bytes=0,
    lost_records={},
    lost_ns=None,
    attach_failures=0,
    unselected=0,
    storage=StorageFacts(),
    backlog_bytes=0,
    backlog_bytes_max=1000,
)
GOOD = Facts(
    daemon=DAEMON,
    unreachable="",
    recorder_running=True,
    recorder_seconds=0.5,
    recorder_state="running",
    state_dir="/state",
    now_ns=10**15,
)


def with_daemon(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Change the daemon's facts."""
    return replace(GOOD, daemon=replace(DAEMON, **changes))


def with_upkeep(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Change what needs somebody's hand some day."""
    return replace(GOOD, upkeep=UpkeepFacts(**changes))


def certificate(days: float) -> Certificate:
    """Give a certificate that ends in so many days."""
    return Certificate(kind="client", name="it", until=GOOD.now_ns / 1e9 + days * 86_400)


SHIPPER = ShipperFacts(
    running=True,
    seconds=0.5,
    segments=0,
    bytes=0,
    oldest_seconds=None,
    late_seconds=60.0,
    failing_seconds=None,
    error="",
    hint="",
    conflicts=0,
    unshippable=0,
)


def with_shipper(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Configure a bucket, and change the shipper's facts."""
    return replace(GOOD, shipper=replace(SHIPPER, **changes))


def with_enforcement(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Enforce, and change what the daemon says of it."""
    return with_daemon(enforcement=EnforcementFacts(**{"mode": "enforce", **changes}))


def with_enforcer(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Have an enforcer, and change what it says of itself."""
    enforcer = EnforcerFacts(running=True, seconds=0.5, unlogged=0, policy_problem=None)
    return replace(GOOD, enforcer=replace(enforcer, **changes))


def with_secrets(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Give facts with this of looking for credentials."""
    return replace(GOOD, secrets=SecretFacts(**changes))


def with_masking(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Give facts with this of masking."""
    return replace(GOOD, masking=MaskingFacts(**changes))


def with_witness(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Change what came of comparing probes and enforcer."""
    return replace(GOOD, witness=WitnessFacts(**changes))


CASES = [
    (GOOD, Verdict.HEALTHY, ""),
    (replace(GOOD, daemon=None, unreachable="nobody answers"), Verdict.DOWN, "nobody answers"),
    (with_daemon(stopped="journal full: 8 MiB"), Verdict.DEGRADED, "not draining: journal full"),
    (with_daemon(lost_bytes=7, lost_ns=10**15 - 10**9), Verdict.DEGRADED, "7 bytes of agents' streams lost, the last 1 s ago"),
    (with_daemon(lost_bytes=7, lost_ns=10**15 - LOSS_NS_RECENT), Verdict.HEALTHY, ""),
    (with_daemon(lost_records={"map_full": 3}, lost_ns=10**15), Verdict.DEGRADED, "map_full 3"),
    (with_daemon(attach_failures=2), Verdict.DEGRADED, "2 TLS libraries cannot be watched"),
    (with_daemon(unselected=1), Verdict.DEGRADED, "1 cgroups that a selector names are not recorded"),
    (
        with_daemon(configuration_problem="a:1: k: no such key\nmore"),
        Verdict.DEGRADED,
        "what was in force stays: a:1: k: no such key (and 1 more)",
    ),
    (replace(GOOD, configuration_on_disk=""), Verdict.HEALTHY, ""),
    (
        replace(GOOD, configuration_on_disk="a:1: k: no such key"),
        Verdict.DEGRADED,
        "wrong, what was in force stays: a:1: k: no such key",
    ),
    (
        replace(with_daemon(configuration_problem="a:1: old"), configuration_on_disk="a:2: new"),
        Verdict.DEGRADED,
        "stays: a:2: new",
    ),
    (
        replace(with_daemon(configuration_problem="a:1: old"), configuration_on_disk=""),
        Verdict.DEGRADED,
        "it has been mended since",
    ),
    (with_upkeep(certificates=(certificate(31),)), Verdict.HEALTHY, ""),
    (with_upkeep(certificates=(certificate(29), certificate(12))), Verdict.DEGRADED, "it ends in 12 days, and 1 more"),
    (with_upkeep(certificates=(certificate(-2), certificate(50))), Verdict.DEGRADED, "it is over since 2 days"),
    (with_upkeep(version="2", versions={"daemon": "2", "recorder": "2"}), Verdict.HEALTHY, ""),
    (with_upkeep(version="2", versions={"daemon": "2", "recorder": "1"}), Verdict.DEGRADED, "installed: the recorder is 1"),
    (with_upkeep(seconds_until_full=3601), Verdict.HEALTHY, ""),
    (with_upkeep(seconds_until_full=3599), Verdict.DEGRADED, "full in 60 minutes"),
    (with_daemon(backlog_bytes=500), Verdict.HEALTHY, ""),
    (with_daemon(backlog_bytes=501), Verdict.DEGRADED, "behind"),
    (replace(GOOD, recorder_running=False), Verdict.DEGRADED, "the recorder does not run"),
    (replace(GOOD, recorder_seconds=None), Verdict.DEGRADED, "has never reported"),
    (replace(GOOD, recorder_seconds=11.0), Verdict.DEGRADED, "for 11 s not reported"),
    (replace(GOOD, recorder_state="disk full"), Verdict.DEGRADED, "the recorder says: disk full"),
    (with_enforcer(), Verdict.HEALTHY, ""),
    (with_enforcer(exported_seconds=3.0), Verdict.DEGRADED, "more by a database than a rule's limit for exports"),
    (with_enforcer(exported_seconds=601.0), Verdict.HEALTHY, ""),
    (replace(with_enforcement(mode="enforce"), witness=WitnessFacts(enforced=False)), Verdict.DEGRADED, "compares nothing"),
    (replace(with_enforcement(mode="enforce"), witness=WitnessFacts(enforced=True)), Verdict.HEALTHY, ""),
    (with_enforcement(namespaces="KeyError(7)"), Verdict.DEGRADED, "such as containers, may reach nothing: KeyError(7)"),
    (with_witness(enforced=False), Verdict.HEALTHY, ""),
    (with_witness(undecided=2, alarmed_ns=10**15 - 1), Verdict.DEGRADED, "of runs: 2 without a decision"),
    (with_witness(unseen=1, differing=3, alarmed_ns=10**15 - 1), Verdict.DEGRADED, "1 that no probe saw, 3 whose bytes differ"),
    (with_witness(unseen=1, alarmed_ns=10**15 - LOSS_NS_RECENT), Verdict.HEALTHY, ""),
    (with_witness(damages=1, damaged_ns=10**15 - 1), Verdict.DEGRADED, "1 parts of the decision log could not be read"),
    (
        with_witness(requests=2, unknown=1, alarmed_ns=10**15),
        Verdict.DEGRADED,
        "2 whose requests differ, 1 whose",
    ),
    (
        with_secrets(seen_ns=10**15 - 1, latest="key in session a of run b"),
        Verdict.DEGRADED,
        "heard: key in session a",
    ),
    (with_secrets(seen_ns=10**15 - LOSS_NS_RECENT), Verdict.HEALTHY, ""),
    (
        with_masking(failed=2, latest_ns=10**15 - 1, latest="session a: KeyError in b"),
        Verdict.DEGRADED,
        "of 2 sessions: session a: Key",
    ),
    (with_masking(failed=2, latest_ns=10**15 - LOSS_NS_RECENT), Verdict.HEALTHY, ""),
    (
        with_secrets(unsearched_ns=10**15 - 1, unsearched_bytes=5, problem="nobody answers"),
        Verdict.DEGRADED,
        "5 bytes of what agents said were not searched for credentials: nobody answers",
    ),
    (with_witness(missing=4, missing_files=1, damaged_ns=10**15), Verdict.DEGRADED, "4 entries of it are missing, 1 files"),
    (replace(GOOD, policy_problem="x.yaml:1: no\nmore"), Verdict.DEGRADED, "the policy on disk is not in force: x.yaml:1: no"),
    (replace(GOOD, policy_problem="no", policy_known=False), Verdict.DEGRADED, "no words of agents are recorded until it is"),
    (with_enforcer(running=False), Verdict.DEGRADED, "the enforcer does not run"),
    (with_enforcer(seconds=11.0), Verdict.DEGRADED, "the enforcer has not reported"),
    (with_enforcer(approvals_problem="it is full"), Verdict.DEGRADED, "nobody can be asked to approve anything: it is full"),
    (
        with_enforcer(callbacks_problem="bot is gone"),
        Verdict.DEGRADED,
        "not everybody is told what waits for approval: bot is gone",
    ),
    (with_enforcer(unlogged=3), Verdict.DEGRADED, "3 decisions could not be written down"),
    (with_enforcer(policy_problem="x.yaml:1: no\nmore"), Verdict.DEGRADED, "not in force: x.yaml:1: no"),
    (replace(GOOD, metrics_running=True), Verdict.HEALTHY, ""),
    (replace(GOOD, metrics_running=False), Verdict.DEGRADED, "nobody serves the metrics"),
    (with_shipper(), Verdict.HEALTHY, ""),
    (with_shipper(running=False), Verdict.DEGRADED, "the shipper does not run"),
    (with_shipper(seconds=11.0), Verdict.DEGRADED, "the shipper has not reported"),
    (with_shipper(segments=3, bytes=7 << 20, oldest_seconds=59.0), Verdict.HEALTHY, ""),
    (with_shipper(segments=3, bytes=7 << 20, oldest_seconds=61.0), Verdict.DEGRADED, "3 segments, 7 MiB, wait to be shipped"),
    (with_shipper(failing_seconds=29.0, error="x"), Verdict.HEALTHY, ""),
    (with_shipper(failing_seconds=31.0, error="no bucket"), Verdict.DEGRADED, "nothing can be shipped for 31 s: no bucket"),
    (with_shipper(conflicts=2), Verdict.DEGRADED, "something else under 2 keys"),
    (with_shipper(unshippable=1), Verdict.DEGRADED, "1 files among the segments are none"),
    (with_daemon(storage=StorageFacts(state="low", described="7 MiB free")), Verdict.DEGRADED, "low: /state has 7 MiB free"),
    (with_daemon(storage=StorageFacts(state="critical")), Verdict.DEGRADED, "new connections of agents are refused"),
    (with_daemon(storage=StorageFacts(state="critical", action="stop")), Verdict.DEGRADED, "agents are stopped"),
    (with_daemon(storage=StorageFacts(state="critical", action="continue")), Verdict.DEGRADED, "agents go on unrecorded"),
    (with_daemon(storage=StorageFacts(state="out")), Verdict.DEGRADED, "nothing is recorded"),
    (with_daemon(storage=StorageFacts(state="critical", problems=2)), Verdict.DEGRADED, "2 runs could not be held back"),
    (with_enforcement(canary_ns=10**15), Verdict.HEALTHY, ""),
    (with_enforcement(mode="off", problem="x"), Verdict.HEALTHY, ""),
    (with_enforcement(problem="no nf_tables"), Verdict.DEGRADED, "not forced through the enforcer: no nf_tables"),
    (with_enforcement(open=("a datagram",)), Verdict.DEGRADED, "gets around the enforcer: a datagram"),
    (with_enforcement(closed=("IPv4",)), Verdict.DEGRADED, "agents reach nothing: IPv4"),
    (with_enforcement(unknown="it gave no answer"), Verdict.DEGRADED, "says nothing: it gave no answer"),
    (with_enforcement(untrusted=("the authority is over", "make another")), Verdict.DEGRADED, "could trust"),
    (with_enforcer(running=False, failure=("it is over", "make another")), Verdict.DEGRADED, "does not run: it is over"),
    (with_enforcement(canary_ns=10**15 - CANARY_NS_STALE - 1), Verdict.DEGRADED, "no canary has tried"),
    (with_enforcement(escaped=2), Verdict.DEGRADED, "2 processes of runs left their cgroup"),
    (with_enforcement(owned=False), Verdict.DEGRADED, "other programs of root can remove the rules"),
    (with_enforcement(repaired="it is gone", repaired_ns=10**15 - 1), Verdict.DEGRADED, "others changed what forces"),
    (with_enforcement(repaired="it is gone", repaired_ns=10**15 - LOSS_NS_RECENT), Verdict.HEALTHY, ""),
]


@pytest.mark.parametrize(("facts", "verdict", "words"), CASES)
def test_verdict(facts: Facts, verdict: Verdict, words: str) -> None:
    """Each fact that is not as it should be gives its verdict, a reason in words, and a next step."""
    found = health.judge(facts)
    assert verdict is found.verdict
    assert words in " ".join(reason.reason for reason in found.reasons)
    assert (verdict is Verdict.HEALTHY) == (found.reasons == ())
    assert all(reason.next_step for reason in found.reasons)


def test_every_alert_has_its_cause() -> None:
    """Each name stands for something in the table above, and none twice for one judgement."""
    judged = [[reason.alert for reason in health.judge(facts).reasons] for facts, _, _ in CASES]
    assert set(Alert) == {alert for alerts in judged for alert in alerts}
    assert [] == [alerts for alerts in judged if len(alerts) != len(set(alerts))]


def test_all_reasons_are_told() -> None:
    """Several things that are wrong are all told."""
    bad = replace(with_daemon(stopped="x", attach_failures=1), recorder_running=False)
    assert 3 == len(health.judge(bad).reasons)


def test_a_daemon_that_cannot_say_how_it_is_counts_as_none(tmp_path: Path) -> None:
    """A daemon whose answer is that it failed makes the status `down`, with its words, instead of ending who asks."""
    configuration = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path)

    def fail(_peer: Peer, _request: Mapping[str, object]) -> dict[str, object]:
        raise KeyError("x")

    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as pool:
        server = ControlServer(configuration.control_socket, {"status": Verb(act=fail)}, selector)
        asked = pool.submit(gather, configuration)
        while not asked.done():
            for key, _events in selector.select(0.02):
                key.data()
        server.close()
    _document, judged = asked.result()
    assert (Verdict.DOWN, "the daemon failed: KeyError: 'x'") == (judged.verdict, judged.reasons[0].reason)


def test_a_pipe_for_a_status_does_not_block(tmp_path: Path) -> None:
    """A compromised recorder that puts a pipe where its status is expected is taken for one that does not report."""
    os.mkfifo(tmp_path / "status")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(_reported, tmp_path / "status")
        try:
            assert ({}, None) == asked.result(5)
        finally:
            os.close(os.open(tmp_path / "status", os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("value", [None, "x", -1.5, [], {}, True, 1e400])
def test_a_status_of_other_types_is_not_shown(tmp_path: Path, value: object) -> None:
    """What an untrusted recorder says in another type than ours is left out, so that no screen fails over it."""
    (tmp_path / "status").write_text(json.dumps({"pid": value, "lag_bytes": value, "state": [value], "x": 1}))
    found, _age = _reported(tmp_path / "status")
    assert {"x": 1} == found


@pytest.mark.parametrize(
    ("desk", "problem"),
    [
        ({"time": 1e12, "problem": ""}, None),
        ({"time": 1e12, "problem": "it is full"}, "it is full"),
        ({"time": 0.0, "problem": ""}, "the desk of approvals does not report"),
        ({}, "the desk of approvals does not report"),
        (None, None),
    ],
)
def test_what_the_desk_of_approvals_tells(desk: object, problem: str | None) -> None:
    """A desk that cannot write, or is silent, is told of; an enforcer of an earlier version has none."""
    assert problem == status_facts.enforcer_facts({"approvals": desk}, 1.0).approvals_problem


@pytest.mark.parametrize(
    ("callbacks", "problem"),
    [
        (None, None),
        ({"time": 1e12, "problem": "", "webhooks": []}, None),
        ({"time": 1e12, "problem": "no desk"}, "no desk"),
        ({"time": 0.0, "problem": ""}, "the process of webhooks and links does not report"),
        ({"time": 1e12, "webhooks": [{"name": "a", "failing_since": 1e12, "last_error": "x"}]}, None),
        ({"time": 1e12, "webhooks": [{"name": "a", "failing_since": None}, 7]}, None),
        (
            {"time": 1e12, "webhooks": [{"name": "a", "failing_since": 0.0, "last_error": "x: no"}]},
            "webhook a has failed",
        ),
    ],
)
def test_what_the_process_of_links_tells(callbacks: object, problem: str | None) -> None:
    """A webhook that fails for a minute, and a process that is silent or complains, are told of; a moment's failure is not."""
    found = status_facts.enforcer_facts({"callbacks": callbacks}, 1.0).callbacks_problem
    assert (problem is None) == (found is None)
    assert (problem or "") in (found or "")


HIDDEN_FROM = """
import os
from capd.daemon import status_facts
seen = os.fork()
if not seen: os.execvp("sleep", ["sleep", "60"])
gone = os.fork()
if not gone: os._exit(0)
os.waitpid(gone, 0)
child = os.fork()
if not child:
    os.setgroups([]); os.setgid(61190); os.setuid(61190)
    found = [status_facts.is_running({"pid": pid}, 1.0) for pid in (seen, gone, 0, -1, 1 << 70)]
    os._exit(not (not os.path.exists(f"/proc/{seen}") and found == [True, False, False, False, False]))
status = os.waitpid(child, 0)[1]
os.kill(seen, 9); os.waitpid(seen, 0)
print(status)
"""


def test_a_role_of_another_user_is_seen_to_live_where_processes_are_hidden() -> None:
    """Who watches as a unit sees only its own user's processes in /proc (ProtectProc=), and the enforcer is another's."""
    done = in_namespace(HIDDEN_FROM, prepare="mount -t proc -o hidepid=invisible proc /proc")
    assert ("0\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize(("facts", "unit"), [(with_enforcer, "capd-enforcer"), (with_shipper, "capd-shipper")])
def test_a_unit_that_was_never_enabled_is_one_command_away(facts: Callable[..., Facts], unit: str) -> None:
    """`restart` would start it until the next boot only; one that hangs is not started by `enable --now`."""
    down, silent = (health.judge(facts(running=running, seconds=100.0)).reasons for running in (False, True))
    assert any(f"`systemctl enable --now {unit}`" in one.next_step for one in down)
    assert any(f"`systemctl restart {unit}`" in one.next_step for one in silent)
