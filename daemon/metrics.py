"""The status as metrics: every figure that Prometheus is given, and where in the status document it stands.

What lives here: the table of metrics, and the text form of a document. What must not: gathering (status.py), serving
(metrics_endpoint.py), judging.

Two parts of the document, the recorder's and the shipper's, were written by processes without rights, so nothing in it is
believed: what is no finite number gives no sample. Labels come from the lists here, never from the document, but for the
version and tier of the daemon: nobody who is recorded can make a label, or as many as he likes.

Source: prometheus.io/docs/practices/naming, prometheus.io/docs/instrumenting/exposition_formats (text format 0.0.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from capd.daemon.alert_kinds import KINDS
from capd.daemon.health import Verdict
from capd.daemon.storage import State
from capd.probes.counters import COUNTERS, LOST

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
ROLES: Final = ("daemon", "recorder", "shipper", "enforcer", "metrics")
CERTIFICATES: Final = ("authority", "client", "listener")
RINGS: Final = ("control", "data")
DISAGREEMENTS: Final = ("undecided", "unseen", "differing", "requests", "unknown", "helpers")
PROBE_COUNTERS: Final = tuple(sorted({*COUNTERS, *LOST}))
LABEL_CHARACTERS_MAX: Final = 64
"""Of the daemon's version and tier."""
NS: Final = 1e-9

Json = Mapping[str, object]
Sample = tuple[tuple[str, ...], float]
Read = Callable[[Json], Iterable[Sample]]


class Type(Enum):
    """What Prometheus may do with a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """Only grows, or begins anew at zero when what counts is restarted."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric.

    Attributes:
        name: as it is exposed.
        type: how it behaves.
        meaning: the HELP text.
        labels: names.
        read: finds its samples in a status document.
    """

    name: str
    type: Type
    meaning: str
    labels: tuple[str, ...]
    read: Read


def exposition(document: Json) -> bytes:
    """Give a status document in the text format, as `status.gather` made it."""
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415 - only who asks for metrics pays for it

    class Families:
        """What the library asks for metrics."""

        def collect(self) -> Iterator[Metric]:
            return families(document)

    return generate_latest(Families())


def families(document: Json) -> Iterator[Metric]:
    """Give a status document as metrics; one without a sample is left out."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

    made = {Type.GAUGE: GaugeMetricFamily, Type.COUNTER: CounterMetricFamily}
    for figure in FIGURES:
        samples = list(figure.read(document))
        if figure.type is Type.COUNTER:
            samples = [(labels, value) for labels, value in samples if value >= 0]
        if samples:
            family = made[figure.type](figure.name, figure.meaning, labels=figure.labels)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


# Finding samples in a document


def _at(document: Json, path: Iterable[str]) -> object:
    found: object = document
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _number(value: object) -> float | None:
    """Give a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _value(path: str, *, factor: float = 1.0, if_null: float | None = None) -> Read:
    """Read a number; `if_null`: what it is worth when it stands there and is null."""
    *parents, key = path.split(".")

    def read(document: Json) -> Iterator[Sample]:
        inner = _at(document, parents)
        if isinstance(inner, Mapping) and key in inner:
            number = if_null if inner[key] is None else _number(inner[key])
            if number is not None:
                yield (), number * factor

    return read


def _each(names: Iterable[str], path: str) -> Read:
    """Read a number for each name, which stands for `*` in the path."""
    reads = [(name, _value(path.replace("*", name))) for name in names]

    def read(document: Json) -> Iterator[Sample]:
        return (((name,), value) for name, value_of in reads for _, value in value_of(document))

    return read


def _count(path: str, withheld: str | None = None) -> Read:
    """Count a list, and what of it the caller is not shown."""

    def read(document: Json) -> Iterator[Sample]:
        found = _at(document, path.split("."))
        if isinstance(found, list):
            others = _number(_at(document, ("withheld", withheld))) if withheld else None
            yield (), len(found) + (others or 0.0)

    return read


def _one_of(words: Iterable[str], path: str) -> Read:
    """Give 1 for the word that stands there, and 0 for the others."""

    def read(document: Json) -> Iterator[Sample]:
        found = _at(document, path.split("."))
        if isinstance(found, str):
            yield from (((word,), float(word == found)) for word in words)

    return read


def _is(path: str, *, null: bool) -> Read:
    """Give 1 if null stands there, or with `null=False` something else, and 0 otherwise."""
    *parents, key = path.split(".")

    def read(document: Json) -> Iterator[Sample]:
        inner = _at(document, parents)
        if isinstance(inner, Mapping) and key in inner:
            yield (), float((inner[key] is None) is null)

    return read


def _info(document: Json) -> Iterator[Sample]:
    version, tier = (document.get(name) for name in ("version", "tier"))
    if isinstance(version, str) and isinstance(tier, str):
        yield (version[:LABEL_CHARACTERS_MAX], tier[:LABEL_CHARACTERS_MAX]), 1.0


def _alerts(document: Json) -> Iterator[Sample]:
    reasons = document.get("reasons")
    if isinstance(reasons, list):
        there = {str(reason.get("alert")) for reason in reasons if isinstance(reason, Mapping)}
        yield from (((alert.value, kind.severity.value), float(alert.value in there)) for alert, kind in KINDS.items())


def _roles(document: Json) -> Iterator[Sample]:
    for role in ROLES:
        state = _at(document, ("roles", role, "state"))
        if state is not None:
            yield (role,), float(state != "down")


def _lost(document: Json) -> Iterator[Sample]:
    """Those counters that count losses: a document has only those that are not 0."""
    counters = _at(document, ("losses", "counters"))
    if isinstance(counters, Mapping):
        for name in sorted(LOST):
            number = _number(counters.get(name, 0))
            if number is not None:
                yield (name,), number


def _webhooks(key: str, *, count: bool = False) -> Read:
    """Sum a number over webhooks, or count those that have it."""

    def read(document: Json) -> Iterator[Sample]:
        found = _at(document, ("roles", "enforcer", "callbacks", "webhooks"))
        webhooks = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
        known = [number for one in webhooks if (number := _number(one.get(key))) is not None]
        if count and webhooks:
            yield (), float(len(known))
        elif known:
            yield (), sum(known)

    return read


def _certificates(document: Json) -> Iterator[Sample]:
    """Give for each kind the end of the certificate that ends first."""
    found = _at(document, ("roles", "enforcer", "certificates"))
    listed = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    for kind in CERTIFICATES:
        ends = [until for one in listed if one.get("kind") == kind and (until := _number(one.get("until"))) is not None]
        if ends:
            yield (kind,), min(ends)


def _clock(document: Json) -> Iterator[Sample]:
    found = _at(document, ("clock", "synchronised"))
    if isinstance(found, bool):
        yield (), float(found)


def _gauge(name: str, meaning: str, read: Read, *labels: str) -> Figure:
    return Figure(name=name, type=Type.GAUGE, meaning=meaning, labels=labels, read=read)


def _counter(name: str, meaning: str, read: Read, *labels: str) -> Figure:
    return Figure(name=name, type=Type.COUNTER, meaning=meaning, labels=labels, read=read)


_SHIPPER: Final = "roles.shipper"
_RECORDER: Final = "roles.recorder"
_LINKS: Final = "roles.enforcer.callbacks.links"

FIGURES: Final = (
    _gauge("capd_info", "Version and tier of the daemon; always 1.", _info, "version", "tier"),
    _gauge("capd_health", "1 for the verdict of `capd status`.", _one_of([v.name.lower() for v in Verdict], "health"), "state"),
    _gauge("capd_alert_active", "1 while `capd status` gives this reason.", _alerts, "alert", "severity"),
    _gauge("capd_role_up", "Whether the role's process runs.", _roles, "role"),
    _gauge(
        "capd_role_report_age_seconds", "Age of what the role last said of itself.", _each(ROLES, "roles.*.age_seconds"), "role"
    ),
    _gauge("capd_start_timestamp_seconds", "When the daemon started.", _value("started_ns", factor=NS)),
    _gauge("capd_clock_synchronised", "Whether this host's clock is kept right, as the kernel says.", _clock),
    _gauge(
        "capd_certificate_expiry_timestamp_seconds",
        "When the first certificate of a kind ends.",
        _certificates,
        "kind",
    ),
    _gauge("capd_approvals_pending", "Requests that wait for a person.", _value("roles.enforcer.approvals.pending")),
    _gauge(
        "capd_configuration_refused",
        "1 while a configuration on disk is refused.",
        _is("configuration.problem", null=False),
    ),
    _counter("capd_alerts_untold_total", "Changes that could not be logged or written.", _value("roles.metrics.untold")),
    # Capture
    _gauge("capd_ring_size_bytes", "Size of a ring.", _each(RINGS, "rings.*.bytes"), "ring"),
    _gauge("capd_ring_used_bytes", "What waits in a ring.", _each(RINGS, "rings.*.used"), "ring"),
    _counter("capd_captured_records_total", "Records taken out of the rings.", _value("drained.records")),
    _counter("capd_captured_bytes_total", "Bytes taken out of the rings.", _value("drained.bytes")),
    _counter(
        "capd_discarded_bytes_total",
        "Bytes taken out of the rings and not written: action `continue` at `critical`.",
        _value("drained.discarded_bytes"),
    ),
    _counter("capd_lost_bytes_total", "Bytes of agents' streams that were lost.", _value("losses.bytes")),
    _counter("capd_lost_streams_total", "Streams that lost something.", _value("losses.streams")),
    _counter("capd_losses_total", "What the kernel's counters of losses say, in their own units.", _lost, "counter"),
    _gauge("capd_last_loss_timestamp_seconds", "When something was lost last.", _value("losses.changed_ns", factor=NS)),
    _counter(
        "capd_probes_total", "All counters of the probes, in their own units.", _each(PROBE_COUNTERS, "counters.*"), "counter"
    ),
    _gauge("capd_watched_files", "Files with probes on TLS functions.", _count("attachments", "attachments")),
    _gauge("capd_coverage_gaps", "TLS libraries that cannot be watched.", _count("attach_failures", "attach_failures")),
    _gauge(
        "capd_unselected_cgroups",
        "Cgroups that a selector names and that are not recorded.",
        _count("unselected", "unselected"),
    ),
    _gauge("capd_runs", "Live runs.", _count("runs", "runs")),
    # Journal and recorder
    _gauge("capd_journal_backlog_bytes", "What of the journal is not in sealed segments yet.", _value("journal.backlog_bytes")),
    _gauge("capd_journal_limit_bytes", "`journal.bytes_max`: where draining stops.", _value("journal.bytes_max")),
    _gauge("capd_journal_draining", "0 while nothing is taken out of the rings.", _is("journal.stopped", null=True)),
    _gauge("capd_recorder_lag_bytes", "What of the journal the recorder has not read.", _value(f"{_RECORDER}.lag_bytes")),
    _gauge("capd_recorder_lag_seconds", "Age of what the recorder reads.", _value(f"{_RECORDER}.lag_seconds")),
    _gauge("capd_recorder_open_sessions", "Sessions that are open.", _value(f"{_RECORDER}.sessions_open")),
    _gauge("capd_recorder_resident_bytes", "Memory of the recorder.", _value(f"{_RECORDER}.rss_bytes")),
    _counter("capd_recorder_sessions_total", "Sessions seen.", _value(f"{_RECORDER}.sessions_total")),
    _counter("capd_recorder_evicted_sessions_total", "Sessions closed to make room.", _value(f"{_RECORDER}.sessions_evicted")),
    _counter("capd_recorder_messages_total", "Messages decoded.", _value(f"{_RECORDER}.messages")),
    _counter("capd_recorder_records_total", "Records written.", _value(f"{_RECORDER}.records")),
    _counter("capd_recorder_segments_total", "Segments sealed.", _value(f"{_RECORDER}.segments")),
    _counter("capd_recorder_damages_total", "Damaged places of the journal.", _value(f"{_RECORDER}.damages")),
    _counter(
        "capd_recorder_malformed_blocks_total",
        "Blocks of the journal that make no sense.",
        _value(f"{_RECORDER}.blocks_malformed"),
    ),
    _counter(
        "capd_witness_verdicts_total", "Decisions of the enforcer that were recorded.", _value(f"{_RECORDER}.witness.verdicts")
    ),
    _counter(
        "capd_witness_alarms_total",
        "Connections about which probes and enforcer disagree.",
        _each(DISAGREEMENTS, f"{_RECORDER}.witness.*"),
        "kind",
    ),
    _counter(
        "capd_masking_failed_total",
        "Sessions in which masking failed, a defect of capd.",
        _value(f"{_RECORDER}.masking.failed"),
    ),
    _counter(
        "capd_secrets_seen_total",
        "Places in what agents said or heard in which a credential of capd was.",
        _value(f"{_RECORDER}.secrets.seen_total"),
    ),
    _counter(
        "capd_secrets_searched_bytes_total", "What was searched for credentials.", _value(f"{_RECORDER}.secrets.searched_bytes")
    ),
    _counter(
        "capd_secrets_unsearched_bytes_total",
        "What was not searched for credentials, because nobody answered.",
        _value(f"{_RECORDER}.secrets.unsearched_bytes"),
    ),
    _counter(
        "capd_witness_digested_total",
        "Connections whose bytes were compared by their content.",
        _value(f"{_RECORDER}.witness.digested"),
    ),
    _counter(
        "capd_witness_incomparable_total",
        "Connections whose bytes could not be compared.",
        _value(f"{_RECORDER}.witness.incomparable"),
    ),
    _counter(
        "capd_decision_log_damages_total",
        "Parts of the decision log that cannot be read.",
        _value(f"{_RECORDER}.witness.log.damages"),
    ),
    _counter(
        "capd_decision_log_missing_entries_total",
        "Entries of the decision log that are gone unread, as far as their numbers tell.",
        _value(f"{_RECORDER}.witness.missing"),
    ),
    _counter(
        "capd_decision_log_missing_files_total",
        "Files of the decision log that are gone unread.",
        _value(f"{_RECORDER}.witness.log.missing_files"),
    ),
    # Approvals beyond this host
    _gauge("capd_webhook_waiting_messages", "Messages that webhooks have not taken yet.", _webhooks("waiting")),
    _gauge("capd_webhooks_failing", "Webhooks whose latest message was not taken.", _webhooks("failing_since", count=True)),
    _counter("capd_webhook_delivered_messages_total", "Messages that webhooks took.", _webhooks("delivered")),
    _counter("capd_webhook_retries_total", "Tries that failed and are repeated.", _webhooks("retried")),
    _counter("capd_webhook_failed_messages_total", "Messages that were given up.", _webhooks("failed")),
    _counter("capd_webhook_dropped_messages_total", "Messages for which there was no room.", _webhooks("dropped")),
    _counter("capd_links_decided_total", "Answers by links and buttons that counted.", _value(f"{_LINKS}.decided")),
    _counter("capd_links_refused_total", "Requests to the listener of links that were refused.", _value(f"{_LINKS}.refused")),
    # Disk
    _gauge("capd_disk_free_bytes", "Free on the file system of `state_dir`.", _value("disk.free_bytes")),
    _gauge("capd_disk_size_bytes", "Size of that file system.", _value("disk.total_bytes")),
    _gauge(
        "capd_disk_fill_bytes_per_second",
        "How fast it fills, over ten minutes; negative: it empties.",
        _value("storage.fills_bytes_per_second"),
    ),
    _gauge(
        "capd_disk_until_full_seconds",
        "When it is full at that rate; absent: not known, or never.",
        _value("storage.seconds_until_full"),
    ),
    _gauge(
        "capd_storage_state", "1 for the state of storage.", _one_of([state.word for state in State], "storage.state"), "state"
    ),
    _gauge("capd_storage_free_files", "Files that can still be made.", _value("storage.free_inodes")),
    _gauge("capd_storage_reserve_bytes", "What of the reserve is held.", _value("storage.reserve_bytes")),
    _gauge("capd_storage_held_runs", "Runs that are held back.", _value("storage.held")),
    _counter("capd_storage_refused_calls_total", "Calls that were refused to runs.", _value("storage.refused")),
    _gauge("capd_storage_problems", "Runs that could not be held back.", _count("storage.problems", "problems")),
    # Shipping
    _gauge(
        "capd_shipper_backlog_segments",
        "Sealed segments not known to be in the bucket.",
        _value(f"{_SHIPPER}.backlog.segments"),
    ),
    _gauge("capd_shipper_backlog_bytes", "Their length.", _value(f"{_SHIPPER}.backlog.bytes")),
    _gauge(
        "capd_shipper_oldest_unshipped_seconds",
        "Age of the oldest of them; 0: nothing waits.",
        _value(f"{_SHIPPER}.oldest_unshipped_seconds", if_null=0.0),
    ),
    _gauge("capd_shipper_failing", "1 while the last try has failed.", _is(f"{_SHIPPER}.last_error", null=False)),
    _gauge(
        "capd_shipper_failing_seconds", "For how long every try has failed.", _value(f"{_SHIPPER}.last_error.failing_seconds")
    ),
    _gauge(
        "capd_shipper_last_success_timestamp_seconds",
        "When a segment was last seen whole in the bucket.",
        _value(f"{_SHIPPER}.last_success"),
    ),
    _counter("capd_shipper_errors_total", "Failures.", _value(f"{_SHIPPER}.errors")),
    _counter("capd_shipper_requests_total", "Requests made of the bucket.", _value(f"{_SHIPPER}.requests")),
    _counter("capd_shipper_shipped_segments_total", "Segments sent.", _value(f"{_SHIPPER}.shipped.segments")),
    _counter("capd_shipper_shipped_bytes_total", "Bytes of segments sent.", _value(f"{_SHIPPER}.shipped.bytes")),
    _counter("capd_shipper_found_segments_total", "Segments that were there already.", _value(f"{_SHIPPER}.shipped.found")),
    _gauge(
        "capd_shipper_conflicts",
        "Keys under which the bucket has something else; at most 20 are told.",
        _count(f"{_SHIPPER}.conflicts"),
    ),
    _gauge(
        "capd_shipper_unshippable_files",
        "Files among the segments that are none; at most 20 are told.",
        _count(f"{_SHIPPER}.unshippable"),
    ),
    _gauge("capd_local_segments", "Segments on this host.", _value(f"{_SHIPPER}.local.segments")),
    _gauge("capd_local_bytes", "Their length.", _value(f"{_SHIPPER}.local.bytes")),
    _counter(
        "capd_local_released_segments_total",
        "Local copies removed after shipping.",
        _value(f"{_SHIPPER}.local.released_segments"),
    ),
    _counter("capd_local_released_bytes_total", "Their length.", _value(f"{_SHIPPER}.local.released_bytes")),
    _counter(
        "capd_retention_deleted_segments_total",
        "Segments let go by a retention policy.",
        _value(f"{_SHIPPER}.retention.segments"),
    ),
    _counter("capd_retention_deleted_bytes_total", "Their length.", _value(f"{_SHIPPER}.retention.bytes")),
    _gauge("capd_retention_holds", "Legal holds that are active.", _value(f"{_SHIPPER}.retention.holds")),
    _gauge(
        "capd_retention_failing",
        "1 while the retention policy cannot be carried out.",
        _is(f"{_SHIPPER}.retention.error", null=False),
    ),
    _gauge(
        "capd_catalogue_waiting_segments",
        "Shipped segments that are not in the catalogue.",
        _value(f"{_SHIPPER}.catalogue.waiting"),
    ),
)
"""All there is; docs/metrics.md lists the same, a test compares. A name that was released stays, with its meaning."""
