"""The command `capd`: finds the verb, and turns errors into one line, a hint and an exit status.

What lives here: the table of verbs, loading, errors. What must not: anything a verb does. Verbs are imported when they are
asked for: `capd run` stands between an agent and its start, `capd --help` between a person and an answer.
"""

from __future__ import annotations

import errno
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
    "config": "Check the configuration, show what is in effect and where it is from, have it read anew.",
    "keys": "List the keys that sign what this host records.",
    "hold": "Keep recordings from being deleted, whatever the retention policy says.",
    "enforcement": "Take away what forces agents' traffic through the enforcer.",
    "setup": "Make what capd needs before its first start: directories, keys, the host's id.",
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
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of writing, without the name of a file: of standard output."""
INTERRUPTED: Final = 130
"""As a shell counts a SIGINT."""
ENDING_BADLY: Final = frozenset({"pyarrow", "duckdb"})
"""Libraries whose own threads, still there when the interpreter is taken down, now and then abort what has done all its work
(apache/arrow issue 34314: "terminate called without an active exception")."""


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

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; where there is none of the name, name one that is like it."""
        word = args[0] if args else ""
        if word in VERBS or word.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

        from capd.cli.options import CorrectedUsageError  # noqa: PLC0415 - as above
        from capd.cli.safe_text import visible  # noqa: PLC0415 - as above

        like = get_close_matches(word, VERBS, n=1)
        raise CorrectedUsageError(f"No such command '{visible(word)}'.", f"capd {like[0] if like else '--help'}", ctx)

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
        _end(result if isinstance(result, int) else 0)
    except click.ClickException as error:
        _corrected(error).show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; that must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None or getattr(error, "exit_status", None) is not None:
            _fail(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _tell(f"cannot write the output: {error.strerror}", "make room where it goes, or let it go elsewhere")
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, its text must not reach the terminal as it is
        _fail(error)


def _end(status: int) -> NoReturn:
    """End the process; what was written is out before.

    Raises:
        OSError: it could not be written.
    """
    if ENDING_BADLY & sys.modules.keys():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _fail(error: Exception) -> NoReturn:
    """Tell an error, or a defect, and end."""
    status = getattr(error, "exit_status", None)
    if status is None:
        from traceback import format_exception  # noqa: PLC0415 - only defects need it

        _tell("".join(format_exception(error)), "this is a defect of capd: please report it with the lines above")
        sys.exit(FAILED)
    _tell(str(error), str(getattr(error, "hint", "")))
    try:
        _end(int(status))
    except OSError:  # what was to be said first has nowhere to go
        os._exit(int(status))


def _corrected(error: click.ClickException) -> click.ClickException:
    """Give a usage error with a command that would be right: the first example of what was used."""
    if not isinstance(error, click.UsageError) or hasattr(error, "hint") or error.ctx is None:
        return error
    from capd.cli.options import CorrectedUsageError  # noqa: PLC0415 - only errors need it

    examples = [line.strip() for line in (error.ctx.command.epilog or "").splitlines() if line.strip().startswith("capd ")]
    corrected = examples[0] if examples else f"{error.ctx.command_path} --help"
    return CorrectedUsageError(error.format_message(), corrected, error.ctx)


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
