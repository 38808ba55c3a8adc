"""`capd catalogue`: bring the catalogue of what was shipped up to date, by which a fleet is searched.

What lives here: options, and the directories while it still is root. What must not: the errand (daemon/cataloguer.py).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import catalogue_status, cataloguer, recorder_user, settled, state_directory
from capd.daemon.errors import FleetExtraMissingError, NoBucketError

EXAMPLES: Final = """\b
Examples:
  sudo capd catalogue
  systemctl start capd-catalogue.timer     # every minute, when something was shipped
"""


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> None:
    """Bring the bucket's catalogue up to date (an errand that ends).

    Puts what was shipped into Parquet files beside the segments, and takes out of them what expired. `capd up` does it by
    itself. Started as root, it first becomes the recorder's user and gives up root, exec, and writing anywhere but to the
    bucket.
    """
    settings = settled.load(config)
    if settings.bucket_url is None:
        raise NoBucketError("no `bucket_url` is configured")
    if os.geteuid() == 0:
        state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
    # Without rights its files may be out of reach, such as below /root.
    catalogue = ("capd.recording.catalogue.writing", "capd.recording.catalogue.expiring")
    for name in ("capd.cli.line", "obstore.store", *catalogue_status.NEEDED, *catalogue):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise FleetExtraMissingError(error.name or name) from error
    extent = cataloguer.run_cataloguer(settings)
    click.echo(f"capd: the catalogue goes to segment {extent.through}; {extent.waiting} wait to share a file")
