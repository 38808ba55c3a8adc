"""What verbs share on the command line: options, usage errors with a corrected command.

What lives here: click plumbing. What must not: what a verb does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import IO, Any

import click

from capd.cli import moments


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


config_option = click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/json.md.")


def moment(text: str | None, *, origin_ns: int | None = None) -> int | None:
    """Read a time: durations count onwards from the origin, or back from now if there is none."""
    if text is None:
        return None
    if origin_ns is None:
        return moments.parse(text, origin_ns=time.time_ns(), back=True)
    return moments.parse(text, origin_ns=origin_ns, back=False)
