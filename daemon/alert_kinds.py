"""What capd raises an alert for: the name of each cause, how grave it is, and its journald message id.

What lives here: names that monitoring is configured with. What must not: judging (health.py), telling (alerting.py).

A name or a number is never changed or used for something else: rules, dashboards and `journalctl MESSAGE_ID=` go by them.
docs/metrics.md lists all; a test holds it against this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID


class Severity(StrEnum):
    """How soon somebody must look."""

    CRITICAL = "critical"
    """Something is lost, or will be in a moment, or the evidence is in doubt."""
    WARNING = "warning"
    """Nothing that capd could read is lost yet."""


class Alert(StrEnum):
    """A cause: at most one of a kind is there at a time."""

    DAEMON_DOWN = "daemon-down"
    NOT_DRAINING = "not-draining"
    BYTES_LOST = "bytes-lost"
    COVERAGE_GAP = "coverage-gap"
    RUN_UNRECORDED = "run-unrecorded"
    RECORDER_DOWN = "recorder-down"
    RECORDER_SILENT = "recorder-silent"
    RECORDER_FAILING = "recorder-failing"
    RECORDER_BEHIND = "recorder-behind"
    STORAGE_LOW = "storage-low"
    STORAGE_CRITICAL = "storage-critical"
    STORAGE_OUT = "storage-out"
    HOLDING_FAILED = "holding-failed"
    SHIPPER_DOWN = "shipper-down"
    SHIPPER_SILENT = "shipper-silent"
    SHIPPER_FAILING = "shipper-failing"
    SHIPPER_LATE = "shipper-late"
    BUCKET_CONFLICT = "bucket-conflict"
    SEGMENT_UNREADABLE = "segment-unreadable"
    DISK_FILLING = "disk-filling"
    METRICS_DOWN = "metrics-down"
    FORCING_MISSING = "forcing-missing"
    FORCING_OPEN = "forcing-open"
    FORCING_CLOSED = "forcing-closed"
    FORCING_UNKNOWN = "forcing-unknown"
    RUN_ESCAPED = "run-escaped"
    FORCING_CHANGED = "forcing-changed"
    FORCING_UNOWNED = "forcing-unowned"
    ENFORCER_DOWN = "enforcer-down"
    TRUST_UNUSABLE = "trust-unusable"
    ENFORCER_UNLOGGED = "enforcer-unlogged"
    EXPORT_LARGE = "export-large"
    WITNESS_ALARM = "witness-alarm"
    WITNESS_ABSENT = "witness-absent"
    DECISIONS_DAMAGED = "decisions-damaged"
    APPROVALS_STUCK = "approvals-stuck"
    WEBHOOKS_FAILING = "webhooks-failing"
    POLICY_REFUSED = "policy-refused"
    CONFIGURATION_REFUSED = "configuration-refused"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    VERSIONS_DIFFER = "versions-differ"
    MASKING_FAILED = "masking-failed"
    SECRET_SEEN = "secret-seen"  # noqa: S105 - the name of an alert
    SECRETS_UNSEARCHED = "secrets-unsearched"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is fixed of a cause.

    Attributes:
        severity: how grave.
        message_id: of its lines in journald, when it begins and when it ends (systemd.journal-fields(7)).
        meaning: one phrase.
    """

    severity: Severity
    message_id: UUID
    meaning: str


_KINDS: Final = (
    (Alert.DAEMON_DOWN, Severity.CRITICAL, "f170367948d742beb66b78c60f86f88c", "no daemon answers: nothing is recorded"),
    (
        Alert.NOT_DRAINING,
        Severity.CRITICAL,
        "c70c9f40ae6f42c8b5907b26513dec69",
        "what is captured is not taken out of the kernel's rings, and lost once they are full",
    ),
    (
        Alert.BYTES_LOST,
        Severity.CRITICAL,
        "fb6e4a8a19ec4952baefb01140b78adb",
        "something that agents said or heard was lost in the last ten minutes",
    ),
    (
        Alert.COVERAGE_GAP,
        Severity.WARNING,
        "ca4c35c558314f888ea1e87a11d0d437",
        "TLS libraries of runs cannot be watched; their sessions are opaque",
    ),
    (
        Alert.RUN_UNRECORDED,
        Severity.CRITICAL,
        "06c03826cdbc40b9b1653ed864a8acc4",
        "a selector names cgroups that are not recorded",
    ),
    (Alert.RECORDER_DOWN, Severity.CRITICAL, "62d603f40e7348fd80ac3f8bd715c8ad", "the recorder does not run"),
    (
        Alert.RECORDER_SILENT,
        Severity.WARNING,
        "29c12fb9e6a646889215bc5bd3c6d21d",
        "the recorder has not reported for some time",
    ),
    (Alert.RECORDER_FAILING, Severity.CRITICAL, "8d8483a5e8df428487cb6cf29136992e", "the recorder runs and cannot write"),
    (Alert.RECORDER_BEHIND, Severity.WARNING, "252bcc98af91432c826f6e7af8656ac7", "the journal is more than half full"),
    (Alert.STORAGE_LOW, Severity.WARNING, "0b76bbea34b24751902fb81636ba0bb7", "room for the recording is short"),
    (
        Alert.STORAGE_CRITICAL,
        Severity.CRITICAL,
        "2ff1a00415454b188ee07b82c68b5066",
        "room is so short that `storage.action` is done",
    ),
    (Alert.STORAGE_OUT, Severity.CRITICAL, "47c5ee3db1d246bfb312e8266631f608", "there is no room: nothing is recorded"),
    (
        Alert.HOLDING_FAILED,
        Severity.CRITICAL,
        "93992f153b7148bb8ff5245c310e0cf7",
        "`storage.action` could not be done to some runs",
    ),
    (Alert.SHIPPER_DOWN, Severity.WARNING, "50ca8dbf6a584744af578d94036a3311", "the shipper does not run"),
    (Alert.SHIPPER_SILENT, Severity.WARNING, "1d96cb18ae3b4bea87df31d182aa8b20", "the shipper has not reported for some time"),
    (Alert.SHIPPER_FAILING, Severity.WARNING, "d670d4d3652c40d89623fa264aa3a99e", "the bucket takes nothing"),
    (
        Alert.SHIPPER_LATE,
        Severity.WARNING,
        "f5b0e74d956a43be818c30d1e479c33f",
        "something has waited to be shipped for longer than `shipper.late_seconds`",
    ),
    (
        Alert.BUCKET_CONFLICT,
        Severity.CRITICAL,
        "373d41b7a19841548ad110ec3a067ccb",
        "the bucket holds something else under a key of this host",
    ),
    (Alert.SEGMENT_UNREADABLE, Severity.CRITICAL, "85199a7e8df24909bb5c444fe8ff794f", "files among the segments are none"),
    (
        Alert.DISK_FILLING,
        Severity.WARNING,
        "351316f943d84d549a949bf2632cd69b",
        "the disk will be full within the hour at the present rate",
    ),
    (
        Alert.METRICS_DOWN,
        Severity.WARNING,
        "77fcd31a51f54df39518d252943b1882",
        "`[metrics] listen` is set and the metrics role does not run",
    ),
    (
        Alert.FORCING_MISSING,
        Severity.CRITICAL,
        "66fbc573e75a4488b3c9d693cc868e3c",
        "agents' traffic is not forced through the enforcer: no run is let in",
    ),
    (
        Alert.FORCING_OPEN,
        Severity.CRITICAL,
        "3043a163dcc64cf0ab43d6bb7c6c332d",
        "the canary got something around the enforcer: no run is let in",
    ),
    (
        Alert.FORCING_CLOSED,
        Severity.CRITICAL,
        "ec1282459b084ec1a039720e186cf000",
        "agents reach nothing: the enforcer does not listen",
    ),
    (
        Alert.FORCING_UNKNOWN,
        Severity.WARNING,
        "0dcb74a55815475fb5371ceb7adfeb6e",
        "no canary has said lately whether traffic is forced",
    ),
    (
        Alert.RUN_ESCAPED,
        Severity.CRITICAL,
        "3496b4469e9742118f7acd8765ae20a7",
        "processes of runs left their cgroup, and what they connect is not forced",
    ),
    (
        Alert.FORCING_CHANGED,
        Severity.CRITICAL,
        "89710aa53748427a8c104bb4f905e74c",
        "others changed what forces traffic in the last ten minutes",
    ),
    (
        Alert.FORCING_UNOWNED,
        Severity.WARNING,
        "5e12477233c64ddc88c8968e2126ca7c",
        "root's other programs can remove the rules: the kernel is older than 6.9",
    ),
    (
        Alert.ENFORCER_DOWN,
        Severity.CRITICAL,
        "0bcc0d1cd5a9414599ba695ab78d8387",
        "the enforcer does not run or has not reported: what agents send is refused",
    ),
    (
        Alert.TRUST_UNUSABLE,
        Severity.CRITICAL,
        "a78dd8e2e2e64659bf9e697ee0bb5225",
        "the authority of this host, or what the system trusts, cannot be used: the enforcer does not start, recording goes on",
    ),
    (
        Alert.ENFORCER_UNLOGGED,
        Severity.CRITICAL,
        "e08137f33a084ec99f95e90587134be1",
        "decisions cannot be written down: what agents send is refused",
    ),
    (
        Alert.EXPORT_LARGE,
        Severity.WARNING,
        "7d1c5b0be1c74d0f8c2c8e3f5a9b6d42",
        "a run was given more by a database, in the last ten minutes, than a rule's `export_rows` or `export_bytes`",
    ),
    (
        Alert.WITNESS_ALARM,
        Severity.CRITICAL,
        "3b82f614c0c3487988bf881090854685",
        "probes and enforcer disagree about connections of runs",
    ),
    (
        Alert.WITNESS_ABSENT,
        Severity.CRITICAL,
        "87537ff1c7054f40a4437a234079f86a",
        "agents are forced through the enforcer, and the recorder compares nothing of it: it goes by an earlier configuration",
    ),
    (
        Alert.DECISIONS_DAMAGED,
        Severity.CRITICAL,
        "c04b8e59447940609bb1f8d14291ce83",
        "parts of the decision log cannot be read",
    ),
    (
        Alert.APPROVALS_STUCK,
        Severity.WARNING,
        "4f15e46a13134ceca7fa1216e31869ef",
        "nobody can be asked to approve anything: what would wait for a person is refused",
    ),
    (
        Alert.WEBHOOKS_FAILING,
        Severity.WARNING,
        "72422f7761ae4252861e36572b64e5df",
        "a webhook cannot be told what waits for approval, or links are not answered",
    ),
    (
        Alert.POLICY_REFUSED,
        Severity.WARNING,
        "6b8816776b5a4b73a94472d1a7d32946",
        "the policy on disk cannot be used; the one before it is in force, or none",
    ),
    (
        Alert.CONFIGURATION_REFUSED,
        Severity.WARNING,
        "73dd3fb43796408f92f38e6b775bafae",
        "the configuration on disk was refused when it was read anew; the one before it is in force",
    ),
    (
        Alert.CERTIFICATE_EXPIRED,
        Severity.CRITICAL,
        "cdc9226be9e44d6f9ef52abf647778bd",
        "a certificate of the enforcer is over: of its authority, of the listener of links, or one for a target",
    ),
    (
        Alert.CERTIFICATE_EXPIRING,
        Severity.WARNING,
        "8926fe832fa04b23924765b0d9eb0190",
        "such a certificate ends within 30 days",
    ),
    (
        Alert.VERSIONS_DIFFER,
        Severity.WARNING,
        "2a5c60e29b1c4d6fbcabf4d3ab4a76c0",
        "roles run another version of capd than the one that is installed",
    ),
    (
        Alert.MASKING_FAILED,
        Severity.CRITICAL,
        "02d9b05a34f44384b9ec7b36ef861efd",
        "masking failed in the last ten minutes, a defect of capd: what was said in a session is not recorded",
    ),
    (
        Alert.SECRET_SEEN,
        Severity.CRITICAL,
        "ce132d3c43774368a7dad58cd31fb8e5",
        "a credential of capd was in what an agent said or heard in the last ten minutes",
    ),
    (
        Alert.SECRETS_UNSEARCHED,
        Severity.WARNING,
        "f460b210a4c44f3f997e859207b7e9bf",
        "what agents said in the last ten minutes was not all searched for credentials",
    ),
)
KINDS: Final = {
    alert: Kind(severity=severity, message_id=UUID(message_id), meaning=meaning)
    for alert, severity, message_id, meaning in _KINDS
}
