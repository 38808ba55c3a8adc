"""`capd daemon`: the role that captures.

What lives here: options. What must not: the role (daemon/capture_role.py).
"""

from __future__ import annotations

import os
from typing import Final

import click

from capd.daemon import settled
from capd.daemon.errors import NotRootError

EXAMPLES: Final = """\b
Examples:
  sudo capd daemon
  systemctl start capd        the same as a service
"""


@click.command(epilog=EXAMPLES)
@click.option("--config", metavar="FILE", help="Configuration (else CAPD_CONFIG, /etc/capd/capd.toml).")
def command(config: str | None) -> None:
    """Capture from the kernel (the role that is root).

    Loads the probes, drains their rings into the journal, keeps runs, answers on the control socket. Decodes nothing.
    """
    if os.geteuid() != 0:
        raise NotRootError("the daemon loads programs into the kernel, which only root may")
    settings = settled.load(config)
    from capd.daemon import capture_role  # noqa: PLC0415 - its imports take longer than refusing to start

    capture_role.run(settings, lambda line: click.echo(line, err=True))
