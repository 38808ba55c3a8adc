"""Is capd healthy? A judgement over facts.

What lives here: the rules, and for each thing that is wrong the next step. What must not: finding the facts (status.py), the
screen (cli/status.py), clocks: the time comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from capd.daemon.alert_kinds import Alert
from capd.daemon.enforcer_facts import EnforcerFacts
from capd.daemon.health_enforcement import EnforcementFacts, enforcement_reasons, enforcer_reasons
from capd.daemon.health_masking import MaskingFacts, masking_reasons
from capd.daemon.health_secrets import SecretFacts, secret_reasons
from capd.daemon.health_upkeep import UpkeepFacts, upkeep_reasons
from capd.daemon.health_witness import WitnessFacts, witness_reasons
from capd.daemon.reason import LOSS_NS_RECENT, REPORT_SECONDS_STALE, Reason

BACKLOG_SHARE: Final = 2
"""The journal filled to more than this part of its maximum: the recorder does not keep up."""
ACTION_WORDS: Final = {
    "continue": "agents go on unrecorded",
    "refuse": "new connections of agents are refused",
    "stop": "agents are stopped",
}
STORAGE_ALERTS: Final = {"low": Alert.STORAGE_LOW, "critical": Alert.STORAGE_CRITICAL, "out": Alert.STORAGE_OUT}
FAILING_SECONDS_MAX: Final = 30.0
"""A bucket may fail for so long before anybody has to hear of it."""
NS_PER_SECOND: Final = 1_000_000_000
MIB: Final = 1 << 20


class Verdict(Enum):
    """How capd is. The value is the exit status of `capd status`."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True, kw_only=True)
class StorageFacts:
    """What the daemon says of the room to record.

    Attributes:
        state: `ok`, `low`, `critical` or `out`.
        described: how much there is, in a phrase.
        action: what is configured for critical.
        problems: how many runs it could not be done to.
    """

    state: str = "ok"
    described: str = ""
    action: str = "refuse"
    problems: int = 0


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """What the daemon says of itself.

    Attributes:
        stopped: why it does not drain at the moment, or None.
        lost_bytes: payload that the kernel counted as lost, in total.
        lost_records: other losses by counter name, in total.
        lost_ns: wall time of the last loss, None if there was none.
        attach_failures: libraries that cannot be watched.
        storage: how much room there is.
        enforcement: what it says of forcing agents' traffic.
        unselected: cgroups that a selector names and that could not become runs.
        backlog_bytes: of the journal, not in segments yet.
        backlog_bytes_max: where draining stops.
        configuration_problem: why the configuration on disk was refused when it was read anew, or None.
    """

    stopped: str | None
    lost_bytes: int
    lost_records: dict[str, int]
    lost_ns: int | None
    attach_failures: int
    unselected: int
    storage: StorageFacts
    enforcement: EnforcementFacts = field(default_factory=EnforcementFacts)
    backlog_bytes: int
    backlog_bytes_max: int
    configuration_problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShipperFacts:
    """What is known of the shipper, where a bucket is configured.

    Attributes:
        running: whether its process lives.
        seconds: age of its status; None if there is none.
        segments, bytes: how much waits to be shipped.
        oldest_seconds: how long the oldest of that has waited; None: nothing waits.
        late_seconds: how long it may wait.
        failing_seconds: for how long every try has failed; None: the last one did not.
        error, hint: why, and what to do.
        conflicts: how many keys hold something else in the bucket.
        unshippable: how many files are no segments.
    """

    running: bool
    seconds: float | None
    segments: int
    bytes: int
    oldest_seconds: float | None
    late_seconds: float
    failing_seconds: float | None
    error: str
    hint: str
    conflicts: int
    unshippable: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known.

    Attributes:
        daemon: its own words; None if it does not answer.
        unreachable: why it does not, or "".
        recorder_running: whether its process lives.
        recorder_seconds: age of its status; None if there is none.
        recorder_state: its own word for how it is; "running" is good.
        state_dir: for the operator's eyes.
        now_ns: wall time.
        shipper: the shipper's; None: no bucket is configured.
        enforcer: the enforcer's; None: none is configured.
        witness: what came of comparing both.
        secrets: what came of looking for credentials.
        masking: what masking failed at.
        upkeep: what needs somebody's hand some day.
        policy_problem: why the recorder does not go by the policy on disk, or None.
        policy_known: whether it goes by any.
        metrics_running: whether the process that serves metrics lives; None: none is wanted.
        configuration_on_disk: what is wrong with what the daemon has not judged, or ""; None: nobody has looked at it.
    """

    daemon: DaemonFacts | None
    unreachable: str
    recorder_running: bool
    recorder_seconds: float | None
    recorder_state: str
    state_dir: str
    now_ns: int
    shipper: ShipperFacts | None = None
    enforcer: EnforcerFacts | None = None
    witness: WitnessFacts = field(default_factory=WitnessFacts)
    secrets: SecretFacts = field(default_factory=SecretFacts)
    masking: MaskingFacts = field(default_factory=MaskingFacts)
    upkeep: UpkeepFacts = field(default_factory=UpkeepFacts)
    policy_problem: str | None = None
    policy_known: bool = True
    metrics_running: bool | None = None
    configuration_on_disk: str | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """The judgement."""

    verdict: Verdict
    reasons: tuple[Reason, ...]


def judge(facts: Facts) -> Health:
    """Judge: down without a daemon, degraded with anything missing, late or lost, else healthy."""
    if facts.daemon is None:
        return Health(verdict=Verdict.DOWN, reasons=tuple(_down(facts)))
    reasons = (
        *_daemon(facts.daemon, facts.now_ns),
        *_recorder(facts),
        *_storage(facts.daemon.storage, facts.state_dir),
        *enforcement_reasons(facts.daemon.enforcement, facts.now_ns),
        *enforcer_reasons(facts.enforcer),
        *witness_reasons(facts.witness, facts.daemon.enforcement.mode, facts.now_ns),
        *secret_reasons(facts.secrets, facts.now_ns),
        *masking_reasons(facts.masking, facts.now_ns),
        *upkeep_reasons(facts.upkeep, facts.now_ns),
        *_policy(facts),
        *_configuration(facts.daemon, facts.configuration_on_disk),
        *_shipper(facts.shipper),
        *_metrics(facts),
    )
    return Health(verdict=Verdict.DEGRADED if reasons else Verdict.HEALTHY, reasons=reasons)


def _down(facts: Facts) -> Iterator[Reason]:
    start = "start it: `systemctl start capd` or `sudo capd up`; `capd doctor` checks the host"
    wrong = facts.configuration_on_disk
    if wrong:
        start = "mend the configuration, which is wrong (below); no role starts before"
    yield Reason(alert=Alert.DAEMON_DOWN, reason=facts.unreachable, next_step=start)
    if wrong:
        yield Reason(
            alert=Alert.CONFIGURATION_REFUSED,
            reason=f"the configuration on disk is wrong: {_first(wrong)}",
            next_step="mend it, until `capd config check` finds nothing; then `systemctl start capd.target`, or `sudo capd up`",
        )


def _daemon(daemon: DaemonFacts, now_ns: int) -> Iterator[Reason]:
    if daemon.stopped is not None:
        yield Reason(
            alert=Alert.NOT_DRAINING,
            reason=f"not draining: {daemon.stopped}",
            next_step="free disk space or let the recorder catch up; it resumes by itself; till then bytes are lost, counted",
        )
    if daemon.lost_ns is not None and now_ns - daemon.lost_ns < LOSS_NS_RECENT:
        ago = max(0, now_ns - daemon.lost_ns) // NS_PER_SECOND
        others = ", ".join(f"{name} {count}" for name, count in sorted(daemon.lost_records.items()))
        yield Reason(
            alert=Alert.BYTES_LOST,
            reason=f"{daemon.lost_bytes} bytes of agents' streams lost, the last {ago} s ago ({others or 'no counter grew'})",
            next_step="the sessions concerned say `partial`; raise capture.data_ring_bytes if `ring_full` counters grow",
        )
    if daemon.attach_failures:
        yield Reason(
            alert=Alert.COVERAGE_GAP,
            reason=f"{daemon.attach_failures} TLS libraries cannot be watched",
            next_step="`capd status` lists them, `capd show RUN` those of a run; their sessions are `opaque`",
        )
    if daemon.unselected:
        yield Reason(
            alert=Alert.RUN_UNRECORDED,
            reason=f"{daemon.unselected} cgroups that a selector names are not recorded",
            next_step="`capd status --json` has the reasons under `unselected`; capd tries again every second",
        )
    if daemon.backlog_bytes * BACKLOG_SHARE > daemon.backlog_bytes_max:
        yield Reason(
            alert=Alert.RECORDER_BEHIND,
            reason=f"the recorder is {daemon.backlog_bytes // MIB} MiB behind, the journal holds "
            f"{daemon.backlog_bytes_max // MIB} MiB",
            next_step="see whether the recorder has enough processor time; at journal.bytes_max draining stops",
        )


def _recorder(facts: Facts) -> Iterator[Reason]:
    if not facts.recorder_running:
        yield Reason(
            alert=Alert.RECORDER_DOWN,
            reason="the recorder does not run; what is captured waits in the journal",
            next_step="start it: `systemctl start capd-recorder`; under `capd up` it is restarted by itself",
        )
    elif facts.recorder_seconds is None or facts.recorder_seconds > REPORT_SECONDS_STALE:
        age = "never" if facts.recorder_seconds is None else f"for {facts.recorder_seconds:.0f} s not"
        yield Reason(
            alert=Alert.RECORDER_SILENT,
            reason=f"the recorder has {age} reported",
            next_step="it may be stuck: see its log, then restart it; it resumes from the journal and loses nothing",
        )
    elif facts.recorder_state != "running":
        yield Reason(
            alert=Alert.RECORDER_FAILING,
            reason=f"the recorder says: {facts.recorder_state}",
            next_step="`capd status --json` has its last errors; what is captured waits in the journal",
        )


def _storage(storage: StorageFacts, state_dir: str) -> Iterator[Reason]:
    if storage.state == "ok":
        return
    what = "nothing is recorded" if storage.state == "out" else ACTION_WORDS[storage.action]
    happens = f"; {what}" if storage.state != "low" else ""
    yield Reason(
        alert=STORAGE_ALERTS[storage.state],
        reason=f"storage is {storage.state}: {state_dir} has {storage.described}{happens}",
        next_step="free space there, or mount a larger file system (docs/operations.md, More room); capd goes on by itself",
    )
    if storage.problems:
        yield Reason(
            alert=Alert.HOLDING_FAILED,
            reason=f"{storage.problems} runs could not be held back",
            next_step="`capd status --json` has the reasons under `storage.problems`; capd tries again every second",
        )


def _policy(facts: Facts) -> Iterator[Reason]:
    enforcer = None if facts.enforcer is None else facts.enforcer.policy_problem
    problem = enforcer or facts.policy_problem
    if problem is not None:
        hides = "" if facts.policy_known else "; no words of agents are recorded until it is"
        yield Reason(
            alert=Alert.POLICY_REFUSED,
            reason=f"the policy on disk is not in force: {problem.splitlines()[0]}{hides}",
            next_step="`capd policy check` lists all that is wrong with it",
        )


def _configuration(daemon: DaemonFacts, on_disk: str | None) -> Iterator[Reason]:
    """Tell of what is on disk: as whoever asks has judged it, else as the daemon has when it read it last."""
    mend = "mend it, until `capd config check` finds nothing; then `systemctl reload capd`"
    if on_disk:
        yield Reason(
            alert=Alert.CONFIGURATION_REFUSED,
            reason=f"the configuration on disk is wrong, what was in force stays: {_first(on_disk)}",
            next_step=f"{mend}; a role that starts before that refuses it, and ends",
        )
    elif daemon.configuration_problem is not None and on_disk is not None:
        yield Reason(
            alert=Alert.CONFIGURATION_REFUSED,
            reason="the configuration was wrong when it was read last, and is not in force; it has been mended since",
            next_step="`systemctl reload capd`",
        )
    elif daemon.configuration_problem is not None:
        yield Reason(
            alert=Alert.CONFIGURATION_REFUSED,
            reason=f"the configuration on disk is refused, what was in force stays: {_first(daemon.configuration_problem)}",
            next_step=mend,
        )


def _first(problems: str) -> str:
    """Give the first of some lines, and how many more there are."""
    first, *more = problems.splitlines()
    return f"{first} (and {len(more)} more)" if more else first


def _shipper(facts: ShipperFacts | None) -> Iterator[Reason]:
    if facts is None:
        return
    if not facts.running or facts.seconds is None or facts.seconds > REPORT_SECONDS_STALE:
        start = "restart" if facts.running else "enable --now"
        yield Reason(
            alert=Alert.SHIPPER_SILENT if facts.running else Alert.SHIPPER_DOWN,
            reason="the shipper has not reported for some time" if facts.running else "the shipper does not run",
            next_step=f"`systemctl {start} capd-shipper`; under `capd up` it is restarted by itself; nothing is lost meanwhile",
        )
        return
    if facts.failing_seconds is not None and facts.failing_seconds > FAILING_SECONDS_MAX:
        yield Reason(
            alert=Alert.SHIPPER_FAILING,
            reason=f"nothing can be shipped for {facts.failing_seconds:.0f} s: {facts.error}",
            next_step=facts.hint or "it is tried again by itself",
        )
    if facts.oldest_seconds is not None and facts.oldest_seconds > facts.late_seconds:
        yield Reason(
            alert=Alert.SHIPPER_LATE,
            reason=f"{facts.segments} segments, {facts.bytes // MIB} MiB, wait to be shipped, "
            f"the oldest for {facts.oldest_seconds:.0f} s",
            next_step="raise shipper.bytes_per_second, or see what slows the way to the bucket; they are on this host only",
        )
    if facts.conflicts:
        yield Reason(
            alert=Alert.BUCKET_CONFLICT,
            reason=f"the bucket holds something else under {facts.conflicts} keys of this host's segments",
            next_step="`capd status --json` has them in roles.shipper.conflicts; see who writes there; local copies are kept",
        )
    if facts.unshippable:
        yield Reason(
            alert=Alert.SEGMENT_UNREADABLE,
            reason=f"{facts.unshippable} files among the segments are none",
            next_step="`capd status --json` has them in roles.shipper.unshippable; `capd verify` says what is wrong with them",
        )


def _metrics(facts: Facts) -> Iterator[Reason]:
    if facts.metrics_running is False:
        yield Reason(
            alert=Alert.METRICS_DOWN,
            reason="nobody serves the metrics that `metrics.listen` asks for",
            next_step="`systemctl restart capd-metrics` and see its log; under `capd up` it is restarted by itself",
        )
