"""Credentials that turn up in what agents say or hear: found before anything is stored, told, and hidden.

What lives here: which bytes are looked at, what is remembered of a hit until its records are stored. What must not: values: the
keeper looks (enforcer/credentials/search.py); files.

All of it is looked at before masking, which may hide a secret without knowing whose it is; it is hidden behind masking,
whatever the recording level is. Nothing waits for this: a recorder that goes a way again has to store the same records. So a
value that began in bytes that are stored already is found, and the rest of it hidden; where some bytes end like the beginning
of one, of 6 characters at least, that beginning is hidden at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from uuid import UUID

from capd.daemon.locations import SEARCH_SOCKET
from capd.enforcer.credentials.search import BEGUN_STEPS, ESCAPE_BYTES_MAX, KEPT_BYTES_MAX, Hit
from capd.enforcer.credentials.search_client import Answer, Searcher
from capd.enforcer.masking.place import FILLER_TEXT, Place, filled, joined
from capd.recording.record import Direction, Kind, Record, Value

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

PIECE_BYTES_MAX: Final = 262_144
"""Looked at at a time: between two the keeper does something else."""
SESSIONS_MAX: Final = 65_536
"""Of which anything is remembered; of those beyond, the one that said nothing for the longest time is forgotten."""
STREAMS_MAX: Final = 256
"""Of one session: both directions, and bodies that are under way: HTTP/2 has a hundred at once, each way."""
PLACES_MAX: Final = 256
"""Of one direction of a session, that are remembered until what they are in is stored; of twice as many the nearest become
one, for to forget one would be to store it."""
TAIL_BYTES: Final = BEGUN_STEPS * ESCAPE_BYTES_MAX
"""Of a stream, that are looked at again with what follows, where they are not known to be the beginning of a value."""
LATEST_MAX: Final = 10
MARKER: Final = "secret"
KIND: Final = "credential"
BEGUN: Final = "may be a credential, cut off"
HIDDEN: Final = "hidden: a credential of capd is in it"
_WHOLE: Final = frozenset({"http2", "websocket"})
"""Protocols in whose messages stands what their bytes do not show."""
FACTS: Final = frozenset({Kind.OPEN, Kind.MARKER})
_KEPT: Final = ("protocol", "type", "exchange", "ordinal", "start", "end", "incomplete")
"""Of a message that is hidden."""


class Fact(NamedTuple):
    """A record about a process, a run or a session: its arguments may hold anything. By what is known of it behind masking."""

    session: UUID
    kind: Kind
    time_ns: int
    name: str
    pid: int


class Searching(Protocol):
    """Looks for credentials (enforcer/credentials/search_client.py)."""

    problem: str | None

    def search(self, pieces: Sequence[bytes]) -> Answer | None:
        """Give where they are; None: nobody can say, for now."""


@dataclass(slots=True)
class _Session:
    """What is remembered of a session.

    Attributes:
        run: whose it is.
        ends: of each stream of it: where what came ends, and the last bytes of that.
        places: of each direction, what is to be hidden of it.
        told: credentials that were told of.
    """

    run: UUID | None = None
    ends: dict[tuple[int, object], tuple[int, bytes]] = field(default_factory=dict)
    places: tuple[list[Place], list[Place]] = field(default_factory=lambda: ([], []))
    told: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Piece:
    """Bytes of one stream that follow each other.

    Attributes:
        session, direction: whose.
        stream: None: what was said; the exchange of a body; the number of the message, or the fact, that it is.
        position: of the first byte that is new, in the stream.
        before: how many bytes came earlier.
        data: all of it.
        records: those that are in it: where each begins in it, and the span of the payload that it was made of.
    """

    session: UUID
    direction: int
    stream: object
    position: int
    before: int
    data: bytearray
    records: list[tuple[int, int, int]] = field(default_factory=list)


class Tripwire:
    """All sessions of one recorder."""

    def __init__(self, searching: Searching | None, clock: Callable[[], int]) -> None:
        """Begin.

        Args:
            searching: who looks; None: there are no credentials.
            clock: wall time in nanoseconds.
        """
        self._searching, self._clock = searching, clock
        self._sessions: OrderedDict[UUID, _Session] = OrderedDict()
        self._kept_bytes = KEPT_BYTES_MAX
        self._seen: dict[str, int] = {}
        self._latest: deque[dict[str, object]] = deque(maxlen=LATEST_MAX)
        self._marked: set[UUID] = set()
        """Sessions of which something is to be hidden."""
        self._facts: dict[Fact, set[str]] = {}
        """Texts that are to be hidden of facts, until those are stored."""
        self._seen_ns: int | None = None
        self._searched_bytes = self._unsearched_bytes = 0
        self._unsearched_ns: int | None = None
        self._defect: str | None = None

    def look(self, records: Sequence[Record]) -> list[Record]:
        """Look at records as they come, before masking; give what is to be stored beside them of what was found."""
        if self._searching is None:
            return []
        try:
            return self._looked(self._searching, records)
        except Exception as error:  # noqa: BLE001 - a defect here must not stop the recording; it is told
            self._defect = type(error).__name__
            self._unsearched_ns = self._clock()
            return []

    def _looked(self, searching: Searching, records: Sequence[Record]) -> list[Record]:
        pieces = list(self._pieces(records))
        if not pieces:
            return []
        size = sum(len(piece.data) - piece.before for piece in pieces)
        answer = searching.search([bytes(piece.data) for piece in pieces])
        begun = {} if answer is None else dict(answer.begun)
        for number, piece in enumerate(pieces):
            self._remember(piece, begun.get(number))
        if answer is None:
            self._unsearched_bytes += size
            self._unsearched_ns = self._clock()
            return []
        self._searched_bytes += size
        self._kept_bytes = answer.kept_bytes
        found: list[Record] = []
        for number, hit in answer.found:
            if hit.end > pieces[number].before:
                found += self._found(pieces[number], hit)
        return found

    def hidden(self, records: list[Record]) -> list[Record]:
        """Give records as they are stored, behind masking."""
        if self._searching is None:
            return records
        if not self._facts and not any(record.session in self._marked for record in records):
            for record in records:
                if record.kind is Kind.CLOSE:
                    self._sessions.pop(record.session, None)
            return records
        return [shown for record in records for shown in self._shown(record)]

    def status(self) -> dict[str, object]:
        """Give the part of the recorder's status."""
        return {
            "wanted": self._searching is not None,
            "problem": self._problem,
            "seen": dict(sorted(self._seen.items())),
            "seen_total": sum(self._seen.values()),
            "seen_ns": self._seen_ns,
            "latest": list(self._latest),
            "searched_bytes": self._searched_bytes,
            "unsearched_bytes": self._unsearched_bytes,
            "unsearched_ns": self._unsearched_ns,
        }

    @property
    def _problem(self) -> str | None:
        if self._defect is not None:
            return f"a defect of capd: {self._defect}"
        return None if self._searching is None else self._searching.problem

    # -- in --------------------------------------------------------------------------------------------------------------------

    def _pieces(self, records: Sequence[Record]) -> Iterator[_Piece]:
        """Give what is to be looked at: of each stream what follows each other in one piece."""
        growing: dict[tuple[UUID, int, object], _Piece] = {}
        for record in records:
            if record.kind is Kind.OPEN:
                self._of(record.session).run = _identity(record.body.get("run"))
            said = _said(record)
            if said is None:
                continue
            stream, position, text = said
            direction = int(record.direction or 0)
            key = (record.session, direction, stream)
            piece = growing.get(key)
            if piece is not None and not _goes_on(piece, position):
                yield growing.pop(key)
                piece = None
            piece = piece or self._begin(record.session, direction, stream, position)
            piece.records.append((len(piece.data), *_span(record, position, len(text))))
            for at in range(0, len(text), PIECE_BYTES_MAX):
                piece.data += text[at : at + PIECE_BYTES_MAX]
                if len(piece.data) > PIECE_BYTES_MAX + self._kept_bytes:
                    piece, full = self._parted(piece), piece
                    yield full
            growing[key] = piece
        yield from growing.values()

    def _begin(self, session: UUID, direction: int, stream: object, position: int | None) -> _Piece:
        """Begin a piece with the last bytes of what came before it."""
        if isinstance(stream, int | Fact):
            return _Piece(session, direction, stream, 0, 0, bytearray())
        end, last = self._of(session).ends.get((direction, stream), (-1, b""))
        if position is not None and position != end:
            last = b""  # bytes are missing between
        at = end if position is None and end >= 0 else position or 0
        return _Piece(session, direction, stream, at, len(last), bytearray(last))

    def _parted(self, piece: _Piece) -> _Piece:
        """Cut a long piece behind PIECE_BYTES_MAX; give the rest, which begins with the last bytes before that."""
        cut = max(PIECE_BYTES_MAX, piece.before)
        first = max(0, cut - self._kept_bytes)
        rest = _Piece(
            piece.session,
            piece.direction,
            piece.stream,
            piece.position + cut - piece.before,
            cut - first,
            piece.data[first:],
            [(at - first, start, end) for at, start, end in piece.records],
        )
        del piece.data[cut:]
        return rest

    def _remember(self, piece: _Piece, begun: int | None) -> None:
        """Remember the end of a stream, and hide it where it is the beginning of what may become a value."""
        if isinstance(piece.stream, int | Fact):  # a whole by itself
            return
        if begun is not None:
            self._hide(piece, begun, len(piece.data), BEGUN)
        session = self._of(piece.session)
        end = piece.position + len(piece.data) - piece.before
        last = bytes(piece.data[max(0, len(piece.data) - TAIL_BYTES) if begun is None else begun :])
        session.ends.pop((piece.direction, piece.stream), None)
        session.ends[piece.direction, piece.stream] = (end, last)
        if len(session.ends) > STREAMS_MAX:
            del session.ends[next(iter(session.ends))]

    def _of(self, identity: UUID) -> _Session:
        session = self._sessions.get(identity)
        if session is None:
            session = self._sessions[identity] = _Session()
            if len(self._sessions) > SESSIONS_MAX:
                forgotten, _ = self._sessions.popitem(last=False)
                self._marked.discard(forgotten)
        else:
            self._sessions.move_to_end(identity)
        return session

    # -- hits ------------------------------------------------------------------------------------------------------------------

    def _found(self, piece: _Piece, hit: Hit) -> Iterator[Record]:
        """Take a hit; the first of a credential in a session is told."""
        if isinstance(piece.stream, Fact):
            self._facts.setdefault(piece.stream, set()).update(_hit_texts(bytes(piece.data), hit))
        else:
            self._hide(piece, hit.start, hit.end, f"credential {hit.name}")
        now, session = self._clock(), self._of(piece.session)
        self._seen[hit.name] = self._seen.get(hit.name, 0) + 1
        self._seen_ns = now
        if hit.name in session.told:
            return
        session.told.add(hit.name)
        run = None if session.run is None else str(session.run)
        told = {"credential": hit.name, "run": run, "session": str(piece.session), "direction": _word(piece.direction)}
        self._latest.append({**told, "time_ns": now})
        body: dict[str, Value] = {"name": MARKER, "credential": hit.name}
        yield Record(Kind.MARKER, piece.session, now, Direction(piece.direction), body)

    def _hide(self, piece: _Piece, start: int, end: int, rule: str) -> None:
        """Remember a place of a piece as one of the payload: of a message all that it was made of."""
        places = self._of(piece.session).places[piece.direction]
        self._marked.add(piece.session)
        if piece.stream is None:
            base = piece.position - piece.before
            places.append(Place(base + start, base + end, KIND, rule))
        else:
            behind = [*(at for at, _, _ in piece.records[1:]), len(piece.data)]
            for (at, first, last), until in zip(piece.records, behind, strict=True):
                if at < end and start < until:
                    places.append(Place(first, last, KIND, rule))
        if len(places) > 2 * PLACES_MAX:
            places[:] = _fewer(places)

    # -- out -------------------------------------------------------------------------------------------------------------------

    def _shown(self, record: Record) -> Iterator[Record]:
        session = self._sessions.get(record.session)
        if record.kind in FACTS and (texts := self._facts.pop(_fact(record), None)) is not None:
            facts = {name: _without(value, texts) for name, value in record.body.items()}
            yield Record(record.kind, record.session, record.time_ns, record.direction, facts)
            return
        if session is not None and record.kind is Kind.CLOSE:
            del self._sessions[record.session]
            self._marked.discard(record.session)
        if session is None or record.direction is None or not session.places[record.direction]:
            yield record
        elif record.kind is Kind.DATA:
            yield from _data(record, session.places[record.direction])
        elif record.kind is Kind.MESSAGE and _overlaps(record, session.places[record.direction]):
            kept = {name: record.body[name] for name in _KEPT if name in record.body}
            body: dict[str, Value] = {**kept, "summary": HIDDEN, "fields": {}, "text": ""}
            yield Record(record.kind, record.session, record.time_ns, record.direction, body)
        else:
            yield record


def tripwire(configuration: Configuration) -> Tripwire:
    """Give the one of a recorder: it asks the keeper, where a configuration has credentials that may be injected."""
    wanted = configuration.enforcement.mode != "off" and configuration.credentials
    path = configuration.enforcer_runtime_dir / SEARCH_SOCKET
    return Tripwire(Searcher(path, time.monotonic) if wanted else None, time.time_ns)


def with_markers(records: list[Record], markers: Sequence[Record]) -> list[Record]:
    """Give records with what was found in their sessions: before the end of such a session, or behind all."""
    if not markers:
        return records
    ends = {record.session for record in records if record.kind is Kind.CLOSE}
    found: list[Record] = []
    for record in records:
        if record.kind is Kind.CLOSE:
            found += (marker for marker in markers if marker.session == record.session)
        found.append(record)
    return [*found, *(marker for marker in markers if marker.session not in ends)]


def _said(record: Record) -> tuple[object, int | None, bytes] | None:
    """Give what a record says: of which stream; at which position of the payload, None where that says nothing; the bytes."""
    body = record.body
    if record.kind in FACTS:
        return _fact(record), None, "\0".join(_texts(body)).encode("utf-8", "surrogatepass")
    if record.direction is None:
        return None
    if record.kind is Kind.DATA:
        payload, position = body.get("payload"), body.get("position")
        wire = body.get("layer") == "wire"
        return (None, position, payload) if isinstance(payload, bytes) and isinstance(position, int) and not wire else None
    if record.kind is not Kind.MESSAGE:
        return None
    is_body = body.get("type") == "body"
    if not is_body and str(body.get("protocol")) not in _WHOLE:
        return None
    text = "\n".join(_texts([body.get("text")] if is_body else [body.get("fields"), body.get("content"), body.get("text")]))
    number = body.get("exchange" if is_body else "ordinal")
    number = number if isinstance(number, int) else -1
    stream = ("body", number) if is_body else number
    return stream, None, text.encode("utf-8", "surrogatepass")


def _fact(record: Record) -> Fact:
    name, pid = record.body.get("name"), record.body.get("pid")
    return Fact(record.session, record.kind, record.time_ns, str(name), pid if isinstance(pid, int) else 0)


def _hit_texts(data: bytes, hit: Hit) -> Iterator[str]:
    """Give the texts of a fact in which a hit is."""
    at = 0
    for part in data.split(b"\0"):
        start, at = at, at + len(part) + 1
        if hit.start < start + len(part) and start < hit.end:
            yield part.decode("utf-8", "surrogatepass")


def _without(value: Value, texts: Collection[str]) -> Value:
    """Give a value without such texts, and without those that masking has changed, which may have been some."""
    if isinstance(value, str):
        return HIDDEN if value in texts or FILLER_TEXT in value else value
    if isinstance(value, Mapping):
        return {name: _without(item, texts) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_without(item, texts) for item in value]
    return value


def _texts(value: Value, depth: int = 0) -> Iterator[str]:
    """Give all texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, Mapping) and depth < _DEPTH_MAX:
        for item in value.values():
            yield from _texts(item, depth + 1)
    elif isinstance(value, Sequence) and depth < _DEPTH_MAX:
        for item in value:
            yield from _texts(item, depth + 1)


_DEPTH_MAX: Final = 64


def _span(record: Record, position: int | None, size: int) -> tuple[int, int]:
    """Give what of the payload a record is of."""
    if position is not None:
        return position, position + size
    start, end = record.body.get("start"), record.body.get("end")
    return (start, end) if isinstance(start, int) and isinstance(end, int) else (0, 0)


def _goes_on(piece: _Piece, position: int | None) -> bool:
    return position is None or position == piece.position + len(piece.data) - piece.before


def _data(record: Record, places: Sequence[Place]) -> Iterator[Record]:
    payload, position = record.body.get("payload"), record.body.get("position")
    if not isinstance(payload, bytes) or not isinstance(position, int) or record.body.get("layer") == "wire":
        yield record
        return
    end = position + len(payload)
    found = [place._replace(start=max(place.start, position), end=min(place.end, end)) for place in joined(places)]
    found = [place for place in found if place.start < place.end]
    if not found:
        yield record
        return
    body: dict[str, Value] = {**record.body, "payload": filled(payload, found, position)}
    yield Record(record.kind, record.session, record.time_ns, record.direction, body)
    for place in found:
        spans: list[Value] = [[place.start, place.end - place.start]]
        layer = str(record.body.get("layer") or "application")
        told: dict[str, Value] = {"layer": layer, "kind": place.kind, "rule": place.rule, "places": spans}
        yield Record(Kind.MASKED, record.session, record.time_ns, record.direction, told)


def _fewer(places: Sequence[Place]) -> list[Place]:
    """Give PLACES_MAX places that hide all that these do, and what is between those that lie closest to each other."""
    ordered = joined(places)
    nearest = sorted(range(1, len(ordered)), key=lambda at: ordered[at].start - ordered[at - 1].end)
    bridged = set(nearest[: max(0, len(ordered) - PLACES_MAX)])
    result = ordered[:1]
    for at, place in enumerate(ordered[1:], 1):
        if at in bridged:
            result[-1] = result[-1]._replace(end=place.end)
        else:
            result.append(place)
    return result


def _overlaps(record: Record, places: Sequence[Place]) -> bool:
    start, end = record.body.get("start"), record.body.get("end")
    if not isinstance(start, int) or not isinstance(end, int):
        return True
    return any(place.start < end and start < place.end for place in places)


def _identity(value: Value) -> UUID | None:
    return UUID(bytes=value) if isinstance(value, bytes) and len(value) == 16 else None  # noqa: PLR2004 - a UUID's


def _word(direction: int) -> str:
    return Direction(direction).name.lower()
