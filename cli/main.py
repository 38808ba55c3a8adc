"""The command `capd`: finds the verb, and turns errors into one line, a hint and an exit status.

What lives here: the table of verbs, loading, errors. What must not: anything a verb does. Verbs are imported when they are
asked for: `capd run` stands between an agent and its start, `capd --help` between a person and an answer.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from capd.daemon.version import VERSION

VERBS: Final = {
    "up": "Run all of capd in the foreground, as one process tree.",
    "run": "Start a command as a recorded run.",
    "status": "Say how capd is: healthy, degraded or down, and why.",
    "doctor": "Check this host, say why a process is recorded or not, or try which runtimes trust the enforcer.",
    "runs": "List runs.",
    "sessions": "List sessions.",
    "show": "Show a session or a run in short.",
    "search": "Find what was said.",
    "replay": "Show what was said in a session.",
    "export": "Give a session or a run to others.",
    "mask": "Say what a recording would hide.",
    "approvals": "Show what waits for a person's approval.",
    "approve": "Approve what waits.",
    "deny": "Deny what waits, or end what was approved for longer.",
    "policy": "Check, explain, test and try a policy.",
    "verify": "Check that the record is whole.",
    "keys": "List the keys that sign what this host records.",
    "hold": "Keep recordings from being deleted, whatever the retention policy says.",
    "enforcement": "Take away what forces agents' traffic through the enforcer.",
    "daemon": "Capture from the kernel (the role that is root).",
    "recorder": "Turn what was captured into the record (the role without rights).",
    "catalogue": "Bring the bucket's catalogue up to date (an errand that ends).",
    "enforcer": "Stand between agents and their targets (the role that decides).",
    "metrics": "Watch capd's health: log alerts, serve metrics (a role).",
    "shipper": "Ship sealed segments to the bucket (the role that talks to it).",
}
"""Verb and what stands beside it in `capd --help`; a test holds it against each verb's own help. Module: capd.cli.<verb>."""
FAILED: Final = 1
"""As the interpreter exits after an exception that nobody caught."""
INTERRUPTED: Final = 130
"""As a shell counts a SIGINT."""


class Verbs(click.Group):
    """A group whose commands are modules, imported one by one as they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command = import_module(f"capd.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing a single verb."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`capd VERB --help` has examples. Exit statuses: docs/exit-statuses.md.",
)
@click.version_option(VERSION, message="capd %(version)s")
def capd() -> None:
    """Record what AI agents on this host say and hear, from the kernel, and read it."""


def main() -> NoReturn:
    """Be the command line; the only place that decides on an exit status for an error."""
    try:
        result = capd.main(prog_name="capd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; that must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, its text must not reach the terminal as it is
        status = getattr(error, "exit_status", None)
        if status is None:
            from traceback import format_exception  # noqa: PLC0415 - only defects need it

            _tell("".join(format_exception(error)), "this is a defect of capd: please report it with the lines above")
            sys.exit(FAILED)
        _tell(str(error), str(getattr(error, "hint", "")))
        sys.exit(int(status))
    sys.exit(result if isinstance(result, int) else 0)


def _tell(message: str, hint: str) -> None:
    """Write an error to standard error. It may quote what an agent chose, so it goes through `visible`."""
    from capd.cli.line import Span, Style, render  # noqa: PLC0415 - only errors need it

    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for number, line in enumerate(message.splitlines() or [""]):
        start = "capd: " if number == 0 else "      "
        sys.stderr.write(render((Span(start, Style.BAD), Span(line)), coloured=coloured) + "\n")
    if hint:
        sys.stderr.write(render((Span(f"  {hint}", Style.FAINT),), coloured=coloured) + "\n")


if __name__ == "__main__":
    main()
