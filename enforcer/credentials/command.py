"""What a program prints, as a credential: Vault, a cloud's command, a helper of the house.

What lives here: running it, bounded in time and bytes. What must not: a shell; how long what it printed is used (store.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from capd.enforcer.credentials.errors import CredentialError
from capd.enforcer.credentials.guarded_file import CONTENT_BYTES_MAX, check_way
from capd.recording.durable import OTHERS_WRITE

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
}
"""All that it gets: what started capd may have keys in its environment that are for others."""
_READ_BYTES: Final = 4_096


def printed(words: Sequence[str], timeout_seconds: float) -> str:
    """Run a program and give what it printed.

    Args:
        words: its absolute path, and its arguments.
        timeout_seconds: after which it, and what it started in its own session, is killed.

    Raises:
        CredentialError: it cannot be run, took too long, failed, or printed too much. What it said is not repeated.
    """
    program = Path(words[0])
    _check_program(program)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialError(f"{program}: {error.strerror}") from error
    try:
        content = _read(process, program, time.monotonic() + timeout_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode:
        raise CredentialError(f"{program}: it ended with status {process.returncode}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialError(f"{program}: what it printed is no text") from None


def _read(process: subprocess.Popen[bytes], program: Path, deadline: float) -> bytes:
    assert process.stdout is not None
    descriptor, content = process.stdout.fileno(), bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise CredentialError(f"{program}: it took too long")
        piece = os.read(descriptor, _READ_BYTES)
        if not piece:
            break
        content += piece
        if len(content) > CONTENT_BYTES_MAX:
            raise CredentialError(f"{program}: it printed more than {CONTENT_BYTES_MAX} bytes")
    try:
        process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise CredentialError(f"{program}: it took too long") from None
    return bytes(content)


def _check_program(program: Path) -> None:
    """Check that nobody but root could have written it."""
    try:
        real = program.resolve(strict=True)
        found = real.stat()
        check_way(real)
    except (OSError, RuntimeError) as error:
        raise CredentialError(f"{program}: it cannot be run") from error
    if found.st_uid != 0 or found.st_mode & OTHERS_WRITE:
        raise CredentialError(f"{program}: others than root could have written it")
