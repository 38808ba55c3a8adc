"""`capd config`: check the configuration, show what is in effect, have it read anew.

What lives here: the verbs, their options and the screen. What must not: reading and judging (daemon/configuration*.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import click

from capd.cli.line import Line, Span, Style
from capd.cli.options import Verb, config_option
from capd.cli.options import as_json as json_option
from capd.cli.screen import answer
from capd.recording.errors import ExitStatus

if TYPE_CHECKING:
    from capd.daemon.configuration_files import Layered
    from capd.daemon.configuration_report import Shown
    from capd.daemon.errors import ConfigurationError
    from capd.daemon.reload_client import Reloaded

EXAMPLES: Final = """\b
Examples:
  capd config check
  capd config show --defaults
"""
VALUE_COLUMNS_MAX: Final = 40
"""A longer value moves what is right of it, in its own line only."""


@click.group(name="config", epilog=EXAMPLES)
def command() -> None:
    """Check the configuration, show what is in effect and where it is from, have it read anew.

    The configuration is /etc/capd/capd.toml and the files *.toml in the directory conf.d beside it; all may be missing. `man
    capd.toml` and docs/configuration.md have every key.
    """


@command.command(
    cls=Verb,
    short_help="Say everything that is wrong with the configuration.",
    examples=("capd config check", "capd config check --config ./capd.toml --json"),
)
@config_option
@json_option
def check(config: str | None, as_json: bool) -> int:
    """Say whether the configuration can be used, and if not, everything that is wrong with it.

    Each problem has its file and line, the key, and what may be there. Exit status: 0 it can be used, 2 it cannot.
    """
    from capd.daemon import configuration, configuration_files  # noqa: PLC0415 - `--help` must not pay for it
    from capd.daemon.errors import ConfigurationError  # noqa: PLC0415 - as above

    try:
        layered = configuration_files.read_layered(config)
        configuration.judge(layered)
    except ConfigurationError as error:
        problems = [one.to_json() for one in error.problems]
        answer({"sound": False, "files": [], "problems": problems}, _problem_lines(error), as_json=as_json)
        return ExitStatus.USAGE
    files = [str(path) for path in layered.files]
    words = (Span("the configuration can be used: ", Style.GOOD), Span(_named(files)))
    answer({"sound": True, "files": files, "problems": []}, [words], as_json=as_json)
    return ExitStatus.OK


@command.command(
    cls=Verb,
    short_help="Show what is in effect, and where each value is from.",
    examples=("capd config show", "capd config show --defaults --json"),
)
@config_option
@click.option("--defaults", is_flag=True, help="Also what no file says.")
@json_option
def show(config: str | None, defaults: bool, as_json: bool) -> int:
    """Show the values that the files say, or with --defaults all values, and where each is from.

    That is a file and its line, a variable of this environment, or the default. What may be a secret is not shown. A role that
    runs may still go by earlier files: `capd status` says so.
    """
    from capd.daemon import configuration, configuration_files, configuration_report  # noqa: PLC0415 - `--help` must not pay

    layered = configuration_files.read_layered(config)
    found = list(configuration_report.effective(configuration.judge(layered), layered, os.environ))
    wanted = [one for one in found if defaults or one.source != "default"]
    told = {"files": [str(path) for path in layered.files], "values": [one.to_json() for one in wanted]}
    answer(told, _value_lines(wanted, layered, len(found) - len(wanted)), as_json=as_json)
    return ExitStatus.OK


@command.command(
    cls=Verb,
    short_help="Have the daemon read the configuration anew.",
    examples=("sudo capd config reload", "systemctl reload capd        # the same"),
)
@config_option
@json_option
def reload(config: str | None, as_json: bool) -> int:
    """Have the daemon read the configuration anew, while it goes on recording.

    One that is wrong in any place is refused as a whole, and what was in force stays. What can take effect does at once; what
    needs a restart is named, with the command. Exit status: 0 it was taken over, 2 it was refused.
    """
    from capd.daemon import locations, reload_client  # noqa: PLC0415 - `--help` must not pay for it

    found = reload_client.reload(locations.runtime_directory(config))
    answer(found.to_json(), _reload_lines(found), as_json=as_json)
    return ExitStatus.OK if found.problem is None else ExitStatus.USAGE


def _reload_lines(found: Reloaded) -> Iterator[Line]:
    if found.problem is not None:
        yield (Span("the configuration is refused, what was in force stays", Style.BAD),)
        for one in found.problem.splitlines():
            yield (Span("  ! ", Style.BAD), Span(one))
        yield (Span("    `capd config check` says what each key may be", Style.FAINT),)
        return
    yield (Span("the configuration was taken over", Style.GOOD),)
    for key, units in found.waiting:
        yield (Span(f"  {key} waits for `systemctl restart {' '.join(units)}`"),)


def _named(files: list[str]) -> str:
    return ", ".join(files) if files else "there is no file, so the defaults hold"


def _problem_lines(error: ConfigurationError) -> Iterator[Line]:
    told = error.problems
    yield (Span(f"the configuration cannot be used: {len(told)} problem{'s' if len(told) > 1 else ''}", Style.BAD),)
    for one in told:
        yield (Span("  ! ", Style.BAD), Span(str(one)))
        yield (Span(f"    {one.next_step}", Style.FAINT),)


def _value_lines(values: Iterable[Shown], layered: Layered, others: int) -> Iterator[Line]:
    from capd.daemon.configuration_reference import toml  # noqa: PLC0415 - as above

    shown = [(one.key, "(none)" if one.value is None else toml(one.value), one.source) for one in values]
    widths = [min(VALUE_COLUMNS_MAX, max((len(row[column]) for row in shown), default=0)) for column in range(2)]
    for key, value, source in shown:
        yield (Span(f"{key:<{widths[0]}}  "), Span(f"{value:<{widths[1]}}  "), Span(source, Style.FAINT))
    if not layered.files:
        yield (Span("there is no file", Style.FAINT),)
    if others:
        yield (Span(f"{others} keys have their defaults: capd config show --defaults", Style.FAINT),)
