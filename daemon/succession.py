"""What a daemon takes over from the one before, and leaves to the one after: the probes, and how far it has come with them.

What lives here: the order in which it is taken and left. What must not: each of the parts (probe_store.py, drain_mark.py,
loss_log.py), and what is done with the probes.

It needs a service manager that keeps descriptors. Without one, and where anything does not fit, the probes begin anew: that is
a hole in every session that is open, and told as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from capd.daemon import descriptor_store, drain_mark, probe_store
from capd.daemon.drain_mark import DrainMark
from capd.daemon.loss_log import LossLog, Noted
from capd.daemon.probe_store import ProbeStore
from capd.probes.capture import Capture, CaptureSettings
from capd.probes.standing import PREFIX, Left
from capd.recording.journal import Source

DIRECTORY: Final = "standing"
"""In the runtime directory, for root alone."""
DIRECTORY_MODE: Final = 0o700


class Succession:
    """The handing over from daemon to daemon.

    Args:
        runtime: the runtime directory.
        journal: where the journal is.
        received: what the service manager kept, by name; what concerns the probes is removed from it.
    """

    def __init__(self, runtime: Path, journal: Path, received: dict[str, list[int]]) -> None:
        self._directory = runtime / DIRECTORY
        self._journal = journal
        self._descriptors = {name: received.pop(name) for name in list(received) if name.startswith(PREFIX)}
        self.store = ProbeStore(self._directory, journal) if self._prepared() else None
        self.log = None if self.store is None else LossLog(self._directory / "losses", self.store.spoil)
        self.noted: Noted | None = None
        """What the daemon before noted of losses; None: there was none, or its probes are gone."""
        self.outgoing_noted: Noted | None = None
        """The same, if its probes are only read to their end."""
        self.mark: DrainMark | None = None
        self.epoch = uuid4()
        self._before = self._read()

    @property
    def left(self) -> Left:
        """Give what the daemon before left."""
        description = None if self._before is None else self._before[0].description
        return Left(description=description, descriptors=self._descriptors)

    def outgoing(self, settings: CaptureSettings) -> Capture | None:
        """Give the probes of the daemon before, which are not gone on with, to be read to their end; None if they cannot be.

        To be called when the new ones are there, and before the journal is opened.

        Args:
            settings: of the new ones.

        Raises:
            StateDirectoryError: the journal cannot be read or cut.
        """
        capture = Capture.outgoing(self.left, settings)
        if capture is None or self._before is None:
            self.left.close(self.store)
            return None
        _, mark, self.outgoing_noted = self._before
        drain_mark.settle(mark, self._journal, {Source.CONTROL: capture.control, Source.DATA: capture.data})
        return capture

    def gone(self) -> None:
        """The probes of the daemon before were read to their end, and are closed here: have them kept no longer."""
        for name in self._descriptors if self.store is not None else ():
            descriptor_store.let_go(name)

    def taken(self, rings: Mapping[Source, drain_mark.Ring]) -> None:
        """The probes were taken over: bring journal and rings into line. To be called before the journal is opened.

        Raises:
            StateDirectoryError: the journal cannot be read or cut.
        """
        assert self._before is not None
        before, mark, self.noted = self._before
        drain_mark.settle(mark, self._journal, rings)
        self.epoch = before.epoch

    def begin(self) -> None:
        """The journal is open: from here on the next daemon can go on."""
        if self.store is None or self.log is None:
            return
        if self.noted is None:
            self.log.begin()
        try:
            self.mark = DrainMark(self._directory / drain_mark.FILE)
        except OSError as error:
            self.store.spoil(f"{self._directory / drain_mark.FILE}: {error.strerror}")
        self.store.begin(self.epoch)

    def close(self) -> None:
        """Let go of what this process holds of it."""
        if self.mark is not None:
            self.mark.close()

    def facts(self, *, continued: bool) -> dict[str, object]:
        """Give the part of a status.

        Args:
            continued: whether the probes were taken over.
        """
        unkept = "no service manager keeps them" if self.store is None else self.store.unkept
        return {"continued": continued, "kept": unkept is None, "reason": unkept}

    def _prepared(self) -> bool:
        if not descriptor_store.there():
            return False
        try:
            self._directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            self._directory.chmod(DIRECTORY_MODE)
        except OSError:
            return False
        return True

    def _read(self) -> tuple[probe_store.Remembered, bytes, Noted] | None:
        """Read what was left; None where a part of it is missing."""
        if self.log is None:
            return None
        before = probe_store.remembered(self._directory, self._journal)
        mark = drain_mark.left(self._directory / drain_mark.FILE)
        try:
            noted = self.log.read()
        except (OSError, ValueError):
            return None
        return None if before is None or mark is None else (before, mark, noted)
