"""The configuration: what can be set, its defaults, its limits, and where an instance keeps its files.

What lives here: the pydantic model of capd.toml and the paths that follow from it. What must not: reading anything else of the
host. An empty file, or none, is a good configuration. docs/operations.md lists every key; a test holds it against this model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from capd.daemon import locations, units
from capd.daemon.approvals_section import ApprovalsSection, ListenAddress
from capd.daemon.credentials_section import CredentialSection, Name
from capd.daemon.enforcement_section import AbsolutePath, EnforcementSection
from capd.daemon.errors import ConfigurationError
from capd.daemon.recording_policy import MaskingSection, RecordingSection
from capd.recording.bucket.errors import BucketUrlError
from capd.recording.bucket.location import parse as parse_url

KIB: Final = units.KIB
MIB: Final = units.MIB
GIB: Final = units.GIB

RING_BYTES_MIN: Final = 64 * KIB
"""The kernel wants whole pages; below this a single TLS record of 16 KiB fills a quarter of the ring."""
RING_BYTES_MAX: Final = 256 * MIB
"""A journal block holds at most one ring, and RAW_BYTES_MAX there is this; all of a ring is locked memory."""
JOURNAL_BYTES_MIN: Final = 1 * MIB
"""Less than a few blocks and the drain would stop before the recorder can free anything."""


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


def _bucket_url(value: str) -> str:
    try:
        parse_url(value)
    except BucketUrlError as error:
        raise ValueError(str(error)) from error
    return value


BucketUrl = Annotated[str, AfterValidator(_bucket_url)]
RingBytes = Annotated[int, Field(ge=RING_BYTES_MIN, le=RING_BYTES_MAX), AfterValidator(_power_of_two)]


def _recipient(value: str) -> str:
    from capd.recording.age import check_recipient  # noqa: PLC0415 - only who has recipients needs age
    from capd.recording.errors import RecipientError  # noqa: PLC0415 - as above

    try:
        return check_recipient(value)
    except RecipientError as error:
        raise ValueError(f"{error}; {error.hint}") from error


Recipient = Annotated[str, AfterValidator(_recipient)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class CaptureSection(_Section):
    """`[capture]`: how the kernel side works."""

    tier: Literal["auto", "modern", "classic"] = Field(
        default="auto", description="which set of probes; `auto` takes `modern` where the kernel has it (6.16 and later)"
    )
    data_ring_bytes: RingBytes = Field(
        default=64 * MIB,
        description="memory between kernel and daemon for payload; a power of two; a burst above it is lost, counted",
    )
    control_ring_bytes: RingBytes = Field(
        default=4 * MIB, description="the same for process and connection events, apart so that payload cannot crowd them out"
    )


class JournalSection(_Section):
    """`[journal]`: raw capture on disk, until the recorder has sealed it into segments."""

    bytes_max: int = Field(
        default=8 * GIB,
        ge=JOURNAL_BYTES_MIN,
        description="when this much waits for the recorder, draining stops and the kernel counts what is lost",
    )
    compression: Literal["zstd", "none"] = Field(default="zstd", description="zstd level 1, or none for the least CPU")
    free_bytes_min: int = Field(
        default=256 * MIB,
        ge=0,
        description="draining stops while the file system has less free, so that what is recorded can still be sealed",
    )


class StorageSection(_Section):
    """`[storage]`: when room for the recording is short, and what happens to agents then."""

    low_bytes: int = Field(default=1 * GIB, ge=0, description="with less free the state is `low`: it is told, nothing else")
    low_inodes: int = Field(default=10_000, ge=0, description="the same for files that can still be made")
    critical_bytes: int = Field(
        default=512 * MIB, ge=0, description="with less free it is `critical`; below `journal.free_bytes_min` it is `out`"
    )
    critical_inodes: int = Field(default=1_000, ge=0, description="the same for files that can still be made")
    reserve_bytes: int = Field(
        default=32 * MIB, ge=0, description="kept in a file, and given up at `out` to close what is open; 0: none"
    )
    action: Literal["continue", "refuse", "stop"] = Field(
        default="refuse",
        description="at `critical`: agents go on unrecorded, or their new connections are refused, or they are stopped",
    )


class RecorderSection(_Section):
    """`[recorder]`: the role that decodes."""

    user: str | None = Field(
        default=None,
        description="its user; default: `capd` if it exists, else who owns state_dir/segments, else a free number",
    )


class EncryptionSection(_Section):
    """`[encryption]`: who can read what is recorded."""

    recipients: tuple[Recipient, ...] = Field(
        default=(), description="age X25519 recipients (age1...); with any, only their identities open what is recorded"
    )
    journal_key: Literal["auto", "memory", "disk"] = Field(
        default="auto",
        description="where the journal's key is; in memory a power cut costs what was not sealed; auto: so with recipients",
    )

    @property
    def journal_key_in_memory(self) -> bool:
        """Whether the journal's key must not be on a disk."""
        return self.journal_key == "memory" or (self.journal_key == "auto" and bool(self.recipients))


class BucketSection(_Section):
    """`[bucket]`: how `bucket_url` is reached. Credentials come from the environment, as do keys that are not set."""

    endpoint: str | None = Field(
        default=None, description="URL of a server that is compatible with S3, or of azurite; else AWS_ENDPOINT_URL"
    )
    region: str | None = Field(default=None, description="else AWS_REGION, else `us-east-1`")
    ca_file: AbsolutePath | None = Field(
        default=None, description="certificates (PEM) to trust beside the system's; else AWS_CA_BUNDLE"
    )
    allow_http: bool | None = Field(
        default=None, description="whether payload and credentials may go over the network in clear; else AWS_ALLOW_HTTP"
    )
    timeout_seconds: int = Field(
        default=30, ge=1, le=3600, description="how long a small request may take; a transfer gets more, by its size"
    )


class ShipperSection(_Section):
    """`[shipper]`: the role that ships."""

    bytes_per_second: int = Field(
        default=0, ge=0, description="limit on what is sent and read back, averaged over segments; 0: none"
    )
    retry_seconds_max: int = Field(
        default=300, ge=1, le=86_400, description="the longest wait between two tries while the bucket fails"
    )
    late_seconds: int = Field(
        default=600, ge=1, description="`capd status` says degraded when something has waited this long to be shipped"
    )


class CatalogueSection(_Section):
    """`[catalogue]`: Parquet files in the bucket, by which a fleet is searched (needs the `fleet` extra)."""

    enabled: bool = Field(default=True, description="whether this host writes the catalogue of what it ships")
    delay_seconds: int = Field(
        default=60, ge=1, le=86_400, description="how long a shipped segment waits for others to share a file with"
    )


class MetricsSection(_Section):
    """`[metrics]`: figures for Prometheus."""

    listen: ListenAddress | None = Field(
        default=None, description="`unix:/path`, `127.0.0.1:PORT` or `[::1]:PORT`; others are refused; none: nobody listens"
    )


class AlertsSection(_Section):
    """`[alerts]`: when a change of health is told."""

    enabled: bool = Field(default=True, description="whether changes of health are logged, and are files while they last")
    begin_seconds: float = Field(default=10, ge=0, le=3600, description="how long something must be wrong to be told")
    end_seconds: float = Field(default=60, ge=0, le=3600, description="how long it must be right again to be told")


class LocalSection(_Section):
    """`[local]`: how long segments stay on this host once the bucket is seen to hold them."""

    days: int | None = Field(default=30, ge=0, description="age; `0`: they go once they are shipped")
    bytes_max: int | None = Field(default=None, ge=0, description="length of all together; the oldest go first")
    free_bytes_min: int = Field(
        default=1 * GIB, ge=0, description="the oldest go while the file system has less free, whatever their age"
    )


class RetentionRule(_Section):
    """`[[retention]]`: one class. The first that fits a session decides; a session that none fits is kept for ever."""

    name: str = Field(min_length=1, max_length=64, description="what records of deletion call it")
    principal: str | None = Field(default=None, description="pattern for whom it acted: a name, or a user's number")
    target: str | None = Field(default=None, description="pattern for the peer: `HOST` or `HOST:PORT`, by name or address")
    label: str | None = Field(default=None, description="pattern for a label of the run: `KEY=VALUE`")
    hot_days: int | None = Field(default=None, ge=0, description="on this host and in the bucket; else `local.days`")
    archive_days: int | None = Field(default=None, ge=0, description="then in the bucket only; none: for ever")


class SelectionSection(_Section):
    """`[selection]`: what is recorded besides `capd run`."""

    slices: tuple[str, ...] = Field(
        default=("capd-agents.slice",),
        description="systemd slices by name, or cgroups by path, of which every child becomes a run, now and later",
    )
    cgroups: tuple[str, ...] = Field(
        default=(), description="cgroups by path (below the root of the hierarchy) that are each one run"
    )


class Configuration(_Section):
    """One capd instance."""

    state_dir: AbsolutePath = Field(default=locations.STATE_DIRECTORY, description="what is recorded; survives a reboot")
    runtime_dir: AbsolutePath = Field(
        default=locations.RUNTIME_DIRECTORY, description="control socket and what is true only while capd runs; a tmpfs"
    )
    bucket_url: BucketUrl | None = Field(
        default=None, description="where sealed segments are shipped; none: they stay in state_dir"
    )
    policy_dir: AbsolutePath = Field(
        default=locations.POLICY_DIRECTORY, description="what agents may do: *.yaml, docs/policy.md"
    )
    capture: CaptureSection = CaptureSection()
    journal: JournalSection = JournalSection()
    storage: StorageSection = StorageSection()
    recorder: RecorderSection = RecorderSection()
    encryption: EncryptionSection = EncryptionSection()
    selection: SelectionSection = SelectionSection()
    enforcement: EnforcementSection = EnforcementSection()
    approvals: ApprovalsSection = ApprovalsSection()
    credentials: dict[Name, CredentialSection] = Field(default={}, description="what is put into requests, by name")
    bucket: BucketSection = BucketSection()
    shipper: ShipperSection = ShipperSection()
    catalogue: CatalogueSection = CatalogueSection()
    local: LocalSection = LocalSection()
    metrics: MetricsSection = MetricsSection()
    alerts: AlertsSection = AlertsSection()
    recording: RecordingSection = RecordingSection()
    masking: MaskingSection = MaskingSection()
    retention: tuple[RetentionRule, ...] = Field(default=(), description="how long recordings are kept; none: for ever")

    @model_validator(mode="after")
    def _directories_apart(self) -> Self:
        if self.state_dir == self.runtime_dir:
            raise ValueError("state_dir and runtime_dir must be two directories")
        return self

    @property
    def host_file(self) -> Path:
        """Text: the UUID of this host."""
        return self.state_dir / "host"

    @property
    def keys_dir(self) -> Path:
        """The host's signing key and its public keys; root writes, the recorder's group reads."""
        return self.state_dir / "keys"

    @property
    def journal_dir(self) -> Path:
        """Raw capture; root writes, the recorder's group reads."""
        return self.state_dir / "journal"

    @property
    def probes_dir(self) -> Path:
        """Give where root keeps the compiled probes, so that the next start need not compile."""
        return self.state_dir / "probes"

    @property
    def recorder_dir(self) -> Path:
        """The recorder's own: its position in the journal and its lock."""
        return self.state_dir / "recorder"

    @property
    def position_file(self) -> Path:
        """Up to where the journal is in sealed segments; written by the recorder, read by the daemon."""
        return self.recorder_dir / "position"

    @property
    def shipper_dir(self) -> Path:
        """The shipper's own: what it knows to be in the bucket, and its lock."""
        return self.state_dir / "shipper"

    @property
    def deletions_dir(self) -> Path:
        """Copies of this host's records of deletion."""
        return self.shipper_dir / "deletions"

    @property
    def journal_key_file(self) -> Path:
        """Where the journal's keys are."""
        return self._journal_keys(in_memory=self.encryption.journal_key_in_memory)

    @property
    def journal_key_elsewhere(self) -> Path:
        """Where they must not be."""
        return self._journal_keys(in_memory=not self.encryption.journal_key_in_memory)

    @property
    def segments_dir(self) -> Path:
        """The recording."""
        return self.state_dir / "segments"

    @property
    def index_dir(self) -> Path:
        """Where the index lies."""
        return self.state_dir / "index"

    @property
    def index_file(self) -> Path:
        """SQLite; can be rebuilt from the segments."""
        return self.index_dir / "capd.db"

    @property
    def quarantine_dir(self) -> Path:
        """What the recorder could not read."""
        return self.state_dir / "quarantine"

    @property
    def reserve_file(self) -> Path:
        """Room that is given up when there is no other."""
        return self.state_dir / "reserve"

    @property
    def storage_file(self) -> Path:
        """JSON: the state of storage, for the recorder."""
        return self.runtime_dir / "storage.json"

    @property
    def frozen_file(self) -> Path:
        """JSON: cgroups of runs that are stopped."""
        return self.runtime_dir / "frozen.json"

    @property
    def control_socket(self) -> Path:
        """Where the daemon listens."""
        return self.runtime_dir / locations.CONTROL_SOCKET

    @property
    def lock_file(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.runtime_dir / "daemon.lock"

    @property
    def state_lock_file(self) -> Path:
        """Held besides: two instances with one state directory would overwrite each other."""
        return self.state_dir / "daemon.lock"

    @property
    def pid_file(self) -> Path:
        """Text: the daemon's pid."""
        return self.runtime_dir / "daemon.pid"

    @property
    def recorder_runtime_dir(self) -> Path:
        """The recorder's own corner: it must not be able to put a socket where clients look for the daemon."""
        return self.runtime_dir / "recorder"

    @property
    def recorder_status_file(self) -> Path:
        """JSON, replaced by the recorder every second."""
        return self.recorder_runtime_dir / "recorder.status.json"

    @property
    def decisions_done_file(self) -> Path:
        """JSON: files of the decision log that the recorder has done with, for whoever wrote them."""
        return self.recorder_runtime_dir / "decisions.done.json"

    @property
    def shipper_runtime_dir(self) -> Path:
        """The shipper's own corner."""
        return self.runtime_dir / "shipper"

    @property
    def shipper_status_file(self) -> Path:
        """JSON, replaced by the shipper every second."""
        return self.shipper_runtime_dir / "shipper.status.json"

    @property
    def catalogue_status_file(self) -> Path:
        """JSON, replaced whenever the catalogue was extended."""
        return self.shipper_runtime_dir / "catalogue.status.json"

    @property
    def enforcer_dir(self) -> Path:
        """The enforcer's own: the key of the authority, and what it decided."""
        return self.state_dir / "enforcer"

    @property
    def decisions_dir(self) -> Path:
        """The decision log."""
        return self.enforcer_dir / "decisions"

    @property
    def trust_dir(self) -> Path:
        """What agents trust; everybody may read it, root alone write."""
        return self.state_dir / "trust"

    @property
    def approvals_dir(self) -> Path:
        """What waits for persons, and what they decided."""
        return self.enforcer_dir / "approvals"

    @property
    def callbacks_dir(self) -> Path:
        """What webhooks were told."""
        return self.enforcer_dir / "callbacks"

    @property
    def enforcer_runtime_dir(self) -> Path:
        """The enforcer's own corner."""
        return self.runtime_dir / locations.ENFORCER_RUNTIME

    @property
    def enforcer_status_file(self) -> Path:
        """JSON, replaced by the enforcer every second."""
        return self.enforcer_runtime_dir / "enforcer.status.json"

    @property
    def metrics_runtime_dir(self) -> Path:
        """The corner of the role that watches health."""
        return self.runtime_dir / "metrics"

    @property
    def metrics_status_file(self) -> Path:
        """JSON, replaced by that role every two seconds."""
        return self.metrics_runtime_dir / "metrics.status.json"

    @property
    def alerts_dir(self) -> Path:
        """One JSON file for each alert, for as long as it lasts."""
        return self.runtime_dir / "alerts"

    @property
    def runs_dir(self) -> Path:
        """One JSON file for each live run."""
        return self.runtime_dir / "runs"

    def _journal_keys(self, *, in_memory: bool) -> Path:
        return (self.runtime_dir if in_memory else self.keys_dir) / "journal.key"


def load(given: str | None = None) -> Configuration:
    """Read the configuration file that `locations.configuration_file` names.

    Raises:
        ConfigurationError: the file cannot be read, or is wrong; the message names every problem.
    """
    path = locations.configuration_file(given)
    return Configuration() if path is None else parse(locations.read_toml(path), str(path))


def parse(values: dict[str, object], source: str) -> Configuration:
    """Check values that were read from `source`.

    Raises:
        ConfigurationError: they are wrong; the message names every problem, one to a line.
    """
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        problems = [f"{source}: {_problem(item['loc'], item['type'], item['msg'])}" for item in error.errors()]
        raise ConfigurationError("\n".join(problems)) from error


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return f"{key}: no such key; docs/operations.md lists all"
    words = message.removeprefix("Value error, ")
    return f"{key}: {words}" if key else words
