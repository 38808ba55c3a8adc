"""The bucket that a verb is told to read.

What lives here: opening it the way the configuration says, if it is the configured one. What must not: what is read of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon.configuration_files import read_values
from capd.daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from capd.recording.bucket import Bucket

TYPES: Final[Mapping[str, type]] = {"endpoint": str, "region": str, "ca_file": str, "allow_http": bool}
"""Keys of `[bucket]` that say how it is reached."""


def bucket_at(url: str, config: str | None) -> Bucket:
    """Give the bucket at a URL. Reads `bucket_url` and `[bucket]` of the configuration alone: checking all of it takes longer.

    Args:
        url: where.
        config: the configuration that was named; None: where one is looked for.

    Raises:
        BucketUrlError: this is no URL of a bucket.
        ConfigurationError: the configuration cannot be read, or `[bucket]` cannot be used.
    """
    from capd.recording.bucket import Bucket  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording.bucket.location import Options, parse  # noqa: PLC0415 - as above

    wanted = parse(url)
    read = read_values(config)
    configured = parse(str(read["bucket_url"])) if "bucket_url" in read else None
    if configured is None or (configured.kind, configured.name) != (wanted.kind, wanted.name):
        return Bucket.open(url)
    found = _section(read.get("bucket", {}))
    ca_file = found.get("ca_file")
    return Bucket.open(
        url,
        Options(
            endpoint=_text(found, "endpoint"),
            region=_text(found, "region"),
            ca_file=None if ca_file is None else Path(str(ca_file)),
            allow_http=bool(found["allow_http"]) if "allow_http" in found else None,
        ),
    )


def _section(section: object) -> Mapping[str, object]:
    if not isinstance(section, Mapping):
        raise ConfigurationError("[bucket] must be a table")
    wrong = [key for key, kind in TYPES.items() if key in section and not isinstance(section[key], kind)]
    if wrong:
        raise ConfigurationError(f"[bucket] {wrong[0]} must be of another type")
    return section


def _text(section: Mapping[str, object], key: str) -> str | None:
    return str(section[key]) if key in section else None
