"""`capd deny`: say no to what waits, or take a yes back.

What lives here: options. What must not: deciding (enforcer/approvals), what is printed (approval_lines.py).
"""

from __future__ import annotations

import time

import click

from capd.cli.approval_json import public
from capd.cli.approval_lines import decided_lines
from capd.cli.approval_socket import ask
from capd.cli.options import Verb, config_option
from capd.cli.options import as_json as json_option
from capd.cli.screen import standard_output
from capd.cli.summary import to_json


@click.command(
    name="deny",
    cls=Verb,
    short_help="Deny what waits, or end what was approved for longer.",
    examples=("capd deny k3m9q --reason 'not against production'",),
)
@click.argument("identity", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why; the agent is told, so write what it may do instead.")
@config_option
@json_option
def command(identity: str, reason: str, config: str | None, as_json: bool) -> None:
    """Deny what waits; what was approved and not used up is not good any more.

    ID may be shortened. Exit status: 0 it counts; 1 it was decided or is over; 3 you may not.
    """
    found = ask(config, "deny", id=identity, reason=reason)["approval"]
    screen = standard_output()
    if as_json:
        screen.write_json(to_json(public(found), indent=2))
    else:
        screen.write(decided_lines(found, time.time_ns()))
