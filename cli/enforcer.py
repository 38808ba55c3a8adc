"""`capd enforcer`: the role that stands between agents and their targets.

What lives here: options, and the directories while it still is root. What must not: the role (daemon/enforcer_role.py).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

import click

from capd.daemon import enforcer_files, enforcer_role, recorder_user, settled, state_directory
from capd.daemon.errors import EnforcementOffError

EXAMPLES: Final = """\b
Examples:
  sudo capd enforcer
  systemctl start capd-enforcer        the same as a service
"""
NEEDED: Final = ("cel_expr_python", "encodings.idna", "capd.cli.line")
"""What is imported late; without rights its files may be out of reach, such as below /root."""


@click.command(epilog=EXAMPLES)
@click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
def command(config: str | None) -> None:
    """Stand between agents and their targets (the role that decides).

    Takes the connections that are redirected to it, judges what they say by the policy, and passes on what that allows. Started
    as root, it first becomes a user of its own and gives up root, exec, and writing anywhere but in its own directory.
    """
    settings = settled.load(config)
    if settings.enforcement.mode == "off":
        raise EnforcementOffError("enforcement is off: there is nothing to do")
    if os.geteuid() == 0:
        state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
        enforcer_files.prepare(settings)
        enforcer_role.enter_cgroup(settings)
    for name in NEEDED:
        import_module(name)
    enforcer_role.run(settings, lambda line: click.echo(line, err=True))
