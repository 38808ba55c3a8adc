"""`capd approve`: say yes to what waits.

What lives here: options. What must not: deciding (enforcer/approvals), what is printed (approval_lines.py).
"""

from __future__ import annotations

import time
from typing import Final

import click

from capd.cli.approval_json import public
from capd.cli.approval_lines import decided_lines
from capd.cli.approval_socket import ask
from capd.cli.options import Verb, config_option
from capd.cli.options import as_json as json_option
from capd.cli.screen import standard_output
from capd.cli.summary import to_json

SCOPES: Final = ("once", "shape", "run")


@click.command(
    name="approve",
    cls=Verb,
    short_help="Approve what waits.",
    examples=("capd approve k3m9q", "capd approve k3m9q --for shape"),
)
@click.argument("identity", metavar="ID")
@click.option(
    "--for",
    "scope",
    type=click.Choice(SCOPES),
    default="once",
    help="What it is good for, as far as the rule lets it: `once` this action once; `shape` the same but for numbers, "
    "or a statement's literals; `run` all that the same rules hold in this run. Default: once.",
)
@config_option
@json_option
def command(identity: str, scope: str, config: str | None, as_json: bool) -> None:
    """Approve what waits: exactly what was shown, and nothing else.

    ID may be shortened. Exit status: 0 it counts, also when more persons have to; 1 it was decided or is over; 3 you may not.
    """
    found = ask(config, "approve", id=identity, scope=scope)["approval"]
    screen = standard_output()
    if as_json:
        screen.write_json(to_json(public(found), indent=2))
    else:
        screen.write(decided_lines(found, time.time_ns()))
