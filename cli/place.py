"""Where a reading verb finds the recording: on this host, in a copy of its directory, or in a bucket.

What lives here: the options that say so, and opening what they name. What must not: what a verb does with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capd.cli.bucket import bucket_at
from capd.cli.options import CorrectedUsageError
from capd.daemon import locations
from capd.daemon.errors import FleetExtraMissingError
from capd.recording.errors import on_disk

if TYPE_CHECKING:
    from capd.recording.archive import Archive
    from capd.recording.reading import Readable
    from capd.recording.segment.cipher import Keys

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the recording is, as the command line says it; None where it does not.

    Attributes:
        config: configuration file that names the state directory.
        state_dir: a state directory, or a copy of one.
        bucket: URL of a bucket.
        identity: file with the age identity that opens an encrypted recording.
    """

    config: str | None = None
    state_dir: str | None = None
    bucket: str | None = None
    identity: str | None = None

    def keys(self) -> Keys:
        """Give who opens encrypted segments: the identities in the file, or nobody.

        Raises:
            CapdError: the file cannot be read, or holds something else.
        """
        from capd.recording.age import Identities, NoKeys  # noqa: PLC0415 - `--help` must not pay for it

        return NoKeys() if self.identity is None else Identities.load(Path(self.identity))


SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a directory of its own is made there, readable for the caller only
"""Where an index of an encrypted recording is made for one command: what it holds must not reach a disk."""
_IDENTITY = click.option(
    "--identity",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    envvar="CAPD_IDENTITY",
    help="age identity that opens an encrypted recording (else CAPD_IDENTITY).",
)
_BUCKET = click.option(
    "--bucket",
    metavar="URL",
    help="Read the recordings of all hosts in this bucket instead: s3://, az://, gs:// or a directory.",
)
_STATE_DIR = click.option("--state-dir", metavar="DIR", help="Read this directory instead, such as a copy from another host.")
_CONFIG = click.option(
    "--config", metavar="FILE", help="Configuration that names the state_dir (else CAPD_CONFIG, /etc/capd/capd.toml)."
)


def reads_recording(decorated: Decorated) -> Decorated:
    """Add --config, --state-dir, --bucket and --identity; the command is given them as one argument, `place`."""

    @wraps(decorated)
    def placed(**given: Any) -> Any:  # noqa: ANN401 - click's
        place = Place(**{name: given.pop(name) for name in ("config", "state_dir", "bucket", "identity")})
        if place.bucket is not None and place.state_dir is not None:
            raise CorrectedUsageError(
                "--bucket and --state-dir both say where to read", f"capd sessions --bucket {place.bucket}"
            )
        return decorated(place=place, **given)

    wrapped: Any = placed
    for option in (_IDENTITY, _BUCKET, _STATE_DIR, _CONFIG):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return] # a decorator gives back what it was given


def state_directory(place: Place) -> Path:
    """Say where the recording is, reading only `state_dir` of the configuration: checking all of it takes longer than a replay.

    Raises:
        ConfigurationError: the configuration cannot be read, or its `state_dir` is no path.
    """
    if place.state_dir is not None:
        return Path(place.state_dir)
    return locations.state_directory(place.config)


@contextmanager
def open_recording(place: Place, *, searched: bool = False) -> Iterator[Readable]:
    """Open the recording for reading.

    Args:
        place: where it is.
        searched: whether its text will be searched, so that an index must have it.

    Raises:
        CapdError: there is none, it may not be read, or it is damaged.
    """
    if place.bucket is None:
        with open_archive(place, searched=searched) as archive:
            yield archive
        return
    try:
        from capd.recording.catalogue.archive import FleetArchive  # noqa: PLC0415 - `--help` must not pay for it
    except ModuleNotFoundError as error:
        raise FleetExtraMissingError(error.name or "a module") from error
    with FleetArchive(bucket_at(place.bucket, place.config), place.keys()) as fleet:
        try:
            yield fleet
        finally:
            for key in fleet.index.unreadable:
                click.echo(f"capd: {key} is damaged, or no file of a catalogue: what it told is not in the answer", err=True)


@contextmanager
def open_archive(place: Place, *, searched: bool = False) -> Iterator[Archive]:
    """Open a state directory; where only segments were brought along, make an index of them in a temporary directory.

    The same is done where the index there lacks what is to be searched, because it is encrypted, and an identity is given.

    Raises:
        CapdError: there is none, it may not be read, or it is damaged.
    """
    if place.bucket is not None:
        raise CorrectedUsageError("this reads a directory, not a bucket", f"capd sessions --bucket {place.bucket}")
    from capd.recording.archive import MANIFEST, Archive  # noqa: PLC0415 - `--help` must not pay for it

    with ExitStack() as held:
        keys = place.keys()
        archive = held.enter_context(Archive(state_directory(place), keys))
        with on_disk("read", archive.segments):
            # A bundle has none of its own: one that lies in it is of whoever handed it on, and nobody signed it.
            bare = not archive.index_path.exists() or (archive.directory / MANIFEST).exists()
            recorded = bare and any(archive.segments.iterdir())
        withheld = not bare and searched and place.identity is not None and archive.index.withholds
        if withheld:
            bare = recorded = True
        if bare:
            from tempfile import TemporaryDirectory  # noqa: PLC0415 - it brings 2 ms of modules that nobody else here needs

            from capd.recording import index_segments  # noqa: PLC0415 - as above

            # Right after the first start there is neither index nor segment: nothing was recorded, which is no error.
            memory = SHARED_MEMORY if place.identity is not None and os.access(SHARED_MEMORY, os.W_OK) else None
            directory = Path(held.enter_context(TemporaryDirectory(prefix="capd-index-", dir=memory)))
            archive.close()
            archive.index_path = directory / archive.index_path.name
        if recorded:
            lack = "no text of what is encrypted in the index of" if withheld else "no index in"
            click.echo(f"capd: {lack} {archive.directory}; making one of its segments for this command", err=True)
        if bare:
            for damaged in index_segments.rebuild(archive.index_path, archive.segments, keys, said=True):
                click.echo(f"capd: {damaged} is damaged: what is in it may not be found", err=True)
        yield archive
