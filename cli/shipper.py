"""`capd shipper`: the role that brings the recording off this host.

What lives here: options, and the directories while it still is root. What must not: the role (daemon/shipper.py).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import recorder_user, settled, shipper, state_directory
from capd.daemon.errors import NoBucketError

EXAMPLES: Final = """\b
Examples:
  sudo capd shipper
  systemctl start capd-shipper         # the same as a service
"""


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> None:
    """Ship sealed segments to the bucket (the role that talks to it).

    Sends each segment once, keeps the local copy until the bucket is seen to hold the same bytes, and tries for ever. Started
    as root, it first becomes the recorder's user and gives up root, exec, and writing anywhere but in its own directory.
    """
    settings = settled.load(config)
    if settings.bucket_url is None:
        raise NoBucketError("no `bucket_url` is configured")
    if os.geteuid() == 0:
        state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
    # Without rights its files may be out of reach, such as below /root.
    import_module("obstore.store")
    import_module("capd.cli.line")
    shipper.run_shipper(settings)
