"""Buckets over the network: S3 and what is compatible, Azure, Google, through obstore.

What lives here: making of stores, the time that a transfer gets, their errors. What must not: what is shipped when.

obstore is imported with the first store: it costs 48 MB of memory, and readers of a directory do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from capd.recording.bucket.errors import (
    BucketError,
    BucketTimeoutError,
    BucketTlsError,
    ObjectMissingError,
    classify,
    is_behind_the_end,
)
from capd.recording.bucket.location import Kind, Location, Options
from capd.recording.bucket.store import Entry, Source

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    ObjectStore = AzureStore | GCSStore | S3Store

BYTES_PER_SECOND_SLOWEST: Final = 128 * 1024
"""A transfer gets the time it needs at this rate, and twice as much after each time that this was not enough ..."""
PATIENCE_DOUBLINGS_MAX: Final = 8
"""... down to half a KiB/s."""
WENT_WELL_MIN: Final = 32
"""After so many transfers in time the next gets half as long: not at once, or every other one would be sent in vain."""
CONNECT_SECONDS: Final = 10
_Result = TypeVar("_Result")


class RemoteStore:
    """Objects in a bucket somewhere else."""

    def __init__(self, location: Location, options: Options) -> None:
        """Prepare; nothing is sent before the first operation.

        Raises:
            BucketError: the options make no sense for obstore, or `ca_file` cannot be read.
        """
        self._location = location
        self._options = options
        self._url = str(location)
        self._certificates = _certificates(options)
        self._stores: dict[tuple[int, bool], ObjectStore] = {}
        self._patience = 0
        self._went_well = 0

    # -- what a store does -----------------------------------------------------------------------------------------------------

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give the objects whose key starts with the prefix."""
        import obstore  # noqa: PLC0415 - see the module

        folder, _, _ = prefix.rpartition("/")
        pages = iter(self._try("list", prefix, lambda: obstore.list(self._store(0), folder or None)))
        while True:
            page = self._try("list", prefix, lambda: next(pages, None))
            if page is None:
                return
            for found in page:
                if found["path"].startswith(prefix):
                    modified_ns = int(found["last_modified"].timestamp() * 1e6) * 1000
                    yield Entry(key=found["path"], size=found["size"], modified_ns=modified_ns)

    def folders(self, prefix: str) -> Iterator[str]:
        """Give the next parts of the keys below a folder."""
        import obstore  # noqa: PLC0415 - see the module

        result = self._try("list", prefix, lambda: obstore.list_with_delimiter(self._store(0), prefix.rstrip("/") or None))
        yield from (name.rstrip("/").rpartition("/")[2] for name in result["common_prefixes"])

    def size(self, key: str) -> int:
        """Give an object's length."""
        import obstore  # noqa: PLC0415 - see the module

        return self._try("look at", key, lambda: obstore.head(self._store(0), key))["size"]

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Give a range of an object."""
        import obstore  # noqa: PLC0415 - see the module

        if length == 0:
            return b""
        store = self._store(length)
        try:
            found = self._patiently("read", key, lambda: obstore.get_range(store, key, start=offset, length=length))
            return bytes(found)
        except BucketError as error:
            if is_behind_the_end(error.__cause__):
                return b""
            raise

    def create(self, key: str, source: Source) -> str | None:
        """Create an object in one request that the server refuses if the name is taken."""
        import obstore  # noqa: PLC0415 - see the module
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 - see the module

        content = source.whole()
        store = self._store(len(content), writing=True)

        def put() -> str | None:
            try:
                return obstore.put(store, key, content, mode="create", use_multipart=False)["version"] or ""
            except (AlreadyExistsError, PreconditionError):
                return None

        return self._patiently("create", key, put)

    def delete(self, key: str) -> None:
        """Remove an object."""
        import obstore  # noqa: PLC0415 - see the module

        with suppress(ObjectMissingError):
            self._try("delete", key, lambda: obstore.delete(self._store(0), key))

    # -- how -------------------------------------------------------------------------------------------------------------------

    def _try(self, what: str, key: str, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except BucketError:
            raise
        except Exception as error:  # obstore's errors have no common base with FileNotFoundError and ValueError
            raise classify(error, f"{what} {key}", self._url) from error

    def _patiently(self, what: str, key: str, action: Callable[[], _Result]) -> _Result:
        """Try a transfer; learn from a time-out to give the next one longer, and from many that went well to give it less."""
        try:
            result = self._try(what, key, action)
        except BucketTimeoutError:
            self._patience = min(self._patience + 1, PATIENCE_DOUBLINGS_MAX)
            self._went_well = 0
            raise
        self._went_well += 1
        if self._went_well == WENT_WELL_MIN:
            self._patience, self._went_well = max(self._patience - 1, 0), 0
        return result

    def seconds(self, transferred: int) -> int:
        """Give how long a transfer of so many bytes may take: rounded to a power of two, for one store serves many sizes."""
        needed = self._options.timeout_seconds + (transferred << self._patience) // BYTES_PER_SECOND_SLOWEST
        return 1 << max(0, needed - 1).bit_length()

    def _store(self, transferred: int, *, writing: bool = False) -> ObjectStore:
        seconds = self.seconds(transferred)
        found = self._stores.get((seconds, writing))
        if found is None:
            found = self._stores[seconds, writing] = self._make(seconds, 0 if writing else self._options.retries)
        return found

    def _make(self, seconds: int, retries: int) -> ObjectStore:
        from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415 - see the module

        client: dict[str, Any] = {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, seconds)),
            "allow_http": bool(self._options.allow_http),
        }
        if self._certificates:
            client["root_certificate"] = self._certificates
        common: dict[str, Any] = {
            "prefix": self._location.prefix or None,
            "client_options": client,
            "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=seconds * (1 + retries))},
        }
        kinds = {Kind.S3: S3Store, Kind.AZURE: AzureStore, Kind.GCS: GCSStore}
        settings = self._settings()
        make = cast("Callable[..., ObjectStore]", kinds[self._location.kind])
        return self._try("open", self._location.name, lambda: make(self._location.name, **settings, **common))

    def _settings(self) -> dict[str, Any]:
        options = self._options
        match self._location.kind:
            case Kind.S3:
                return {
                    "region": options.region,
                    "checksum_algorithm": "SHA256",
                    **({"endpoint": options.endpoint} if options.endpoint else {}),
                }
            case Kind.AZURE:
                return {"endpoint": options.endpoint} if options.endpoint else {}
            case Kind.GCS:
                return {"base_url": options.endpoint} if options.endpoint else {}
        raise AssertionError(self._location.kind)


def _certificates(options: Options) -> bytes:
    if options.ca_file is None:
        return b""
    try:
        return options.ca_file.read_bytes()
    except OSError as error:
        raise BucketTlsError(f"cannot read the certificates in {options.ca_file}: {error.strerror}") from error
