"""`capd recorder`: the role that decodes.

What lives here: options, and the directories while it still is root. What must not: the role (daemon/recorder_role.py).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import recorder_role, recorder_user, settled, state_directory
from capd.enforcer.masking import identifiers

EXAMPLES: Final = """\b
Examples:
  sudo capd recorder
  systemctl start capd-recorder        # the same as a service
"""

NEEDED: Final = (
    "sqlite_utils",
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.serialization",
    "capd.cli.line",
)
NEEDED_FOR_RECIPIENTS: Final = ("pyrage",)


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> None:
    """Turn what was captured into the record (the role without rights).

    Reads the journal, writes segments and the index. Started as root, it first becomes the recorder's user and gives up root,
    capabilities, network and exec for ever.
    """
    settings = settled.load(config)
    if os.geteuid() == 0:
        state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
    # Imported late for the sake of readers; but without rights its files may be out of reach, such as below /root.
    for name in (*NEEDED, *(NEEDED_FOR_RECIPIENTS if settings.encryption.recipients else ())):
        import_module(name)
    identifiers.prepare()
    recorder_role.run_recorder(settings)
