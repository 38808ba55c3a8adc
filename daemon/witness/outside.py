"""Programs outside of all runs that a run speaks to over a unix socket: what they do for it is forced through nothing.

What lives here: which sessions these are, and what is remembered until it is known. What must not: records' form, the rest of
the two witnesses, for the enforcer never hears of a unix socket.

A unix socket is known by the name at which it listens. Where a run listens at that name too, one program of runs speaks to
another, and both are forced. What a host's own services are told by nearly every program is allowed by name
(`enforcement.helpers`); a container runtime, D-Bus, ssh-agent or a program that relays is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from capd.daemon.witness import verdicts
from capd.daemon.witness.matching import AGE_NS, QUEUE_NS
from capd.daemon.witness.opened import uuid_of
from capd.daemon.witness.state import Books, Helped
from capd.recording.record import Kind, Record

HELPED_MAX: Final = 4_096
"""Sessions that are not judged yet: new ones, and those on which nothing was said. Above it the oldest are judged at once."""
SERVED_MAX: Final = 4_096
"""Names at which runs listened, the newest."""
FINDING: Final = "helper: a program outside of all runs is spoken to here; what it does for this run is forced through nothing"


class Outside:
    """What is known of sessions over unix sockets. Not thread-safe."""

    def __init__(self, books: Books, allowed: Sequence[str]) -> None:
        """Take what is remembered, and patterns of names that anybody may speak to (`*` also stands for `/`)."""
        self._books, self._allowed = books, allowed

    def opened(self, record: Record) -> None:
        """Take an OPEN record of a session that does not go through the enforcer; a later one may know more."""
        body, target, books = record.body, record.body.get("target"), self._books
        host = target.get("host") if isinstance(target, dict) else None
        name = host if isinstance(host, str) else ""
        if body.get("transport") != "unix":
            return
        if body.get("role") == "server":
            books.helped.pop(record.session, None)
            if name:
                self._serve(name, record.time_ns)
        elif any(fnmatchcase(name, pattern) for pattern in self._allowed):
            books.helped.pop(record.session, None)
        else:
            helped = books.helped.setdefault(record.session, Helped())
            # Of one that began before capture and whose opener nobody saw, the other end may as well be this run's.
            whole = body.get("role") == "client" or not body.get("mid_stream")
            known = uuid_of(body.get("run")) is not None and record.time_ns >= books.since_ns
            helped.name = name if whole and known else ""

    def _serve(self, name: str, time_ns: int) -> None:
        served = self._books.served
        served.pop(name, None)
        served[name] = time_ns
        if len(served) > SERVED_MAX:
            del served[next(iter(served))]

    def observe(self, record: Record) -> None:
        """Take any other record of such a session."""
        helped = self._books.helped.get(record.session)
        if helped is None:
            return
        if record.kind in (Kind.DATA, Kind.GAP) and helped.since_ns is None:
            helped.since_ns = record.time_ns
        elif record.kind is Kind.CLOSE and helped.since_ns is None:
            del self._books.helped[record.session]

    def due(self, seen_ns: int, now_ns: int) -> Iterator[tuple[str, Record]]:
        """Give the findings about sessions that are with programs outside, once each, with a key that no other has.

        Args:
            seen_ns: wall time up to which all that the probes told was read.
            now_ns: wall time.
        """
        books = self._books
        surplus = len(books.helped) - HELPED_MAX
        for place, (session, helped) in enumerate(list(books.helped.items())):
            since_ns = helped.since_ns
            late = since_ns is not None and (seen_ns >= since_ns + AGE_NS or now_ns >= since_ns + QUEUE_NS)
            if late or place < surplus:
                del books.helped[session]
                if helped.name and helped.name not in books.served:
                    books.counts.helpers += 1
                    books.counts.alarmed_ns = now_ns
                    at_ns = now_ns if since_ns is None else since_ns
                    yield f"helper:{session}", verdicts.finding(session, FINDING, at_ns, alarm=True)
