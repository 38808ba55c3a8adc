"""What the reading verbs share on the command line: options, usage errors with a corrected command, finding the recording.

What lives here: click plumbing. What must not: what a verb does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from capd.cli import moments
from capd.daemon import locations
from capd.daemon.errors import ConfigurationError
from capd.recording.errors import on_disk

if TYPE_CHECKING:
    from capd.recording.archive import Archive

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class CorrectedUsageError(click.UsageError):
    """The command was used wrongly; says in one line how, and in a second one what would have been right."""

    def __init__(self, message: str, corrected: str, ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.hint = f"try: {corrected}"

    def show(self, file: IO[Any] | None = None) -> None:
        """Write both lines."""
        click.echo(f"capd: {self.format_message()}\n  {self.hint}", file=file, err=file is None)


class Verb(click.Command):
    """A command that shows examples in its help, and one of them whenever it is used wrongly."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:  # noqa: ANN401 - click's own signature
        super().__init__(*args, **settings)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':>{formatter.current_indent}}{example}\n" for example in self.examples))
        super().format_epilog(ctx, formatter)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> click.Context:
        """Parse the arguments; a usage error leaves with a corrected command."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except CorrectedUsageError:
            raise
        except click.UsageError as error:
            corrected = self.examples[0] if self.examples else f"{self.name} --help"
            raise CorrectedUsageError(error.format_message(), corrected, error.ctx) from error


class Moment(click.ParamType[str]):
    """A time on the command line; it is read later, when it is known what it counts from."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        """Refuse what is no time before anything else happens."""
        try:
            moments.parse(str(value), origin_ns=0, back=False)
        except moments.UnreadableTimeError:
            self.fail(
                f"{value!r} is no time; write 2026-11-21T07:24:11Z, 07:24, or a duration such as 90s, 15m, 2h", param, ctx
            )
        return str(value)


def reads_recording(decorated: Decorated) -> Decorated:
    """Add --config and --state-dir."""
    for option in (
        click.option("--state-dir", metavar="DIR", help="Read this directory instead, such as a copy from another host."),
        click.option(
            "--config", metavar="FILE", help="Configuration that names the state_dir (else CAPD_CONFIG, /etc/capd/capd.toml)."
        ),
    ):
        decorated = option(decorated)
    return decorated


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/json.md.")


def state_directory(config: str | None, state_dir: str | None) -> Path:
    """Say where the recording is, reading only `state_dir` of the configuration: checking all of it takes longer than a replay.

    Raises:
        ConfigurationError: the configuration cannot be read, or its `state_dir` is no path.
    """
    if state_dir is not None:
        return Path(state_dir)
    path = locations.configuration_file(config)
    if path is None:
        return locations.STATE_DIRECTORY
    named = locations.read_toml(path).get("state_dir", str(locations.STATE_DIRECTORY))
    if not isinstance(named, str) or not named.startswith("/"):
        raise ConfigurationError(f"{path}: state_dir must be an absolute path")
    return Path(named)


@contextmanager
def open_archive(config: str | None, state_dir: str | None) -> Iterator[Archive]:
    """Open the recording for reading; where only segments were brought along, make an index of them in a temporary directory.

    Raises:
        CapdError: there is none, it may not be read, or it is damaged.
    """
    from capd.recording.archive import Archive  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording.index import Index  # noqa: PLC0415 - as above

    with ExitStack() as held:
        archive = held.enter_context(Archive(state_directory(config, state_dir)))
        with on_disk("read", archive.segments):
            bare = not archive.index_path.exists()
            recorded = bare and any(archive.segments.iterdir())
        if bare:
            # Right after the first start there is neither index nor segment: nothing was recorded, which is no error.
            place = Path(held.enter_context(TemporaryDirectory(prefix="capd-index-")))
            archive.index_path = place / archive.index_path.name
        if recorded:
            click.echo(f"capd: no index in {archive.directory}; making one of its segments for this command", err=True)
        if bare:
            for damaged in Index.rebuild(archive.index_path, archive.segments):
                click.echo(f"capd: {damaged} is damaged: what is in it may not be found", err=True)
        yield archive


def moment(text: str | None, *, origin_ns: int | None = None) -> int | None:
    """Read a time: durations count onwards from the origin, or back from now if there is none."""
    if text is None:
        return None
    if origin_ns is None:
        return moments.parse(text, origin_ns=time.time_ns(), back=True)
    return moments.parse(text, origin_ns=origin_ns, back=False)
