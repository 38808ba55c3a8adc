"""Where a bucket is: URLs, and how it is reached.

What lives here: parsing of URLs, the options of the network, the standard environment variables. What must not: requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from capd.recording.bucket.errors import BucketUrlError

AWS_REGION_DEFAULT: Final = "us-east-1"
TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})


class Kind(Enum):
    """Who keeps the objects. The value is the URL's scheme."""

    S3 = "s3"
    AZURE = "az"
    GCS = "gs"
    LOCAL = "file"


_SCHEMES: Final = {
    "s3": Kind.S3,
    "s3a": Kind.S3,
    "az": Kind.AZURE,
    "azure": Kind.AZURE,
    "gs": Kind.GCS,
    "gcs": Kind.GCS,
    "file": Kind.LOCAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A bucket and the part of it that is capd's.

    Attributes:
        kind: who keeps it.
        name: of the bucket or container; for a directory "".
        prefix: what all keys start with, without slashes at its ends; for a directory its path.
    """

    kind: Kind
    name: str
    prefix: str

    def __str__(self) -> str:
        """Give the URL; it never holds a secret."""
        if self.kind is Kind.LOCAL:
            return Path(self.prefix).as_uri()
        return f"{self.kind.value}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def directory(self) -> Path:
        """The directory of a local bucket."""
        assert self.kind is Kind.LOCAL
        return Path(self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a bucket is reached. What is None comes from the standard environment variables of its kind.

    Attributes:
        endpoint: URL of an S3-compatible server, of azurite, or of a GCS emulator.
        region: of an S3 bucket.
        ca_file: PEM certificates to trust beside the system's.
        allow_http: whether payload and credentials may go over a connection without TLS.
        timeout_seconds: how long a small request may take; transfers get more by their size.
        retries: how often a request that failed for the moment is repeated before the caller hears of it.
    """

    endpoint: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    allow_http: bool | None = None
    timeout_seconds: int = 30
    retries: int = 3


def parse(url: str) -> Location:
    """Understand a bucket's URL, or a directory's path.

    Raises:
        BucketUrlError: it is none.
    """
    if "://" not in url:
        if not url.startswith(("/", "./", "../", "~")) and url not in (".", ".."):
            raise BucketUrlError(f"{url!r} is no bucket: it has no scheme, and is no path that starts with / or ./")
        return Location(kind=Kind.LOCAL, name="", prefix=str(Path(url).expanduser().absolute()))
    parts = urlsplit(url)
    kind = _SCHEMES.get(parts.scheme)
    if kind is None:
        raise BucketUrlError(f"{url!r}: there are no buckets of this scheme")
    if parts.username or parts.password:
        raise BucketUrlError(f"{parts.scheme}://...: credentials do not belong into a URL; set them in the environment")
    if parts.query or parts.fragment:
        raise BucketUrlError(f"{url!r}: a bucket's URL has neither `?` nor `#`")
    path = unquote(parts.path)
    if kind is Kind.LOCAL:
        if parts.netloc not in ("", "localhost") or not path.startswith("/"):
            raise BucketUrlError(f"{url!r} must have three slashes: file:///DIRECTORY")
        return Location(kind=kind, name="", prefix=str(Path(path)))
    if not parts.netloc:
        raise BucketUrlError(f"{url!r} names no bucket")
    pieces = [piece for piece in path.split("/") if piece]
    if any(piece in (".", "..") for piece in pieces):
        raise BucketUrlError(f"{url!r}: `.` and `..` mean nothing in a bucket")
    return Location(kind=kind, name=parts.netloc, prefix="/".join(pieces))


def with_environment(options: Options, kind: Kind, environment: Mapping[str, str]) -> Options:
    """Fill what is None from the environment variables that every client of that kind reads."""
    names = {
        Kind.S3: (
            ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
            ("AWS_REGION", "AWS_DEFAULT_REGION"),
            "AWS_ALLOW_HTTP",
        ),
        Kind.AZURE: (("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), (), "AZURE_ALLOW_HTTP"),
        Kind.GCS: (("STORAGE_EMULATOR_HOST", "GOOGLE_BASE_URL"), (), "GOOGLE_ALLOW_HTTP"),
        Kind.LOCAL: ((), (), ""),
    }
    endpoints, regions, http = names[kind]
    authority = _first(environment, ("AWS_CA_BUNDLE", "SSL_CERT_FILE") if kind is Kind.S3 else ("SSL_CERT_FILE",))
    allow = environment.get(http, "").lower() in TRUE_WORDS
    return replace(
        options,
        endpoint=options.endpoint or _first(environment, endpoints),
        region=options.region or _first(environment, regions) or (AWS_REGION_DEFAULT if kind is Kind.S3 else None),
        ca_file=options.ca_file or (Path(authority) if authority else None),
        allow_http=allow if options.allow_http is None else options.allow_http,
    )


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
