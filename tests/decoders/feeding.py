"""How tests feed decoders, and how they compare what came out.

What lives here: conversations as lists of arrivals, ways to cut them, and a normal form of events. What must not: tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from capd.decoders.message import NEED_DATA, Decoder, Direction, Event, Gap, Message, ProtocolError, Skipped

REQUEST = Direction.REQUEST
RESPONSE = Direction.RESPONSE
PARTED = frozenset({"body", "tunnel"})
"""Types of messages that come in as many parts as bytes arrive in."""

Arrival = tuple[Direction, bytes | Gap]
Seen = Message | Skipped | ProtocolError


def drain(decoder: Decoder) -> list[Seen]:
    """Take all events that are there, errors included."""
    seen: list[Seen] = []
    while True:
        try:
            event: Event = decoder.next_event()
        except ProtocolError as error:
            seen.append(error)
            continue
        if event is NEED_DATA:
            return seen
        assert isinstance(event, Message | Skipped)
        seen.append(event)


def feed(decoder: Decoder, arrivals: Iterable[Arrival]) -> list[Seen]:
    """Give arrivals one by one and take all events after each."""
    seen: list[Seen] = []
    for direction, data in arrivals:
        decoder.receive(direction, data)
        seen += drain(decoder)
    return seen


def byte_by_byte(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Cut every arrival into single bytes."""
    cut: list[Arrival] = []
    for direction, data in arrivals:
        if isinstance(data, Gap) or not data:
            cut.append((direction, data))
        else:
            cut += [(direction, bytes([byte])) for byte in data]
    return cut


def split_at(arrivals: Sequence[Arrival], positions: Iterable[int]) -> list[Arrival]:
    """Cut arrivals at positions in the concatenation of all their bytes."""
    cuts = sorted(positions)
    cut: list[Arrival] = []
    offset = 0
    for direction, data in arrivals:
        if isinstance(data, Gap) or not data:
            cut.append((direction, data))
            continue
        inside = [position - offset for position in cuts if offset < position < offset + len(data)]
        edges = [0, *inside, len(data)]
        cut += [(direction, data[begin:end]) for begin, end in pairwise(edges) if end > begin]
        offset += len(data)
    return cut


def size(arrivals: Iterable[Arrival]) -> int:
    """How many bytes arrive."""
    return sum(len(data) for _, data in arrivals if isinstance(data, bytes))


def normal(seen: Iterable[Seen]) -> list[tuple[object, ...]]:
    """Events as tuples for each direction in turn, with parts of one body joined.

    How events of the two directions mix depends on when bytes arrive; the order within a direction does not.
    """
    rows: dict[Direction, list[list[object]]] = {REQUEST: [], RESPONSE: []}
    for event in seen:
        of_direction = rows[event.direction]
        row = _row(event)
        last = of_direction[-1] if of_direction else None
        if last is not None and _joins(last, row):
            last[2] = row[2]
            if isinstance(last[-1], bytes) and isinstance(row[-1], bytes):
                last[-1] += row[-1]
        else:
            of_direction.append(row)
    return [(direction, *row) for direction, of_direction in rows.items() for row in of_direction]


def _row(event: Seen) -> list[object]:
    if isinstance(event, ProtocolError):
        return ["error", event.offset, event.offset, event.reason]
    if isinstance(event, Skipped):
        return ["skipped", event.start, event.end, event.reason]
    fields = repr(event.fields)
    return [event.type, event.start, event.end, event.summary, event.exchange, fields, event.incomplete, event.content]


def _joins(last: list[object], row: list[object]) -> bool:
    if last[0] != row[0] or last[2] != row[1]:
        return False
    if row[0] == "skipped":
        return last[3] == row[3]
    return row[0] in PARTED and last[3:6] == row[3:6] and row[6] is None


def check_spans(arrivals: Iterable[Arrival], seen: Iterable[Seen], *, ended: bool = True) -> None:
    """Every byte of a direction is in exactly one event, in order; bytes of known gaps may be in none."""
    for direction in Direction:
        own = [data for of, data in arrivals if of is direction]
        total = sum(len(data) if isinstance(data, bytes) else data.length or 0 for data in own)
        lost = sum(data.length or 0 for data in own if isinstance(data, Gap))
        spans = [
            (event.start, event.end) for event in seen if isinstance(event, Message | Skipped) and event.direction is direction
        ]
        position = outside = 0
        for start, end in spans:
            assert start <= end
            assert start >= position, f"{direction.name} {start} overlaps what ended at {position}"
            outside += start - position
            position = end
        if ended:
            assert position <= total
            outside += total - position
        assert outside <= lost, f"{direction.name}: {outside} bytes in no event, {lost} were lost"


def all_ways(make: Callable[[], Decoder], arrivals: Sequence[Arrival]) -> list[Seen]:
    """Feed a conversation whole, byte by byte, and split at every position; all must give the same. Gives what came out."""
    whole = feed(make(), arrivals)
    expected = normal(whole)
    check_spans(arrivals, whole, ended=False)
    one_by_one = feed(make(), byte_by_byte(arrivals))
    assert expected == normal(one_by_one), "byte by byte"
    check_spans(arrivals, one_by_one, ended=False)
    for position in range(1, size(arrivals)):
        assert expected == normal(feed(make(), split_at(arrivals, [position]))), f"split at {position}"
    return whole


def outline(seen: Iterable[Seen]) -> list[str]:
    """Events as short lines for tables: `> request GET / HTTP/1.1`, `< ! offset: reason`."""
    lines = []
    for event in seen:
        arrow = "><"[event.direction]
        if isinstance(event, ProtocolError):
            lines.append(f"{arrow} ! {event.offset}: {event.reason}")
        elif isinstance(event, Skipped):
            lines.append(f"{arrow} ~ {event.start}..{event.end}: {event.reason}")
        else:
            said = event.content.decode("latin-1") or event.summary
            incomplete = f" ({event.incomplete})" if event.incomplete else ""
            lines.append(f"{arrow} {event.type} {event.exchange} {said}".rstrip() + incomplete)
    return lines
