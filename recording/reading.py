"""What a reader of recordings can ask, wherever the recording is.

What lives here: the interfaces that a host's archive and a fleet's have in common. What must not: either of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from capd.recording.index_search import SessionFilter
from capd.recording.record import Record
from capd.recording.rows import Hit, ProcessRow, RunRow, SessionRow

if TYPE_CHECKING:
    from capd.recording.excerpt import Excerpt

LISTED_DEFAULT = 100


class Finder(Protocol):
    """Finds runs, sessions and messages. The methods are described where they are built: index.py, catalogue/fleet.py."""

    @property
    def withholds(self) -> bool:
        """Whether there is less to be searched here than was recorded, because it is encrypted."""
        ...

    def sessions(self, where: SessionFilter | None = None, *, limit: int | None = LISTED_DEFAULT) -> list[SessionRow]:
        """Give the sessions that pass a filter, latest start first."""
        ...

    def session(self, text: str | UUID) -> SessionRow:
        """Give a session by its id or the start of it."""
        ...

    def find_session(self, session: UUID) -> SessionRow | None:
        """Give a session by its whole id."""
        ...

    def runs(self, *, limit: int | None = LISTED_DEFAULT) -> list[RunRow]:
        """Give the runs, latest start first."""
        ...

    def run(self, text: str | UUID) -> RunRow:
        """Give a run by its id, the start of it, or its name."""
        ...

    def processes(self, run: UUID) -> list[ProcessRow]:
        """Give the processes of a run, in the order in which they were seen."""
        ...

    def search(self, text: str, where: SessionFilter | None = None, *, limit: int = LISTED_DEFAULT) -> list[Hit]:
        """Give the messages that hold all words of a text, latest first."""
        ...

    def exchange_start(self, session: UUID, ordinal: int) -> int | None:
        """Give the time in ns since 1970 at which the exchange of a message began."""
        ...

    def expired_words(self, *, text: str = "", from_ns: int | None = None) -> str:
        """Say for a person what has expired; empty when nothing has."""
        ...

    def behind_words(self) -> str:
        """Say for a person what may have been recorded and is not in here yet; empty when all is."""
        ...


class Readable(Protocol):
    """A recording that is open for reading: archive.py, catalogue/archive.py."""

    @property
    def index(self) -> Finder:
        """What finds things in it."""
        ...

    def records(
        self,
        session: UUID,
        *,
        follow: bool = False,
        poll: Callable[[], bool] = ...,
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """Give the records of a session, or of a run, in recorded order, each once."""
        ...

    def excerpt(self, identities: Sequence[UUID]) -> Excerpt:
        """Give the evidence for some sessions and runs."""
        ...
