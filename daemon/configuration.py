"""The configuration: what can be set, its defaults, its limits, and where an instance keeps its files.

What lives here: the pydantic model of capd.toml and the paths that follow from it. What must not: reading anything else of the
host. An empty file, or none, is a good configuration. docs/configuration.md is made from this model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from capd.daemon import configuration_files, locations, units
from capd.daemon.approvals_section import ApprovalsSection, ListenAddress
from capd.daemon.configuration_files import Layered
from capd.daemon.configuration_problems import problems_of
from capd.daemon.credentials_section import CredentialSection, Name
from capd.daemon.enforcement_section import EnforcementSection
from capd.daemon.errors import ConfigurationError
from capd.daemon.instance_paths import InstancePaths
from capd.daemon.recording_policy import MaskingSection, RecordingSection
from capd.daemon.section import AbsolutePath, Section
from capd.daemon.shipping_sections import BucketSection, CatalogueSection, LocalSection, RetentionRule, ShipperSection
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
        raise ValueError(f"{error}; {error.hint}") from error
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


class CaptureSection(Section):
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


class JournalSection(Section):
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


class StorageSection(Section):
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


class RecorderSection(Section):
    """`[recorder]`: the role that decodes."""

    user: str | None = Field(
        default=None,
        description="its user; default: `capd` if it exists, else who owns state_dir/segments, else a free number",
    )


class EncryptionSection(Section):
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


class MetricsSection(Section):
    """`[metrics]`: figures for Prometheus."""

    listen: ListenAddress | None = Field(
        default=None,
        description="where Prometheus may ask: `unix:/path`, `127.0.0.1:PORT` or `[::1]:PORT`; none: nobody listens",
    )


class AlertsSection(Section):
    """`[alerts]`: when a change of health is told."""

    enabled: bool = Field(default=True, description="whether changes of health are logged, and are files while they last")
    begin_seconds: float = Field(default=10, ge=0, le=3600, description="how long something must be wrong to be told")
    end_seconds: float = Field(default=60, ge=0, le=3600, description="how long it must be right again to be told")


class SelectionSection(Section):
    """`[selection]`: what is recorded besides `capd run`."""

    slices: tuple[str, ...] = Field(
        default=("capd-agents.slice",),
        description="systemd slices by name, or cgroups by path, of which every child becomes a run, now and later",
    )
    cgroups: tuple[str, ...] = Field(
        default=(), description="cgroups by path (below the root of the hierarchy) that are each one run"
    )


class Configuration(Section, InstancePaths):
    """One capd instance."""

    state_dir: AbsolutePath = Field(
        default=locations.STATE_DIRECTORY,
        description="what is recorded; survives a reboot; under systemd not to be moved (docs/operations.md)",
    )
    runtime_dir: AbsolutePath = Field(
        default=locations.RUNTIME_DIRECTORY, description="control socket and what is true only while capd runs; a tmpfs"
    )
    bucket_url: BucketUrl | None = Field(
        default=None, description="where sealed segments are shipped; none: they stay in state_dir"
    )
    policy_dir: AbsolutePath = Field(
        default=locations.POLICY_DIRECTORY, description="what agents may do: every *.yaml in it (docs/policy.md)"
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
    def journal_key_file(self) -> Path:
        """Where the journal's keys are."""
        return self._journal_keys(in_memory=self.encryption.journal_key_in_memory)

    @property
    def journal_key_elsewhere(self) -> Path:
        """Where they must not be."""
        return self._journal_keys(in_memory=not self.encryption.journal_key_in_memory)

    def _journal_keys(self, *, in_memory: bool) -> Path:
        return (self.runtime_dir if in_memory else self.keys_dir) / "journal.key"


def load(given: str | None = None) -> Configuration:
    """Read the files that `configuration_files` names.

    Raises:
        ConfigurationError: one cannot be read, or is wrong; the message names every problem.
    """
    return judge(configuration_files.read_layered(given))


def parse(values: dict[str, object], source: str) -> Configuration:
    """Check values that were read from `source`, as `judge` does."""
    return judge(Layered(values=values), source)


def judge(layered: Layered, source: str = "") -> Configuration:
    """Check what files say together.

    Args:
        layered: that.
        source: what problems are said to be in, where it is no line of a file.

    Raises:
        ConfigurationError: it is wrong; the message names every problem, one to a line.
    """
    try:
        return Configuration.model_validate(layered.values)
    except ValidationError as error:
        named = source or ", ".join(map(str, layered.files)) or "configuration"
        raise ConfigurationError.of(tuple(problems_of(error, layered, named))) from error
