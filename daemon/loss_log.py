"""What was noted of losses, in a file beside the probes: the next daemon goes on with their counts and tells none twice.

What lives here: the file, rows of msgpack. What must not: what is lost, and when it is noted (losses.py).

A row is written after its note is in the journal. Killed between the two, a daemon leaves a loss that the next one tells again:
the sessions concerned are called partial as they are anyway, with more bytes missing than there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgpack

FILE: Final = "losses"
FILE_BYTES_MAX: Final = 1 << 20
"""Then it is written anew with what is still of use; some tens of bytes for each stream that lost something."""

Key = tuple[int, int, int, int, int]


@dataclass(kw_only=True)
class Noted:
    """What was noted until now.

    Attributes:
        lost: the counters of losses.
        skipped: programs that did not run.
        amounts: of each stream.
        bytes, streams, changed_ns: totals for the status.
    """

    lost: tuple[int, ...] = ()
    skipped: int = 0
    amounts: dict[Key, int] = field(default_factory=dict)
    bytes: int = 0
    streams: int = 0
    changed_ns: int | None = None


class LossLog:
    """The file of this daemon.

    Args:
        path: where it is.
        failed: is told when it cannot be written.
    """

    def __init__(self, path: Path, failed: Callable[[str], None]) -> None:
        self._path = path
        self._failed = failed

    def begin(self) -> None:
        """Nothing is noted: the probes are new."""
        self._write(b"", anew=True)

    def read(self) -> Noted:
        """Give what an earlier daemon noted.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        noted = Noted()
        unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False)
        unpacker.feed(self._path.read_bytes())
        try:
            for lost, skipped, rows, totals in unpacker:
                noted.lost, noted.skipped = lost, skipped
                noted.bytes, noted.streams, noted.changed_ns = totals
                noted.amounts.update({tuple(key): amount for key, amount in rows})
        except (msgpack.UnpackException, ValueError, TypeError) as error:
            raise ValueError("it holds something else") from error
        return noted

    def add(self, noted: Noted, rows: Mapping[Key, int]) -> None:
        """Remember what was just noted.

        Args:
            noted: all of it.
            rows: those amounts that are new; 0 for a stream that is forgotten.
        """
        self._write(_row(noted, rows), anew=False)
        try:
            if self._path.stat().st_size > FILE_BYTES_MAX:
                self._write(_row(noted, noted.amounts), anew=True)
        except OSError as error:
            self._failed(f"{self._path}: {error.strerror}")

    def _write(self, content: bytes, *, anew: bool) -> None:
        target = self._path.with_suffix(".new") if anew else self._path
        how = os.O_TRUNC if anew else os.O_APPEND
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how, 0o600)
            try:
                if os.write(fd, content) != len(content):
                    raise OSError(28, "No space left on device")
            finally:
                os.close(fd)
            if anew:
                target.rename(self._path)
        except OSError as error:
            self._failed(f"{self._path}: {error.strerror}")


def _row(noted: Noted, rows: Mapping[Key, int]) -> bytes:
    totals = (noted.bytes, noted.streams, noted.changed_ns)
    return bytes(msgpack.packb((noted.lost, noted.skipped, [(key, amount) for key, amount in rows.items()], totals)))
