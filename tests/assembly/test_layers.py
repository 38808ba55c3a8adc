"""Where TLS is over on a socket: what is said in clear behind it is part of what was said, where that is certain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from capd.daemon.assembly import suspense
from capd.daemon.assembly.snapshot import pack, unpack
from capd.probes.layouts import Absence, Library, Tie
from capd.recording.record import Kind, Record
from tests.assembly.test_tls import HELLO, REQUESTED
from tests.assembly.world import (
    MS,
    PID,
    REQUEST,
    RESPONSE,
    Daemon,
    assemble,
    assembler,
    closed,
    executed,
    exited,
    forked,
    gaps,
    moved,
    of_kind,
    opened,
    stream,
    tls_closed,
    tls_opened,
    verdicts,
)

FAREWELL = b"\x17\x03\x03\x00\x13" + bytes(range(100, 119))
"""close_notify of TLS 1.3, which looks like data."""
CLEAR = b"in clear from now on"
OUTSIDE = [("partial", ["bytes outside TLS records"])]
COMPLETE: list[tuple[str, list[str]]] = [("complete", [])]
AT = len(HELLO)


def said(time_ns: int, direction: int, position: int, payload: bytes, *, stream: int = 77) -> bytes:
    """Give plaintext."""
    about = {"socket": 9, "tie": Tie.NESTED, "library": Library.OPENSSL}
    return moved(time_ns, stream, direction, position, payload, tls=True, **about)  # type: ignore[arg-type]


def ciphertext(time_ns: int, direction: int, position: int, size: int) -> bytes:
    """Give what a TLS call moved."""
    return moved(time_ns, 9, direction, position, b"", length=size, absence=Absence.CIPHERTEXT)


SENT = (ciphertext(3_000, REQUEST, AT, 40), said(4_000, REQUEST, 0, REQUESTED))
"""A TLS call that sends."""


def told(data: Sequence[bytes], *, control: Iterable[bytes] = (), later: Iterable[bytes] = ()) -> list[Record]:
    """Give the records of a TLS connection: its ClientHello, then this, in three drains.

    Args:
        data: what its socket and its TLS calls moved.
        control: what is told with it.
        later: what is told by the next drain.
    """
    daemon = Daemon()
    story = [daemon.started(form=2), daemon.run_started()]
    begun = [opened(1_000, 9, peer=("192.0.2.7", 443)), *control]
    story.append(daemon.cycle(1 * MS, control=begun, data=[moved(2_000, 9, REQUEST, 0, HELLO), *data]))
    story.append(daemon.cycle(2 * MS, control=[*later, exited(1_900_000, pid=1)]))
    story.append(daemon.drained(30 * MS))
    story.append(daemon.cycle(40 * MS, control=[closed(39 * MS, 9, 0, 0), tls_closed(39 * MS, 77, 9, len(REQUESTED), 0)]))
    story.append(daemon.drained(90 * MS))
    return assemble(story)


def clear_marks(records: list[Record]) -> list[tuple[int | None, object]]:
    """Give direction and position of each place where clear text begins."""
    return [(r.direction, r.body["position"]) for r in of_kind(records, Kind.MARKER) if r.body["name"] == "clear"]


def test_clear_text_behind_the_farewell_is_what_was_said() -> None:
    """The farewell's record was followed to its end: what begins there is no TLS, in whatever calls it comes."""
    at = AT + 40
    goodbye = moved(5_000, 9, REQUEST, at, FAREWELL)
    rest = [moved(6_000, 9, REQUEST, at + 24, CLEAR), moved(7_000, 9, REQUEST, at + 24 + len(CLEAR), HELLO[3:])]
    records = told([*SENT, goodbye, *rest])
    assert REQUESTED + CLEAR + HELLO[3:] == stream(records, REQUEST)
    assert HELLO + FAREWELL == stream(records, REQUEST, "wire")
    assert [(REQUEST, len(REQUESTED))] == clear_marks(records)
    assert COMPLETE == verdicts(records)


def test_a_call_with_farewell_and_clear_text_is_split_between_them() -> None:
    """A program that does its own socket calls may move both in one."""
    received = [moved(5_000, 9, RESPONSE, 0, FAREWELL + FAREWELL + CLEAR)]
    records = told([*SENT, *received])
    assert (CLEAR, FAREWELL * 2) == (stream(records, RESPONSE), stream(records, RESPONSE, "wire"))
    assert REQUESTED == stream(records, REQUEST)
    assert COMPLETE == verdicts(records)


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        ([tls_closed(4_500, 77, 9, len(REQUESTED), 0)], COMPLETE),
        ([executed(4_500, b"/bin/cat", b"cat")], COMPLETE),
        ([tls_closed(5_500, 77, 9, len(REQUESTED), 0)], OUTSIDE),
        ([], OUTSIDE),
    ],
    ids=["freed", "exec", "freed afterwards", "alive"],
)
@pytest.mark.parametrize("drain", ["control", "later"])
def test_clear_text_behind_a_sending_call_needs_the_end_of_its_stream(
    ended: list[bytes], verdict: list[tuple[str, list[str]]], drain: str
) -> None:
    """Without a farewell, a call that told its plaintext ends at a record's end; that the stream is over may be told later."""
    daemon_tells = {drain: ended}
    clear = [moved(5_000 + at, 9, REQUEST, AT + 40 + at, CLEAR[at : at + 7]) for at in range(0, len(CLEAR), 7)]
    records = told([*SENT, *clear], **daemon_tells)
    assert verdict == verdicts(records)
    expected = (REQUESTED + CLEAR, HELLO) if verdict == COMPLETE else (REQUESTED, HELLO + CLEAR)
    assert expected == (stream(records, REQUEST), stream(records, REQUEST, "wire"))


def test_another_process_on_the_socket_of_a_tls_stream_speaks_in_clear() -> None:
    """A child that never spoke TLS gives its own bytes to the socket."""
    clear = moved(5_000, 9, REQUEST, AT + 40, CLEAR, pid=4321)
    records = told([*SENT, clear], control=[forked(4_100, 4321, 5_000)])
    assert REQUESTED + CLEAR == stream(records, REQUEST)
    assert COMPLETE == verdicts(records)


@pytest.mark.parametrize("stepwise", [True, False])
def test_clear_text_behind_a_receiving_call_needs_a_library_that_does_not_read_ahead(stepwise: bool) -> None:
    """What a library has read ahead may end in the middle of a record, and then so would begin what comes behind it."""
    steps = [5, 60] if stepwise else [65]
    data = [*SENT]
    for number, size in enumerate(steps):
        data.append(ciphertext(5_000 + number, RESPONSE, sum(steps[:number]), size))
    data += [said(6_000, RESPONSE, 0, b"answer"), moved(7_000, 9, RESPONSE, 65, CLEAR)]
    records = told(data, control=[tls_closed(6_500, 77, 9, len(REQUESTED), 6)])
    assert (b"answer" + CLEAR if stepwise else b"answer") == stream(records, RESPONSE)
    assert (COMPLETE if stepwise else OUTSIDE) == verdicts(records)


def test_bytes_behind_a_call_that_was_not_finished_are_not_taken_for_clear_text() -> None:
    """They may be the rest of its record."""
    unfinished = ciphertext(4_200, REQUEST, AT + 40, 30)
    data = [*SENT, unfinished, moved(5_000, 9, REQUEST, AT + 70, CLEAR)]
    records = told(data, control=[tls_closed(4_500, 77, 9, len(REQUESTED), 0)])
    assert REQUESTED == stream(records, REQUEST)
    assert HELLO + CLEAR == stream(records, REQUEST, "wire")
    assert OUTSIDE == verdicts(records)


def test_bytes_behind_a_loss_are_not_taken_for_clear_text() -> None:
    """The middle of a record looks like anything."""
    data = [*SENT, moved(5_000, 9, REQUEST, AT + 45, CLEAR)]
    records = told(data, control=[tls_closed(4_500, 77, 9, len(REQUESTED), 0)])
    assert REQUESTED == stream(records, REQUEST)
    assert [(REQUEST, AT + 40, 5, "ring full")] == gaps(records)
    assert CLEAR in stream(records, REQUEST, "wire")


def test_a_second_start_of_tls_behind_clear_text() -> None:
    """STARTTLS, back to clear text, STARTTLS again: what was said is all that was in clear, in its order, and no handshake."""
    at = AT + 40 + len(FAREWELL)
    again = at + len(CLEAR)
    data = [
        *SENT,
        moved(5_000, 9, REQUEST, AT + 40, FAREWELL),
        moved(6_000, 9, REQUEST, at, CLEAR),
        moved(6_100, 9, RESPONSE, 0, b"220 go ahead"),
        moved(7_000, 9, REQUEST, again, HELLO[:5]),
        moved(7_100, 9, REQUEST, again + 5, HELLO[5:]),
        moved(7_200, 9, REQUEST, again + AT, FAREWELL),
        ciphertext(8_000, REQUEST, again + AT + len(FAREWELL), 50),
        said(8_100, REQUEST, 0, b"secret again", stream=78),
    ]
    records = told(data, control=[tls_closed(5_500, 77, 9, len(REQUESTED), 0)])
    assert REQUESTED + CLEAR + b"secret again" == stream(records, REQUEST)
    assert HELLO + FAREWELL + HELLO + FAREWELL == stream(records, REQUEST, "wire")


STEPS = [moved(5_000 + at, 9, REQUEST, AT + 40 + at, CLEAR[at : at + 7]) for at in range(0, len(CLEAR), 7)]
"""Clear text behind `SENT`, in three calls."""
AGAIN = AT + 40 + len(CLEAR)
TURNED = [
    *SENT,
    *STEPS,
    moved(5_100, 9, RESPONSE, 0, FAREWELL + b"220 go ahead"),
    moved(7_000, 9, REQUEST, AGAIN, HELLO),
    ciphertext(8_000, REQUEST, AGAIN + AT, 50),
    said(8_100, REQUEST, 0, b"secret again", stream=78),
    ciphertext(8_500, RESPONSE, len(FAREWELL) + 12, 5),
    ciphertext(8_501, RESPONSE, len(FAREWELL) + 17, 60),
    said(8_600, RESPONSE, 0, b"answer again", stream=78),
]
"""A stream that ends without a farewell, clear text, and a second stream: one call after the other."""
FREED_AND_BEGUN = [tls_closed(4_500, 77, 9, len(REQUESTED), 0), tls_opened(7_900, 78, 9)]


@pytest.mark.parametrize("drain", ["control", "later"])
def test_nothing_overtakes_clear_text_that_waits_for_the_end_of_its_stream(drain: str) -> None:
    """A busy daemon reads that a stream ended when all that came behind it is there, the next stream too: the order is kept."""
    told_then = {drain: FREED_AND_BEGUN}
    records = told(TURNED, **told_then)
    assert REQUESTED + CLEAR + b"secret again" == stream(records, REQUEST)
    assert b"220 go ahead" + b"answer again" == stream(records, RESPONSE)
    assert [(REQUEST, len(REQUESTED)), (RESPONSE, 0)] == clear_marks(records)
    assert COMPLETE == verdicts(records)


@pytest.mark.parametrize("limit", ["SUSPENDED_EVENTS_MAX", "SUSPENDED_BYTES_MAX"])
def test_what_waits_for_the_end_of_a_stream_is_bounded(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits too long is delivered as what it seems to be, bytes outside TLS; none is lost and the verdict says so."""
    monkeypatch.setattr(suspense, limit, 2)
    records = told([*SENT, *STEPS])
    assert (REQUESTED, HELLO + CLEAR) == (stream(records, REQUEST), stream(records, REQUEST, "wire"))
    assert OUTSIDE == verdicts(records)


def test_what_waits_for_the_end_of_a_stream_outlives_the_recorder() -> None:
    """What waits is in the snapshot, with all behind it."""
    daemon = Daemon()
    first = assembler()
    data = [moved(2_000, 9, REQUEST, 0, HELLO), *TURNED]
    story = [daemon.started(form=2), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9)], data=data)]
    records = [record for blocks in story for batch in first.process(blocks) for record in batch.records]
    assert REQUESTED == stream(records, REQUEST)
    second = assembler(unpack(pack(first.snapshot())))
    records += assemble([daemon.cycle(2 * MS, control=FREED_AND_BEGUN)], into=second)
    assert REQUESTED + CLEAR + b"secret again" == stream(records, REQUEST)
    assert b"220 go ahead" + b"answer again" == stream(records, RESPONSE)


def test_a_direction_stays_clear_over_a_restart_of_the_recorder() -> None:
    """That TLS is over is in the snapshot."""
    daemon = Daemon()
    first = assembler()
    at = AT + 40 + len(FAREWELL)
    data = [moved(2_000, 9, REQUEST, 0, HELLO), *SENT, moved(5_000, 9, REQUEST, AT + 40, FAREWELL + CLEAR)]
    story = [daemon.started(form=2), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9)], data=data)]
    records = assemble(story, into=first)
    second = assembler(unpack(pack(first.snapshot())))
    again = [daemon.cycle(2 * MS, data=[moved(1_100_000, 9, REQUEST, at + len(CLEAR), b"\x17\x03\x03\x00\x01")])]
    records += assemble(again, into=second)
    assert REQUESTED + CLEAR + b"\x17\x03\x03\x00\x01" == stream(records, REQUEST)
    assert PID == of_kind(records, Kind.OPEN)[0].body["process"]["pid"]  # type: ignore[call-overload, index]
