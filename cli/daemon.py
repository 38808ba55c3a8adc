"""`capd daemon`: the role that captures.

What lives here: options. What must not: the role (daemon/capture_role.py).
"""

from __future__ import annotations

import os
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import settled
from capd.daemon.errors import NotRootError

EXAMPLES: Final = """\b
Examples:
  sudo capd daemon
  systemctl start capd        # the same as a service
"""


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> None:
    """Capture from the kernel (the role that is root).

    Loads the probes, drains their rings into the journal, keeps runs, answers on the control socket. Decodes nothing.
    """
    if os.geteuid() != 0:
        raise NotRootError("the daemon loads programs into the kernel, which only root may")
    try:
        settings = settled.load(config)
        from capd.daemon import capture_role  # noqa: PLC0415 - its imports take longer than refusing to start

        capture_role.run(settings, say, given=config)
    except Exception as error:
        from capd.daemon import enforcement_guard, start_pause  # noqa: PLC0415 - only a daemon that fails pays for it

        enforcement_guard.close_after(error, config, say)
        start_pause.pause(error, os.environ)
        raise


def say(line: str) -> None:
    """Tell the operator one line."""
    click.echo(line, err=True)
