"""`[bucket]`, `[shipper]`, `[catalogue]`, `[local]` and `[[retention]]`: how a recording leaves, how long it is kept.

What lives here: the pydantic models of these sections. What must not: what follows from them (shipper.py, retention.py).
"""

from __future__ import annotations

from pydantic import Field

from capd.daemon.section import AbsolutePath, Section
from capd.daemon.units import GIB


class BucketSection(Section):
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
        default=30,
        ge=1,
        le=3600,
        description="how long a small request may take; a transfer gets more, by its size, and more after a time-out",
    )


class ShipperSection(Section):
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


class CatalogueSection(Section):
    """`[catalogue]`: Parquet files in the bucket, by which a fleet is searched (needs the package capd-fleet)."""

    enabled: bool = Field(default=True, description="whether this host writes the catalogue of what it ships")
    delay_seconds: int = Field(
        default=60, ge=1, le=86_400, description="how long a shipped segment waits for others to share a file with"
    )


class LocalSection(Section):
    """`[local]`: how long segments stay on this host once the bucket is seen to hold them."""

    days: int | None = Field(default=30, ge=0, description="the age at which they go; `0`: once they are shipped")
    bytes_max: int | None = Field(default=None, ge=0, description="they go, the oldest first, while all take more than this")
    free_bytes_min: int = Field(
        default=1 * GIB, ge=0, description="they go, whatever their age, while the file system has less free"
    )


class RetentionRule(Section):
    """`[[retention]]`: a class of recordings. The first that fits decides; a session that none fits is kept for ever."""

    name: str = Field(min_length=1, max_length=64, description="what records of deletion call it")
    principal: str | None = Field(default=None, description="pattern for whom it acted: a name, or a user's number")
    target: str | None = Field(default=None, description="pattern for the peer: `HOST` or `HOST:PORT`, by name or address")
    label: str | None = Field(default=None, description="pattern for a label of the run: `KEY=VALUE`")
    hot_days: int | None = Field(default=None, ge=0, description="on this host and in the bucket; else `local.days`")
    archive_days: int | None = Field(default=None, ge=0, description="then in the bucket only; none: for ever")
