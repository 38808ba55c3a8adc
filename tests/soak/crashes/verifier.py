"""Somebody who verifies a host, and what that person is told when heads, keys or the own memory are not as they were.

What lives here: `capd verify` in a child, and reading spoiled keys. What must not: which files are spoiled (cases.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from capd.cli.main import capd
from capd.recording.errors import CapdError, HostKeyError
from capd.recording.keys import HostKey, PublicKey
from tests.soak.crashes.host import Host
from tests.soak.crashes.seam import NONE


def verify(host: Host, pins: Path) -> int:
    """Give the exit status of `capd verify` of a host's state directory, by somebody who keeps such pins."""
    arguments = ["verify", "--pins", str(pins), str(host.state)]

    def role(say: Callable[[str], None]) -> None:
        try:
            status = CliRunner().invoke(capd, arguments, catch_exceptions=False, standalone_mode=False).return_value
        except CapdError as error:
            status = int(error.exit_status)
        say(f"status {status}")

    _, lines = host.start("the verifier", NONE, role).end()
    return int(lines[-1].removeprefix("status "))


def public_key(content: bytes) -> PublicKey | None:
    """Give the key in a file's content; None where there is none."""
    try:
        return PublicKey.from_text(content, "the case")
    except HostKeyError:
        return None


def signing_key(host: Host) -> bytes | None:
    """Give the id of the key that a host would sign with; None where it refuses."""
    try:
        return HostKey.load(host.settings.keys_dir).key_id
    except HostKeyError:
        return None
