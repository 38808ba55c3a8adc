"""`capd enforcement`: take away what forces agents' traffic, and close it off before the daemon is there.

What lives here: the verbs. What must not: what there is to take away (daemon/enforcement_standing.py), what closes off
(daemon/enforcement_guard.py).
"""

from __future__ import annotations

import os
from typing import Final

import click

from capd.cli.options import Verb, config_option
from capd.cli.screen import standard_output
from capd.cli.summary import to_json

OFF: Final = ("sudo capd enforcement off", "sudo capd enforcement off --config ./capd.toml --json")
GUARD: Final = ("sudo capd enforcement guard",)
EXAMPLES: Final = "\n  ".join(("\b\nExamples:", *OFF, *GUARD))


@click.group(epilog=EXAMPLES)
def command() -> None:
    """Take away what forces agents' traffic through the enforcer.

    The rules stand when capd is stopped, killed or upgraded: what they force is refused then. Only `off` removes them. `guard`
    puts them there when a host boots, before there is a network (capd-guard.service).
    """


@command.command(cls=Verb, examples=OFF)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: `removed`, a list of what stood.")
def off(config: str | None, as_json: bool) -> None:
    """Remove the nftables table and the programs of a capd that is stopped, or whose `enforcement.mode` is `off`."""
    from capd.daemon import control_client, enforcement_standing, settled  # noqa: PLC0415 - `--help` must not pay for it
    from capd.daemon.cgroups import has_systemd  # noqa: PLC0415 - as above
    from capd.daemon.enforcement_names import names_of  # noqa: PLC0415 - as above
    from capd.daemon.errors import DaemonUnreachableError, EnforcingError, NotRootError  # noqa: PLC0415 - as above

    if os.geteuid() != 0:
        raise NotRootError("the rules and programs that force traffic belong to root")
    settings = settled.load(config)
    try:
        answer = control_client.ask(settings.control_socket, "status")
    except DaemonUnreachableError:
        answer = {}
    running = answer.get("enforcement")
    if isinstance(running, dict) and running.get("mode") != "off":
        raise EnforcingError("the daemon runs, and would put back at once what is removed")
    removed = enforcement_standing.remove(names_of(settings.runtime_dir, systemd=has_systemd()))
    if as_json:
        standard_output().write_json(to_json({"removed": removed}, indent=2))
    else:
        click.echo(f"removed {' and '.join(removed)}" if removed else "nothing stood that forces traffic")


@command.command(cls=Verb, examples=GUARD)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: `mode`, `closed`, a list of what stands.")
def guard(config: str | None, as_json: bool) -> None:
    """Close agents off until the daemon and the enforcer are there, where enforcement is configured.

    Puts both layers in place by the configuration alone, without probes. A configuration that is wrong closes off what can be
    understood of it, and is an error.
    """
    from capd.daemon import enforcement_guard, settled  # noqa: PLC0415 - `--help` must not pay for it
    from capd.daemon.errors import ConfigurationError, NotRootError  # noqa: PLC0415 - as above

    def say(line: str) -> None:
        click.echo(line, err=True)

    if os.geteuid() != 0:
        raise NotRootError("the rules and programs that force traffic belong to root")
    mode, closed = enforcement_guard.mode(config), []
    if mode == "enforce":
        try:
            closed = enforcement_guard.close(settled.load(config), say)
        except ConfigurationError as error:
            enforcement_guard.close_after(error, config, say)
            raise
    if as_json:
        standard_output().write_json(to_json({"mode": mode, "closed": closed}, indent=2))
    elif closed:
        click.echo(f"agents are closed off by {' and '.join(closed)}, until the daemon and the enforcer are there")
    else:
        click.echo(f"enforcement is {mode}: nothing is refused, so there is nothing to close off")
