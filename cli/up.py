"""`capd up`: all of capd in the foreground.

What lives here: options and what is printed. What must not: supervision (daemon/supervision.py).
"""

from __future__ import annotations

import os
import platform
import time
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import catalogue_status, recorder_user, settled
from capd.daemon.errors import NotRootError
from capd.daemon.supervision import Errand, Supervisor

EXAMPLES: Final = """\b
Examples:
  sudo capd up
  sudo capd up --config ./capd.toml
"""


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> int:
    """Run all of capd in the foreground, as one process tree.

    The daemon captures as root; the recorder decodes as a user without rights, which need not exist beforehand; with a
    `bucket_url` the shipper ships as that user, who watches health too; with `[enforcement]` the enforcer
    judges what agents send, as a user of its own. Ctrl-C or SIGTERM ends all; nothing stays behind.
    """
    if os.geteuid() != 0:
        raise NotRootError("capd up loads programs into the kernel, which only root may")
    settings = settled.load(config)
    user = recorder_user.choose(settings.recorder.user, settings.segments_dir)

    def ready(status: dict[str, object]) -> None:
        click.echo("capd is ready")
        for name, value in (
            ("tier", f"{status['tier']} (kernel {platform.release()})"),
            ("recorder", f"user {user}"),
            ("state_dir", settings.state_dir),
            *([("bucket", settings.bucket_url)] if settings.bucket_url else []),
            *([("enforcement", settings.enforcement.mode)] if settings.enforcement.mode != "off" else []),
            *([("metrics", settings.metrics.listen)] if settings.metrics.listen else []),
            ("runtime_dir", settings.runtime_dir),
            ("record", f"capd run{f' --config {config}' if config else ''} -- COMMAND"),
        ):
            click.echo(f"  {name:<12} {value}")

    arguments = ["--config", config] if config else []

    def say(line: str) -> None:
        click.echo(f"capd up: {line}", err=True)

    def uncatalogued() -> bool:
        shipped, catalogued = settings.shipper_status_file, settings.catalogue_status_file
        read = catalogue_status.read_status
        return catalogue_status.wanted(read(shipped), read(catalogued), time.time())

    ship = settings.bucket_url is not None
    watch = settings.alerts.enabled or settings.metrics.listen is not None
    enforce = settings.enforcement.mode != "off"
    others = [*(["enforcer"] if enforce else []), *(["shipper"] if ship else []), *(["metrics"] if watch else [])]
    errands = []
    if ship and settings.catalogue.enabled and catalogue_status.possible():
        errands = [Errand(name="catalogue", wanted=uncatalogued, every=settings.catalogue.delay_seconds)]
    return Supervisor(arguments, settings.control_socket, say, others=others, errands=errands).run(ready)
