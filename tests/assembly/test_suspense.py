"""TLS, clear text and TLS again, told late, in pieces, over restarts, with losses: complete is only exactly what was said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from hypothesis import Phase, given, settings
from hypothesis import event as met
from hypothesis import strategies as st

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.snapshot import pack, unpack
from capd.probes.layouts import Absence, Library, Tie
from capd.recording.record import Kind, Record
from tests.assembly.test_layers import FAREWELL
from tests.assembly.test_tls import HELLO
from tests.assembly.world import (
    MS,
    REQUEST,
    RESPONSE,
    Daemon,
    assembler,
    closed,
    gaps,
    moved,
    of_kind,
    opened,
    stream,
    tls_closed,
    tls_opened,
    verdicts,
)

STEP_NS = 1_000
END_NS = 400 * MS
CALL_BYTES = 22
"""Of a record around what was said."""
CLEAR = [b"220 go ahead\r\n", b"x", b"\x17\x03\xff\xff\xff no record", b"\x16\x03\x01\xff\xff no hello", b"\x00" * 40]
"""Some begin as TLS does; none is a record."""


@dataclass(frozen=True)
class Clear:
    """Something said in clear."""

    direction: int
    text: bytes
    cut: int = 0


@dataclass(frozen=True)
class Secured:
    """One TLS stream: what was said, which sides took leave, when its end is told (so many moves later; None: at the end)."""

    said: Sequence[tuple[int, bytes, bool]]
    farewells: Sequence[int]
    freed_after: int | None


@dataclass
class Talk:
    """A conversation as it happened, and what the probes tell of it."""

    now_ns: int = 1_000
    at: list[int] = field(default_factory=lambda: [0, 0])
    data: list[tuple[int, bytes]] = field(default_factory=list)
    ways: list[tuple[int, int]] = field(default_factory=list)
    control: list[tuple[int, bytes]] = field(default_factory=list)
    truth: list[tuple[int, bytes]] = field(default_factory=list)
    lengths: dict[int, list[int]] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)

    def tick(self) -> int:
        """Give the next time."""
        self.now_ns += STEP_NS
        return self.now_ns

    def socket(self, direction: int, payload: bytes) -> None:
        """Bytes of the socket that are carried."""
        time_ns = self.tick()
        self.data.append((time_ns, moved(time_ns, 9, direction, self.at[direction], payload)))
        self.ways.append((9, direction))
        self.at[direction] += len(payload)

    def ciphertext(self, direction: int, size: int) -> None:
        """Bytes of the socket that a TLS call moved."""
        time_ns, at = self.tick(), self.at[direction]
        self.data.append((time_ns, moved(time_ns, 9, direction, at, b"", length=size, absence=Absence.CIPHERTEXT)))
        self.ways.append((9, direction))
        self.at[direction] += size

    def plain(self, number: int, direction: int, payload: bytes) -> None:
        """What a TLS call told."""
        time_ns, at = self.tick(), self.lengths[number][direction]
        made = moved(time_ns, number, direction, at, payload, tls=True, socket=9, tie=Tie.NESTED, library=Library.OPENSSL)
        self.data.append((time_ns, made))
        self.ways.append((number, direction))
        self.lengths[number][direction] += len(payload)
        self.truth.append((direction, payload))

    def clear(self, said: Clear) -> None:
        """Somebody says something in clear, in one call or two."""
        cut = said.cut % len(said.text)
        for part in (said.text[:cut], said.text[cut:]):
            if part:
                self.socket(said.direction, part)
        self.truth.append((said.direction, said.text))

    def secure(self, number: int, said: Secured) -> None:
        """A TLS stream from its first byte to its last."""
        self.lengths[number] = [0, 0]
        self.socket(REQUEST, HELLO)
        self.socket(RESPONSE, b"\x16\x03\x03\0\x05hello")
        time_ns = self.tick()
        self.control.append((time_ns, tls_opened(time_ns, number, 9)))
        for direction, text, stepwise in said.said:
            if direction == RESPONSE and stepwise:
                self.ciphertext(direction, 5)
            self.ciphertext(direction, len(text) + CALL_BYTES - (5 if direction == RESPONSE and stepwise else 0))
            self.plain(number, direction, text)
        for direction in said.farewells:
            self.socket(direction, FAREWELL)

    def free(self, number: int) -> None:
        """The library lets go of a TLS stream."""
        time_ns = self.tick()
        self.control.append((time_ns, tls_closed(time_ns, number, 9, *self.lengths[number])))
        self.due.pop(number, None)


def talk(moves: Sequence[Clear | Secured]) -> Talk:
    """Have it happen."""
    made = Talk()
    for number, move in enumerate(moves):
        if isinstance(move, Clear):
            made.clear(move)
        else:
            made.secure(77 + number, move)
            made.due[77 + number] = len(moves) if move.freed_after is None else number + move.freed_after
        for one in [one for one, when in made.due.items() if when <= number]:
            made.free(one)
    return made


clear_text = st.builds(Clear, st.sampled_from([REQUEST, RESPONSE]), st.sampled_from(CLEAR), st.integers(0, 20))
plain_text = st.builds(Clear, st.sampled_from([REQUEST, RESPONSE]), st.sampled_from(CLEAR[:2]), st.integers(0, 20))
said_within = st.tuples(st.sampled_from([REQUEST, RESPONSE]), st.binary(min_size=1, max_size=30), st.booleans())
secured = st.builds(
    Secured,
    st.lists(said_within, max_size=4),
    st.lists(st.sampled_from([REQUEST, RESPONSE]), max_size=2, unique=True),
    st.none() | st.integers(0, 3),
)


@dataclass(frozen=True)
class Telling:
    """How the host tells of it: where drains end, how many drains later than it could each control event comes, what is lost.

    Attributes:
        drains: how much data each brings.
        late: by how many drains each control event is late.
        restarts: drains behind which the recorder is started anew.
        swaps: indices of data that the next overtakes, if it goes the same way: two threads write.
        lost: indices of data that is lost.
    """

    drains: Sequence[int]
    late: Sequence[int]
    restarts: frozenset[int]
    swaps: frozenset[int]
    lost: frozenset[int]


telling = st.builds(
    Telling,
    st.lists(st.integers(1, 8), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.frozensets(st.integers(0, 8), max_size=3),
    st.frozensets(st.integers(0, 30), max_size=2),
    st.frozensets(st.integers(0, 30), max_size=1) | st.just(frozenset[int]()),
)


def cycles(made: Talk, way: Telling) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Give control and data of each drain."""
    data = list(made.data)
    for index in way.swaps:
        if index + 1 < len(data) and made.ways[index] == made.ways[index + 1]:
            data[index], data[index + 1] = data[index + 1], data[index]
    data = [event for index, event in enumerate(data) if index not in way.lost]
    drains: list[list[tuple[int, bytes]]] = []
    while data:
        size = way.drains[len(drains) % len(way.drains)]
        drains.append(data[:size])
        data = data[size:]
    drains += [[] for _ in range(6)]
    control: list[list[bytes]] = [[] for _ in drains]
    for index, (time_ns, event) in enumerate(made.control):
        first = next(number for number, drain in enumerate(drains) if not drain or max(at for at, _ in drain) >= time_ns)
        control[min(first + way.late[index % len(way.late)], len(drains) - 1)].append(event)
    yield from zip(control, ([event for _, event in drain] for drain in drains), strict=True)


def recorded(made: Talk, way: Telling) -> list[Record]:
    """Give what becomes of it."""
    daemon, records = Daemon(), list[Record]()
    history: dict[UUID, list[Record]] = {}
    core: Assembler = assembler()

    def take(blocks: list) -> None:  # type: ignore[type-arg] # of the journal
        for batch in core.process(blocks):
            records.extend(batch.records)
            for record in batch.records:
                history.setdefault(record.session, []).append(record)

    take(daemon.started(form=2))
    take(daemon.run_started())
    take(daemon.cycle(1_000, control=[opened(900, 9, peer=("192.0.2.7", 443))]))
    for number, (control, data) in enumerate(cycles(made, way)):
        blocks = daemon.cycle((number + 2) * MS, control=control, data=data)
        if blocks:
            take(blocks)
        if number in way.restarts:
            core = assembler(unpack(pack(core.snapshot())), history)
    ends = [tls_closed(END_NS, one, 9, *made.lengths[one]) for one in made.due]
    take(daemon.drained(made.now_ns + 30 * MS))
    take(daemon.cycle(END_NS + MS, control=[*ends, closed(END_NS, 9, made.at[REQUEST], made.at[RESPONSE])]))
    take(daemon.drained(END_NS + 50 * MS))
    take(daemon.drained(END_NS + 300 * MS))
    records.extend(core.settle().records)
    return records


def said_in_order(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    """Give what was said, the pieces of one side together."""
    return together(
        [
            (int(record.direction), bytes(record.body["payload"]))  # type: ignore[arg-type]
            for record in of_kind(records, Kind.DATA)
            if record.body.get("layer", "application") == "application" and record.direction is not None
        ]
    )


def together(pieces: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join what one side said without the other."""
    joined: list[tuple[int, bytes]] = []
    for direction, text in pieces:
        if joined and joined[-1][0] == direction:
            joined[-1] = (direction, joined[-1][1] + text)
        elif text:
            joined.append((direction, text))
    return joined


def whole(made: Talk, direction: int) -> bytes:
    """Give all that one side said."""
    return b"".join(text for one, text in made.truth if one == direction)


SPOKE = Secured([(REQUEST, b"abc", False), (REQUEST, b"def", False), (RESPONSE, b"ghi", True)], [], 0)
SILENT = Secured([], [REQUEST, RESPONSE], None)
FOUND: list[list[Clear | Secured]] = [
    [replace(SPOKE, farewells=[REQUEST, RESPONSE]), Clear(RESPONSE, CLEAR[0]), SPOKE],
    [SILENT, SPOKE],
    [replace(SILENT, farewells=[]), Clear(REQUEST, CLEAR[2], 2), Clear(REQUEST, CLEAR[0])],
]


@pytest.mark.parametrize("late", [0, 4])
@pytest.mark.parametrize(
    "moves", FOUND, ids=["the peer alone in clear", "one that said nothing", "clear text that begins as TLS does"]
)
def test_what_was_found(moves: list[Clear | Secured], late: int) -> None:
    """Neither a handshake counts as said, nor is what was said taken for wire, however late a stream is told."""
    made = talk(moves)
    way = Telling([2], [late, 0, late], frozenset(), frozenset(), frozenset())
    records = recorded(made, way)
    if verdicts(records) == [("complete", [])]:
        assert together(made.truth) == said_in_order(records)
    else:
        assert [("partial", ["bytes outside TLS records"])] == verdicts(records)
        assert SPOKE not in moves


@settings(max_examples=200, deadline=None, phases=[Phase.generate])
@given(st.lists(clear_text, max_size=2), st.lists(secured | clear_text, min_size=1, max_size=7), telling)
def test_it_is_exactly_what_was_said_or_says_that_it_is_not(
    before: list[Clear], moves: list[Clear | Secured], way: Telling
) -> None:
    """Complete is only what has every byte of both sides, in the order in which they were said; nothing is lost unsaid."""
    made = talk([*before, *moves])
    records = recorded(made, way)
    ((verdict, _reasons),) = verdicts(records)
    met(verdict)
    if verdict == "complete":
        assert [] == gaps(records)
        assert [whole(made, one) for one in (REQUEST, RESPONSE)] == [stream(records, one) for one in (REQUEST, RESPONSE)]
        assert together(made.truth) == said_in_order(records)


@settings(max_examples=200, deadline=None, phases=[Phase.generate])
@given(st.lists(secured, min_size=1, max_size=3), st.lists(plain_text, min_size=1, max_size=3), telling)
def test_what_is_told_in_time_is_complete(streams: list[Secured], between: list[Clear], way: Telling) -> None:
    """Where each side took leave and nothing was lost or overtaken, all is there, however late ends are told."""
    ending = [replace(one, farewells=(REQUEST, RESPONSE), freed_after=0) for one in streams]
    made = talk([move for number, one in enumerate(ending) for move in (one, between[number % len(between)])])
    records = recorded(made, replace(way, swaps=frozenset(), lost=frozenset()))
    assert [("complete", [])] == verdicts(records)
    assert together(made.truth) == said_in_order(records)
