"""`capd enforcer`: the role that stands between agents and their targets.

What lives here: options, and the directories while it still is root. What must not: the role (daemon/enforcer_role.py).
"""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import Final

import click

from capd.cli.options import config_option
from capd.daemon import settled
from capd.daemon.errors import EnforcementOffError
from capd.recording.errors import CapdError

EXAMPLES: Final = """\b
Examples:
  sudo capd enforcer
  systemctl start capd-enforcer        # the same as a service
"""
NEEDED: Final = ("cel_expr_python", "encodings.idna", "capd.cli.line")
"""What is imported late; without rights its files may be out of reach, such as below /root."""


@click.command(epilog=EXAMPLES)
@config_option
def command(config: str | None) -> None:
    """Stand between agents and their targets (the role that decides).

    Takes the connections that are redirected to it, judges what they say by the policy, and passes on what that allows. Started
    as root, it first becomes a user of its own and gives up root, exec, and writing anywhere but in its own directory.
    """
    # An enforcer that is down is waited for: its configuration is judged while its modules are read, and what these make for
    # good is not looked through for garbage again and again, which takes a sixth of the time.
    configuration = settled.begin(config)
    gc.disable()
    from capd.daemon import (  # noqa: PLC0415 - as above
        enforcer_failure,
        enforcer_files,
        enforcer_role,
        recorder_user,
        start_pause,
        state_directory,
    )

    for name in NEEDED:
        import_module(name)
    gc.freeze()
    gc.enable()
    settings = configuration()
    if settings.enforcement.mode == "off":
        raise EnforcementOffError("enforcement is off: there is nothing to do")
    try:
        if os.geteuid() == 0:
            state_directory.prepare(settings, recorder_user.choose(settings.recorder.user, settings.segments_dir))
            untrusted = enforcer_files.prepare(settings)
            if untrusted is not None:
                raise untrusted
            enforcer_role.enter_cgroup(settings)
        enforcer_role.run(settings, lambda line: click.echo(line, err=True))
    except CapdError as error:
        enforcer_failure.write(settings.enforcer_status_file, error)
        start_pause.pause(error, os.environ)
        raise
