"""`capd setup`: make what capd needs before its first start.

What lives here: the verb. What must not: what is made (daemon/first_start.py).
"""

from __future__ import annotations

import os

import click

from capd.cli.options import Verb, config_option
from capd.cli.screen import standard_output
from capd.cli.summary import to_json


@click.command(cls=Verb, examples=("sudo capd setup", "sudo capd setup --config ./capd.toml --json"))
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: `host`, `state_dir`.")
def command(*, config: str | None, as_json: bool) -> None:
    """Make what capd needs before its first start: directories, keys, the host's id.

    Packages do it when they are installed, and the daemon at each start; doing it again changes nothing. An image from which
    many hosts are made must not have it done: they would be one host.
    """
    from capd.daemon import first_start, settled  # noqa: PLC0415 - `--help` must not pay for it
    from capd.daemon.errors import NotRootError  # noqa: PLC0415 - as above

    if os.geteuid() != 0:
        raise NotRootError("the directories and keys belong to root")
    settings = settled.load(config)
    user, untrusted = first_start.directories(settings)
    host = first_start.identity(settings, user)
    if untrusted is not None:
        click.echo(f"capd: the enforcer will not start: {untrusted}; {untrusted.hint}", err=True)
    if as_json:
        standard_output().write_json(to_json({"host": str(host), "state_dir": str(settings.state_dir)}, indent=2))
    else:
        click.echo(f"this is host {host}; what is recorded goes to {settings.state_dir}")
