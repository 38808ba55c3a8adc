"""`capd doctor`: what is wrong with this host, or why a process is recorded or not.

What lives here: the screen. What must not: looking (daemon/doctor.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import click

from capd.cli.line import Line, Span, Style
from capd.cli.options import config_option
from capd.cli.screen import answer
from capd.daemon import configuration_salvage, doctor
from capd.daemon.finding import Finding, Mark

EXAMPLES: Final = """\b
Examples:
  sudo capd doctor
  sudo capd doctor $(pgrep -n my-agent)
  sudo capd doctor tls
  capd doctor --json | jq '.[] | select(.mark == "bad")'
"""
SIGNS: Final = {Mark.GOOD: ("ok", Style.GOOD), Mark.NOTE: ("--", Style.DOUBTFUL), Mark.BAD: ("!!", Style.BAD)}
SUBJECT_COLUMNS: Final = 14


def _subject(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == "tls":
        return value
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a process id nor `tls`")


@click.command(epilog=EXAMPLES)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/operations.md.")
@click.argument("subject", metavar="[PID|tls]", callback=_subject, required=False)
def command(config: str | None, as_json: bool, subject: int | str | None) -> int:
    """Check this host, say why a process is recorded or not, or try which runtimes trust the enforcer.

    Every line says what was found and, where something is wrong, what to do. Exit status: 0 all well, 1 something is wrong.
    """
    if subject is None:
        findings = doctor.check_host(config)
    elif isinstance(subject, int):
        findings = doctor.check_process(config, subject)
    else:
        from capd.daemon import doctor_tls  # noqa: PLC0415 - certificates take time to import

        understood = configuration_salvage.understand(config)
        wrong = [] if understood.problem is None else list(doctor.problems(understood.problem))
        findings = [*wrong, *doctor_tls.check_tls(understood.settings)]
    answer([finding.to_json() for finding in findings], lines(findings), as_json=as_json)
    return int(any(finding.mark is Mark.BAD for finding in findings))


def lines(findings: Iterable[Finding]) -> Iterator[Line]:
    """Give the screen."""
    for finding in findings:
        sign, style = SIGNS[finding.mark]
        yield (Span(f"{sign}  ", style), Span(f"{finding.subject:<{SUBJECT_COLUMNS}}", Style.FAINT), Span(finding.found))
        if finding.next_step:
            yield (Span(f"{'':<{SUBJECT_COLUMNS + 4}}{finding.next_step}", Style.STRONG),)
