"""`capd doctor`: what is wrong with this host, or why a process is recorded or not.

What lives here: the screen. What must not: looking (daemon/doctor.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import click

from capd.cli.line import Line, Span, Style
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.summary import to_json
from capd.daemon import doctor
from capd.daemon.doctor import Finding, Mark

EXAMPLES: Final = """\b
Examples:
  sudo capd doctor
  sudo capd doctor $(pgrep -n my-agent)
  capd doctor --json | jq '.[] | select(.mark == "bad")'
"""
SIGNS: Final = {Mark.GOOD: ("ok", Style.GOOD), Mark.NOTE: ("--", Style.DOUBTFUL), Mark.BAD: ("!!", Style.BAD)}
SUBJECT_COLUMNS: Final = 13


@click.command(epilog=EXAMPLES)
@click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are documented in docs/operations.md.")
@click.argument("pid", type=click.IntRange(min=1), required=False)
def command(config: str | None, as_json: bool, pid: int | None) -> int:
    """Check this host, or say why a process is recorded or not.

    Every line says what was found and, where something is wrong, what to do. Exit status: 0 all well, 1 something is wrong.
    """
    findings = doctor.check_host(config) if pid is None else doctor.check_process(config, pid)
    with reader_may_leave():
        if as_json:
            standard_output().write_json(to_json([finding.to_json() for finding in findings], indent=2))
        else:
            standard_output().write(lines(findings))
    return int(any(finding.mark is Mark.BAD for finding in findings))


def lines(findings: Iterable[Finding]) -> Iterator[Line]:
    """Give the screen."""
    for finding in findings:
        sign, style = SIGNS[finding.mark]
        yield (Span(f"{sign}  ", style), Span(f"{finding.subject:<{SUBJECT_COLUMNS}}", Style.FAINT), Span(finding.found))
        if finding.next_step:
            yield (Span(f"{'':<{SUBJECT_COLUMNS + 4}}{finding.next_step}", Style.STRONG),)
