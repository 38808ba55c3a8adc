"""Streams: every byte in its place, and every missing byte told."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from capd.daemon.assembly.assembler import BATCH_RECORDS
from capd.probes.layouts import Absence, Role
from capd.recording.journal import Source
from capd.recording.record import Kind, Value
from tests.assembly.world import (
    BOOT,
    EPOCH,
    HOST,
    MS,
    REQUEST,
    RESPONSE,
    RUN_ID,
    Daemon,
    assemble,
    assembler,
    closed,
    gaps,
    moved,
    of_kind,
    opened,
    stream,
    verdicts,
)

SPOKEN = st.lists(st.tuples(st.sampled_from([REQUEST, RESPONSE]), st.binary(min_size=1, max_size=30)), min_size=1, max_size=20)


TLS_START = b"\x16\x03"
"""How a TLS record begins that is not what is said; test_tls.py has what becomes of those."""


def said_in(spoken: list[tuple[int, bytes]], direction: int) -> bytes:
    """Give all that is said in a direction."""
    return b"".join(payload for way, payload in spoken if way == direction)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Cut bytes at some offsets."""
    edges = sorted({0, len(data), *(offset % (len(data) + 1) for offset in at)})
    return [data[start:end] for start, end in pairwise(edges)]


def test_small_calls_are_given_out_in_small_batches() -> None:
    """However many small calls one drain brings, few of their records are in memory at once."""
    daemon = Daemon()
    made = assembler()
    events = [moved(10_000 + number, 9, REQUEST, number, b"x") for number in range(3 * BATCH_RECORDS)]
    batches = [len(batch.records) for batch in made.process(daemon.cycle(20_000, data=events))]
    assert sum(batches) >= len(events)
    assert max(batches) <= BATCH_RECORDS + 1


@given(spoken=SPOKEN, cuts=st.lists(st.integers(0, 1_000)), cycles=st.lists(st.integers(1, 7), min_size=1))
@example(spoken=[(REQUEST, b"\x16")], cuts=[], cycles=[1])
@example(spoken=[(REQUEST, b"\x16\x02")], cuts=[1], cycles=[1])
@example(spoken=[(REQUEST, b"\x16"), (RESPONSE, b"no"), (REQUEST, b"\x16")], cuts=[], cycles=[1])
def test_chunking_changes_nothing(spoken: list[tuple[int, bytes]], cuts: list[int], cycles: list[int]) -> None:
    """However calls and drain cycles cut the same bytes, each direction's stream is the same."""
    assume(not any(TLS_START in said_in(spoken, way) for way in (REQUEST, RESPONSE)))
    daemon = Daemon()
    events, positions, time_ns = [], [0, 0], 10_000
    for direction, payload in spoken:
        for piece in cut(payload, cuts):
            time_ns += 10
            events.append(moved(time_ns, 9, direction, positions[direction], piece))
            positions[direction] += len(piece)
    story = [daemon.started(), daemon.run_started(), daemon.cycle(5_000, control=[opened(4_000, 9)])]
    turn = 0
    while events:
        size = cycles[turn % len(cycles)]
        taken, events = events[:size], events[size:]
        turn += 1
        story.append(daemon.cycle(time_ns + turn, data=taken))
    story.append(daemon.cycle(time_ns + 99, control=[closed(time_ns + 50, 9, positions[0], positions[1])]))
    records = assemble(story)
    for direction in (REQUEST, RESPONSE):
        assert said_in(spoken, direction) == stream(records, direction)
    # Not always "complete": bytes that happen to be an SSH banner announce what nobody can read.
    assert ["partial"] != [verdict for verdict, _ in verdicts(records)]


@given(payloads=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=12), lost=st.sets(st.integers(0, 11)))
@example(payloads=[b"SSH-"], lost=set())
@example(payloads=[b"\x16", b"\x16"], lost={1})
def test_lost_events_always_become_gaps(payloads: list[bytes], lost: set[int]) -> None:
    """Whatever events are missing, gaps stand for exactly their bytes, and the verdict is partial."""
    assume(TLS_START not in b"".join(payloads))
    daemon = Daemon()
    events, position, expected = [], 0, b""
    for number, payload in enumerate(payloads):
        if number not in lost:
            events.append(moved(10_000 + number, 9, REQUEST, position, payload))
        expected += b"?" * len(payload) if number in lost else payload
        position += len(payload)
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(MS, control=[opened(4_000, 9), closed(90_000, 9, position, 0)], data=events))
    records = assemble(story)
    assert expected.replace(b"?", b"\0") == stream(records, REQUEST).replace(b"?", b"\0")
    missing = sum(len(payload) for number, payload in enumerate(payloads) if number in lost)
    reasons = [f"ring full: {missing} bytes of the request missing"] if missing else []
    ((verdict, found),) = verdicts(records)
    # What happens to begin like an SSH banner says of itself that nobody can read it.
    opaque = ["encrypted, no plaintext seen: ssh"] if verdict == "opaque" else []
    assert [*opaque, *reasons] == found
    assert verdict == ("opaque" if opaque else "partial" if missing else "complete")


@given(order=st.permutations(range(6)))
def test_events_that_overtook_each_other_are_put_in_order(order: list[int]) -> None:
    """Threads that write at once may be drained in any order: nothing is lost, nothing is out of place."""
    daemon = Daemon()
    events = [moved(10_000 + number, 9, REQUEST, 2 * number, b"%02d" % number) for number in order]
    story = [daemon.started(), daemon.run_started(), daemon.cycle(MS, data=events[:3]), daemon.cycle(2 * MS, data=events[3:])]
    records = assemble(story)
    assert b"000102030405" == stream(records, REQUEST)
    assert [] == gaps(records)


@pytest.mark.parametrize(
    ("absence", "reason"),
    [
        (Absence.FAULT, "memory fault"),
        (Absence.KERNEL_COPY, "kernel copy"),
        (Absence.TOO_LARGE, "call too large"),
        (Absence.URING, "io_uring"),
        (Absence.RING_FULL, "ring full"),
        (Absence.NONE, "unknown"),
        (99, "unknown"),
    ],
)
def test_bytes_that_a_call_moved_but_the_probe_could_not_copy_are_a_gap(absence: int, reason: str) -> None:
    """An event with fewer bytes than it moved gives what it has and a gap with the reason for the rest."""
    daemon = Daemon()
    events = [moved(1_000, 9, REQUEST, 0, b"abc", length=10, absence=absence), moved(2_000, 9, REQUEST, 10, b"xyz")]
    records = assemble([daemon.started(), daemon.run_started(), daemon.cycle(MS, data=events)])
    assert b"abc???????xyz" == stream(records, REQUEST)
    assert [(REQUEST, 3, 7, reason)] == gaps(records)


def test_the_close_tells_what_is_missing_at_the_end() -> None:
    """Bytes that the probes counted but no event carried are a gap before CLOSE; so are those that only TCP counted."""
    daemon = Daemon()
    control = [opened(500, 9), closed(3_000, 9, 5, 4, (6, 4))]
    events = [moved(1_000, 9, REQUEST, 0, b"abc"), moved(2_000, 9, RESPONSE, 0, b"defg")]
    records = assemble([daemon.started(), daemon.run_started(), daemon.cycle(MS, control=control, data=events)])
    assert [(REQUEST, 3, 2, "ring full"), (REQUEST, 5, 1, "unknown")] == gaps(records)
    assert [
        (
            "partial",
            ["ring full: 2 bytes of the request missing", "unknown: 1 bytes of the request missing"],
        )
    ] == verdicts(records)


def test_data_that_is_drained_long_after_the_close_still_belongs_to_it() -> None:
    """The daemon drains control ahead of a full data ring: a close waits for the data that came before it."""
    daemon = Daemon()
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(10 * MS, control=[opened(500, 9), closed(9 * MS, 9, 6, 0)]))
    story += [daemon.cycle((20 + turn) * MS, control=[opened(1_000, 50 + turn)]) for turn in range(5)]
    story.append(daemon.cycle(30 * MS, data=[moved(1_000, 9, REQUEST, 0, b"abc")]))
    story.append(daemon.cycle(31 * MS, data=[moved(2_000, 9, REQUEST, 3, b"def")]))
    records = assemble(story)
    assert b"abcdef" == stream(records, REQUEST)
    assert [("complete", [])] == verdicts(records)


def test_losses_that_no_event_showed_are_told_at_the_end() -> None:
    """What the daemon's note says was lost in a stream, and no gap told, is a gap when the session ends."""
    daemon = Daemon()
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(MS, control=[opened(500, 9, kind=2, protocol=17)], data=[moved(1_000, 9, REQUEST, 0, b"abc")]))
    story.append(daemon.cycle(2 * MS, data=[moved(2_000, 9, REQUEST, 5, b"xyz")]))
    story.append(daemon.note(3 * MS, note="losses", counters={"ring_full": 2}, streams=[[9, 0, REQUEST, 7, Absence.RING_FULL]]))
    story.append(daemon.note(4 * MS, note="run_ended", key=7))
    assert [(REQUEST, 3, 2, "ring full"), (REQUEST, 8, 5, "ring full")] == gaps(assemble(story))


def test_a_restarted_capture_is_a_gap_of_unknown_length_in_every_open_session() -> None:
    """A new start note of the same boot interrupts both directions; positions may begin anew afterwards."""
    daemon = Daemon()
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(MS, control=[opened(500, 9)], data=[moved(1_000, 9, REQUEST, 0, b"abc")]))
    story.append(daemon.started(2 * MS, epoch=HOST))
    again = opened(3 * MS, 9, mid_stream=1)
    story.append(daemon.cycle(4 * MS, control=[again], data=[moved(4 * MS, 9, REQUEST, 0, b"xyz")]))
    records = assemble(story)
    assert [(REQUEST, 3, None, "capture restarted"), (RESPONSE, 0, None, "capture restarted")] == gaps(records)
    assert b"abcxyz" == stream(records, REQUEST)
    assert 1 == len({record.session for record in of_kind(records, Kind.DATA)})


def test_the_same_start_note_twice_is_no_restart() -> None:
    """A recorder that reads a start note again, after a crash, makes no gap of it."""
    daemon = Daemon()
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(MS, control=[opened(500, 9)], data=[moved(1_000, 9, REQUEST, 0, b"abc")]))
    story.append(daemon.started(2 * MS, epoch=EPOCH))
    assert [] == gaps(assemble(story))


def test_a_daemon_that_goes_on_with_the_probes_makes_no_gap() -> None:
    """A start note that says so, of the same epoch, is told of the host, and positions go on."""
    daemon = Daemon()
    story = [daemon.started(), daemon.run_started()]
    story.append(daemon.cycle(MS, control=[opened(500, 9)], data=[moved(1_000, 9, REQUEST, 0, b"abc")]))
    facts: dict[str, Value] = {"boot": BOOT.bytes, "host": HOST.bytes, "version": "0.2.0", "continued": True, "form": 2}
    story.append(daemon.note(2 * MS, note="start", epoch=EPOCH.bytes, **facts))
    story.append(daemon.cycle(3 * MS, data=[moved(3 * MS, 9, REQUEST, 3, b"def")]))
    records = assemble(story)
    assert [] == gaps(records)
    assert b"abcdef" == stream(records, REQUEST)
    told = [record for record in of_kind(records, Kind.MARKER) if record.body["name"] == "capture_start"]
    assert [(HOST, None, "0.1.0"), (HOST, True, "0.2.0")] == [
        (record.session, record.body.get("continued"), record.body["version"]) for record in told
    ]


def test_a_block_that_cannot_be_read_interrupts_what_is_open() -> None:
    """A malformed span gives what came before it, then a gap of unknown length in every open session."""
    daemon = Daemon()
    good = moved(1_000, 9, REQUEST, 0, b"abc")
    broken = daemon.block(Source.DATA, good + good[:40], MS)
    records = assemble([daemon.started(), daemon.run_started(), [broken]])
    assert b"abc" == stream(records, REQUEST)
    assert [None, None] == [record.body["length"] for record in of_kind(records, Kind.GAP)]
    assert {"journal damaged"} == {record.body["reason"] for record in of_kind(records, Kind.GAP)}


def test_what_began_before_capture_is_partial() -> None:
    """A socket that was open before the probes saw it can never be complete."""
    daemon = Daemon()
    control = [opened(500, 9, role=Role.CLIENT, mid_stream=1), closed(9_000, 9, 3, 0, (90, 80))]
    records = assemble(
        [daemon.started(), daemon.run_started(), daemon.cycle(MS, control=control, data=[moved(1_000, 9, REQUEST, 0, b"abc")])]
    )
    assert [("partial", ["started before capture"])] == verdicts(records)


def test_a_large_call_becomes_several_records() -> None:
    """A call of many megabytes is cut into records of at most one, with nothing between them."""
    daemon = Daemon()
    payload = bytes(range(256)) * 10_000
    records = assemble([daemon.started(), daemon.run_started(), daemon.cycle(MS, data=[moved(1_000, 9, REQUEST, 0, payload)])])
    assert payload == stream(records, REQUEST)
    assert [0, 1 << 20, 2 << 20] == [record.body["position"] for record in of_kind(records, Kind.DATA)]


@given(order=st.permutations(range(6)), spoken=SPOKEN)
def test_times_of_a_session_never_go_back(order: list[int], spoken: list[tuple[int, bytes]]) -> None:
    """In whatever order events are drained, each record of a session is as late as the one ahead of it, or later."""
    daemon = Daemon()
    events = [moved(10_000 + number, 9, REQUEST, 2 * number, b"%02d" % number) for number in order]
    events += [moved(10_100 - number, 9, RESPONSE, 0, payload) for number, (_, payload) in enumerate(spoken[:1])]
    story = [
        daemon.started(),
        daemon.run_started(),
        daemon.cycle(MS, data=events),
        daemon.note(2 * MS, note="run_ended", key=7),
    ]
    of_session = [record.time_ns for record in assemble(story) if record.session not in (HOST, RUN_ID)]
    assert sorted(of_session) == of_session
