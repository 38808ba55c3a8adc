"""Asking the daemon.

What lives here: the client's side of the control socket. What must not: slow imports, because `capd run` waits for them;
words for the terminal.

A request is one JSON object on a line, with "verb" and the verb's fields; so is the answer: {"ok": true, ...} or {"ok": false,
"error": {"message", "hint", "exit_status"}}. A client may pass the writing end of a pipe with its request (SCM_RIGHTS).
The answer then goes there, and the daemon begins only when the client has closed the socket: so `capd run`, which becomes a
recorded process while it waits, makes no socket call any more that would stand in its own record.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Final, cast

from capd.daemon.errors import DaemonUnreachableError
from capd.recording.errors import CapdError

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A status with thousands of runs is a few MB; more is not an answer."""
SECONDS_MAX: Final = 15.0
"""Above the daemon's own limits for what it does on a request (systemd: 5 s)."""
_CHUNK_BYTES: Final = 64 * 1024


class RefusedError(CapdError):
    """The daemon answered, and the answer is no; message, hint and exit status are the daemon's."""

    def __init__(self, message: str, hint: str, exit_status: int) -> None:
        super().__init__(message)
        # The class attributes are those of the error that the daemon raised.
        self.hint = hint  # type: ignore[misc]
        self.exit_status = exit_status  # type: ignore[misc]


def ask(path: Path, verb: str, **fields: object) -> dict[str, object]:
    """Send a request and wait for the answer.

    Raises:
        DaemonUnreachableError: nobody listens, or no whole answer came in time.
        RefusedError: the daemon refused.
    """
    deadline = time.monotonic() + SECONDS_MAX
    with _connect(path) as connection:
        try:
            connection.sendall(_line(verb, fields))
            return _answer(connection.fileno(), path, deadline)
        except OSError as error:
            raise DaemonUnreachableError(f"the capd daemon at {path} hung up: {error.strerror}") from error


def ask_quietly(path: Path, verb: str, **fields: object) -> dict[str, object]:
    """Do the same as `ask`, but make no socket call after the daemon began to work on it: the answer comes through a pipe.

    Raises:
        DaemonUnreachableError: nobody listens, or no whole answer came in time.
        RefusedError: the daemon refused.
    """
    deadline = time.monotonic() + SECONDS_MAX
    reading, writing = os.pipe()
    try:
        with _connect(path) as connection:
            line = _line(verb, fields)
            sent = socket.send_fds(connection, [line], [writing])
            connection.sendall(line[sent:])
            os.close(writing)
            writing = -1
        return _answer(reading, path, deadline)
    except OSError as error:
        raise DaemonUnreachableError(f"the capd daemon at {path} hung up: {error.strerror}") from error
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Not settimeout, which makes connect fail at once when a thousand clients come together: so it waits for its turn.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SECONDS_MAX), 0))
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise DaemonUnreachableError(f"no capd daemon answers at {path}: {error.strerror or error}") from error
    return connection


def _line(verb: str, fields: dict[str, object]) -> bytes:
    return json.dumps({"verb": verb, **fields}, ensure_ascii=True).encode("ascii") + b"\n"


def _answer(descriptor: int, path: Path, deadline: float) -> dict[str, object]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    content = bytearray()
    while not content.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise DaemonUnreachableError(f"the capd daemon at {path} did not answer in {SECONDS_MAX:.0f} s")
        chunk = os.read(descriptor, _CHUNK_BYTES)
        content += chunk
        if not chunk or len(content) > ANSWER_BYTES_MAX:
            raise DaemonUnreachableError(f"the capd daemon at {path} ended while it was asked")
    return _judge(json.loads(content))


def _judge(answer: dict[str, object]) -> dict[str, object]:
    if answer.get("ok") is True:
        return answer
    error = cast("dict[str, object]", answer.get("error") or {})
    status = error.get("exit_status")
    raise RefusedError(
        str(error.get("message", "the daemon refused without a reason")),
        str(error.get("hint", "")),
        status if isinstance(status, int) else 2,
    )
