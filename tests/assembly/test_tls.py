"""TLS: where it begins, which layer its bytes are, plaintext that comes before its socket is known."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from capd.daemon.assembly import session as sessions_module
from capd.daemon.assembly import tls
from capd.daemon.assembly.snapshot import pack, unpack
from capd.daemon.assembly.tls import begins_client_hello, begins_record, may_begin_client_hello, server_name
from capd.daemon.assembly.wire import Framing
from capd.probes.layouts import Absence, Library, Role, Tie
from capd.recording.journal import Block
from capd.recording.record import Kind, Record
from tests.assembly.world import (
    HOST,
    MS,
    PID,
    REQUEST,
    RESPONSE,
    RUN,
    Daemon,
    assemble,
    assembler,
    closed,
    exited,
    gaps,
    moved,
    of_kind,
    opened,
    sessions,
    stream,
    tls_closed,
    tls_opened,
    verdicts,
)

REQUESTED = b"GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n"
ANSWERED = b"HTTP/1.1 204 No Content\r\n\r\n"
ENCRYPTED = b"\x17\x03\x03\x00\x20" + bytes(32)
PLAIN = {"tls": True, "socket": 9, "tie": Tie.NESTED, "library": Library.OPENSSL}


def hello(name: bytes = b"api.example.org") -> bytes:
    """Give a ClientHello with a server name."""
    sni = (len(name) + 3).to_bytes(2, "big") + b"\0" + len(name).to_bytes(2, "big") + name
    extensions = b"\0\x17\0\0" + b"\0\0" + len(sni).to_bytes(2, "big") + sni
    body = (
        b"\x03\x03" + bytes(32) + b"\x01\xaa" + b"\0\x02\x13\x01" + b"\x01\0" + len(extensions).to_bytes(2, "big") + extensions
    )
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake


HELLO = hello()


def begin(daemon: Daemon) -> list[list[Block]]:
    """Give the cycles that every story begins with."""
    return [daemon.started(), daemon.run_started()]


def protocols(records: list[Record]) -> list[object]:
    """Give the protocols as they were told."""
    return [r.body["protocol"] for r in of_kind(records, Kind.MARKER) if r.body["name"] == "protocol"]


def test_plaintext_is_the_application_and_the_socket_is_the_wire() -> None:
    """Of a tied session `raw` gives the plaintext; handshake bytes are kept beside it; the name is the SNI's."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(
        daemon.cycle(
            10 * MS,
            control=[opened(1_000, 9, peer=("192.0.2.7", 443)), tls_opened(2_500, 77, 9)],
            data=[
                moved(2_000, 9, REQUEST, 0, HELLO),
                moved(2_600, 9, RESPONSE, 0, b"\x16\x03\x03\0\x05hello"),
                moved(2_700, 9, REQUEST, len(HELLO), ENCRYPTED),
                moved(2_800, 77, REQUEST, 0, REQUESTED, **PLAIN),  # type: ignore[arg-type]
                moved(2_900, 9, RESPONSE, 10, b"", length=500, absence=Absence.CIPHERTEXT),
                moved(3_000, 77, RESPONSE, 0, ANSWERED, **PLAIN),  # type: ignore[arg-type]
            ],
        )
    )
    wire = len(HELLO) + len(ENCRYPTED)
    ends = [tls_closed(4_000, 77, 9, len(REQUESTED), len(ANSWERED)), closed(5_000, 9, wire, 510, (wire, 510))]
    story.append(daemon.cycle(20 * MS, control=ends))
    records = assemble(story)
    assert (REQUESTED, ANSWERED) == (stream(records, REQUEST), stream(records, RESPONSE))
    assert HELLO + ENCRYPTED == stream(records, REQUEST, "wire")
    assert ["http1"] == protocols(records)
    assert [("complete", [])] == verdicts(records)
    target = of_kind(records, Kind.OPEN)[-1].body["target"]
    assert isinstance(target, dict)
    assert "api.example.org" == target["name"]


def test_wire_beyond_the_handshake_is_dropped_when_there_is_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each direction keeps so many wire bytes as evidence; more would be the conversation a second time."""
    monkeypatch.setattr(sessions_module, "WIRE_KEPT_MAX", 300)
    daemon = Daemon()
    story = begin(daemon)
    events = [moved(2_000, 9, REQUEST, 0, HELLO), moved(2_100, 77, REQUEST, 0, REQUESTED, **PLAIN)]  # type: ignore[arg-type]
    events += [moved(3_000 + n, 9, REQUEST, len(HELLO) + 37 * n, ENCRYPTED) for n in range(20)]
    story.append(daemon.cycle(10 * MS, control=[tls_opened(2_050, 77, 9)], data=events))
    records = assemble(story)
    assert 300 == len(stream(records, REQUEST, "wire"))
    assert [] == gaps(records)


def test_encrypted_without_plaintext_keeps_all_and_is_opaque() -> None:
    """A TLS session of an unknown library keeps its ciphertext and says that it could not be read."""
    daemon = Daemon()
    story = begin(daemon)
    big = ENCRYPTED * 1_000
    events = [moved(2_000, 9, REQUEST, 0, HELLO), moved(3_000, 9, REQUEST, len(HELLO), big)]
    size = len(HELLO) + len(big)
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9), closed(9_000, 9, size, 0, (size, 0))], data=events))
    records = assemble(story)
    assert HELLO + big == stream(records, REQUEST, "wire")
    assert b"" == stream(records, REQUEST)
    assert [("opaque", ["encrypted, no plaintext seen: TLS"])] == verdicts(records)


def test_starttls_appends_plaintext_to_the_clear_preamble() -> None:
    """PostgreSQL's SSLRequest and its answer stay in the application stream, before what came from inside TLS."""
    request = (8).to_bytes(4, "big") + (80_877_103).to_bytes(4, "big")
    startup = b"\0\0\0\x1a\0\x03\0\0user\0ann\0database\0x\0\0"
    startup = len(startup).to_bytes(4, "big") + startup[4:]
    daemon = Daemon()
    story = begin(daemon)
    events = [
        moved(1_000, 9, REQUEST, 0, request),
        moved(1_100, 9, RESPONSE, 0, b"S"),
        moved(1_200, 9, REQUEST, 8, HELLO),
        moved(1_300, 9, RESPONSE, 1, b"\x16\x03\x03\0\x05hello"),
        moved(1_400, 77, REQUEST, 0, startup, **PLAIN),  # type: ignore[arg-type]
        moved(1_500, 77, RESPONSE, 0, b"R\0\0\0\x08\0\0\0\0", **PLAIN),  # type: ignore[arg-type]
    ]
    control = [opened(900, 9, peer=("192.0.2.7", 5432)), tls_opened(1_250, 77, 9)]
    story.append(daemon.cycle(10 * MS, control=control, data=events))
    records = assemble(story)
    assert request + startup == stream(records, REQUEST)
    assert b"SR\0\0\0\x08\0\0\0\0" == stream(records, RESPONSE)
    assert ["postgresql"] == protocols(records)
    spans = [(r.direction, r.body["start"], r.body["end"]) for r in of_kind(records, Kind.MESSAGE)]
    assert (REQUEST, 8, 8 + len(startup)) in spans


def test_a_tunnel_is_decoded_inside() -> None:
    """After a proxy's CONNECT the conversation inside TLS is detected anew, its spans and exchange numbers go on."""
    connect = b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org:443\r\n\r\n"
    established = b"HTTP/1.1 200 Connection established\r\n\r\n"
    daemon = Daemon()
    story = begin(daemon)
    events = [
        moved(1_000, 9, REQUEST, 0, connect),
        moved(1_100, 9, RESPONSE, 0, established),
        moved(1_200, 9, REQUEST, len(connect), HELLO),
        moved(1_400, 77, REQUEST, 0, REQUESTED, **PLAIN),  # type: ignore[arg-type]
        moved(1_500, 77, RESPONSE, 0, ANSWERED, **PLAIN),  # type: ignore[arg-type]
    ]
    story.append(daemon.cycle(10 * MS, control=[opened(900, 9), tls_opened(1_250, 77, 9)], data=events))
    records = assemble(story)
    heads = [r.body for r in of_kind(records, Kind.MESSAGE) if r.body["type"] in ("request", "response")]
    assert ["CONNECT", "200", "GET", "204"] == [str(body["summary"]).split(" ", 1)[0] for body in heads]
    assert [0, 0, 1, 1] == [body["exchange"] for body in heads]
    assert [0, 0, len(connect), len(established)] == [body["start"] for body in heads]


def test_a_server_reads_its_hello_in_two_calls() -> None:
    """A session in which the agent is the server turns into TLS at the header that the library reads alone."""
    daemon = Daemon()
    story = begin(daemon)
    events = [moved(1_000, 9, RESPONSE, 0, HELLO[:5]), moved(1_100, 9, RESPONSE, 5, HELLO[5:])]
    story.append(daemon.cycle(10 * MS, control=[opened(900, 9, role=Role.SERVER)], data=events))
    records = assemble(story)
    assert HELLO == stream(records, RESPONSE, "wire")
    assert b"" == stream(records, RESPONSE)


def test_plaintext_waits_for_its_socket() -> None:
    """TLS data that comes before its tie goes to the tied session, in order, and to no other."""
    daemon = Daemon()
    story = begin(daemon)
    untied = moved(1_000, 77, REQUEST, 0, REQUESTED, tls=True, library=Library.OPENSSL)
    story.append(daemon.cycle(10 * MS, data=[untied]))
    story.append(daemon.cycle(20 * MS, control=[opened(500, 9), tls_opened(11 * MS, 77, 9, Tie.CIPHERTEXT)]))
    story.append(daemon.cycle(30 * MS, data=[moved(25 * MS, 77, RESPONSE, 0, ANSWERED, tls=True, library=Library.OPENSSL)]))
    records = assemble(story)
    assert 1 == len(sessions(records))
    assert (REQUESTED, ANSWERED) == (stream(records, REQUEST), stream(records, RESPONSE))
    ties = [r.body["tie"] for r in of_kind(records, Kind.MARKER) if r.body["name"] == "tls"]
    assert ["ciphertext"] == ties


@pytest.mark.parametrize(
    "end",
    [
        [tls_closed(20 * MS, 77, 0, len(REQUESTED), 0)],
        [exited(20 * MS)],
    ],
)
def test_plaintext_whose_socket_never_comes_is_a_session_of_its_own(end: list[bytes]) -> None:
    """When the stream or its process ends untied, what waited becomes a session that says that it has no socket."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, data=[moved(1_000, 77, REQUEST, 0, REQUESTED, tls=True, library=Library.GNUTLS)]))
    story.append(daemon.cycle(30 * MS, control=end))
    story.append(daemon.note(40 * MS, note="run_ended", key=RUN))
    records = assemble(story)
    assert REQUESTED == stream(records, REQUEST)
    assert 0 == of_kind(records, Kind.OPEN)[0].body["socket"]
    assert [("partial", ["TLS without socket"])] == verdicts(records)
    assert ["http1"] == protocols(records)


def test_plaintext_without_a_socket_is_shown_after_half_a_minute() -> None:
    """Thirty seconds of event time are enough to wait for a tie."""
    daemon = Daemon()
    story = begin(daemon)
    story.append(daemon.cycle(10 * MS, data=[moved(1_000, 77, REQUEST, 0, REQUESTED, tls=True)]))
    story.append(daemon.cycle(29_000 * MS, control=[opened(1_000, 50)]))
    assert b"" == stream(assemble(story), REQUEST)
    story.append(daemon.cycle(31_000 * MS, control=[opened(1_000, 51)]))
    assert REQUESTED == stream(assemble(story), REQUEST)


def test_the_hold_is_bounded_and_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit the hold releases the stream that waited longest; no byte of it is lost."""
    monkeypatch.setattr(tls, "HELD_BYTES_MAX", 100)
    daemon = Daemon()
    story = begin(daemon)
    events = [moved(1_000 + n, 77 + n % 2, REQUEST, 20 * (n // 2), b"%020d" % n, tls=True) for n in range(12)]
    story.append(daemon.cycle(10 * MS, data=events))
    story.append(daemon.note(20 * MS, note="run_ended", key=RUN))
    records = assemble(story)
    found = {stream(of_one, REQUEST) for of_one in sessions(records).values()}
    assert {b"".join(b"%020d" % n for n in range(first, 12, 2)) for first in (0, 1)} == found


def test_a_loss_inside_tls_is_a_gap_of_the_application() -> None:
    """Plaintext that is missing, in the middle or at the end, is a gap where the reader sees it."""
    daemon = Daemon()
    story = begin(daemon)
    events = [moved(2_000, 9, REQUEST, 0, HELLO)]
    events += [moved(2_100 + at, 77, REQUEST, at, b"ab", **PLAIN) for at in (0, 4)]  # type: ignore[arg-type]
    story.append(daemon.cycle(10 * MS, control=[tls_opened(2_050, 77, 9)], data=events))
    story.append(daemon.cycle(20 * MS, control=[tls_closed(11 * MS, 77, 9, 9, 0)]))
    records = assemble(story)
    assert [(REQUEST, 2, 2, "ring full"), (REQUEST, 6, 3, "ring full")] == gaps(records)
    assert b"ab??ab???" == stream(records, REQUEST)


@pytest.mark.parametrize("killed", [False, True])
def test_a_tls_conversation_survives_a_restart_of_the_capture(killed: bool) -> None:
    """After new probes gave its TLS stream another id, the conversation goes on in the same session and the same decoder."""
    daemon = Daemon()
    size = len(REQUESTED)
    story = begin(daemon)
    events = [moved(2_000, 9, REQUEST, 0, HELLO), moved(2_100, 77, REQUEST, 0, REQUESTED, **PLAIN)]  # type: ignore[arg-type]
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9), tls_opened(2_050, 77, 9)], data=events))
    story.append(daemon.started(20 * MS, epoch=HOST))
    first = assembler()
    records = [record for blocks in story for batch in first.process(blocks) for record in batch.records]
    known: dict[UUID, list[Record]] = {}
    for record in records:
        known.setdefault(record.session, []).append(record)
    second = assembler(unpack(pack(first.snapshot())), known) if killed else first
    again = moved(31 * MS, 78, REQUEST, 0, REQUESTED, **PLAIN)  # type: ignore[arg-type]
    records += assemble([daemon.cycle(40 * MS, control=[tls_opened(30 * MS, 78, 9)], data=[again])], into=second)
    assert REQUESTED * 2 == stream(records, REQUEST)
    assert 1 == len(sessions(records))
    assert ["http1"] == protocols(records)
    heads = [(r.body["start"], r.body["exchange"]) for r in of_kind(records, Kind.MESSAGE) if r.body["type"] == "request"]
    assert [(0, 0), (size, 1)] == heads


@given(st.binary(max_size=200))
def test_no_bytes_break_the_look_at_a_hello(data: bytes) -> None:
    """Whatever an agent sends, looking for TLS in it gives an answer and no exception."""
    for payload in (data, HELLO[: len(data)] + data, b"\x16\x03\x01" + data):
        assert not (begins_client_hello(payload) and may_begin_client_hello(payload))
        begins_record(payload)
        server_name(payload)


@given(st.integers(0, len(HELLO)))
def test_a_cut_hello_is_recognised_and_never_misnamed(size: int) -> None:
    """Any first part of a ClientHello is one, or may be one; its name is whole or not given."""
    assert [0 < size < 6, size >= 6] == [may_begin_client_hello(HELLO[:size]), begins_client_hello(HELLO[:size])]
    assert server_name(HELLO[:size]) in (None, "api.example.org")


@given(st.integers(0, len(HELLO)), st.binary(max_size=40), st.lists(st.integers(0, 300), max_size=4))
def test_it_makes_no_difference_how_a_hello_is_cut(size: int, tail: bytes, cuts: list[int]) -> None:
    """What begins like a ClientHello is the same TLS, or the same clear text, in one call and in several."""
    whole = (HELLO[:size] + tail)[: len(HELLO)]  # what may come behind a record has its own tests
    assume(whole)
    told = []
    for edges in ([0, len(whole)], sorted({0, len(whole), *(at % len(whole) for at in cuts)})):
        daemon = Daemon()
        story = [*begin(daemon), daemon.cycle(2_000, control=[opened(1_000, 9)])]
        for at, (start, end) in enumerate(pairwise(edges)):
            story.append(daemon.cycle(4_000 + at, data=[moved(3_000 + at, 9, REQUEST, start, whole[start:end])]))
        story.append(daemon.cycle(20 * MS, control=[closed(9 * MS, 9, len(whole), 0)]))
        records = assemble(story)
        assert [] == gaps(records)
        told.append((stream(records, REQUEST), stream(records, REQUEST, "wire")))
    assert told[0] == told[1]
    assert whole in told[0]


def test_the_beginning_of_a_hello_waits_over_a_restart_of_the_recorder() -> None:
    """Bytes that may begin TLS are in the snapshot, and are what the bytes behind them make of them."""
    for rest, layer in ((HELLO[3:], "wire"), (b"clear", "application")):
        daemon = Daemon()
        first = assembler()
        story = [*begin(daemon), daemon.cycle(2_000, control=[opened(1_000, 9)], data=[moved(1_500, 9, REQUEST, 0, HELLO[:3])])]
        records = assemble(story, into=first)
        assert b"" == stream(records, REQUEST) + stream(records, REQUEST, "wire")
        second = assembler(unpack(pack(first.snapshot())))
        again = [daemon.cycle(4_000, data=[moved(3_000, 9, REQUEST, 3, rest)])]
        assert HELLO[:3] + rest == stream(assemble(again, into=second), REQUEST, layer)


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\n", b"\x00\x00\x00\x08", b"SSH-2.0-x", b"\x16\x02\x00", b"\x16\x03\x01\xff\xff"]
)
def test_what_is_no_hello_is_none(text: bytes) -> None:
    """Protocols in clear are not taken for TLS."""
    assert not begins_client_hello(text)
    assert not may_begin_client_hello(text[:5])


def story_of(data: list[bytes], *, notes: Iterable[list[Block]] = (), control: Iterable[bytes] = ()) -> list[Record]:
    """Give the records of one TLS connection: its ClientHello, then this."""
    daemon = Daemon()
    story = begin(daemon)
    story.extend(notes)
    begun = [opened(1_000, 9, peer=("192.0.2.7", 443)), *control]
    story.append(daemon.cycle(10 * MS, control=begun, data=[moved(2_000, 9, REQUEST, 0, HELLO), *data]))
    story.append(daemon.cycle(20 * MS, control=[closed(9 * MS, 9, 0, 0)]))
    return assemble(story)


def said(time_ns: int, stream: int, direction: int, position: int, payload: bytes, *, pid: int = PID) -> bytes:
    """Give plaintext."""
    return moved(
        time_ns, stream, direction, position, payload, tls=True, socket=9, tie=Tie.NESTED, library=Library.OPENSSL, pid=pid
    )


def sent(time_ns: int, position: int, size: int) -> bytes:
    """Give ciphertext that went out within a TLS call."""
    return moved(time_ns, 9, REQUEST, position, b"", length=size, absence=Absence.CIPHERTEXT)


def test_a_conversation_goes_on_in_both_processes_after_a_fork() -> None:
    """Parent and child use one connection in turn: each has a TLS stream of its own, and all of both was said."""
    records = story_of(
        [
            said(3_000, 77, REQUEST, 0, b"one "),
            said(4_000, 78, RESPONSE, 0, b"yes ", pid=4321),
            said(5_000, 77, REQUEST, 4, b"two"),
            said(6_000, 78, RESPONSE, 4, b"no", pid=4321),
        ]
    )
    assert (b"one two", b"yes no") == (stream(records, REQUEST), stream(records, RESPONSE))
    assert [("complete", [])] == verdicts(records)


def test_a_tls_call_that_was_cut_off_is_a_gap() -> None:
    """Records went out, then the process was killed: what was in them is missing. A key update is not enough for that."""
    whole = story_of(
        [sent(3_000, len(HELLO), 5_022), said(4_000, 77, REQUEST, 0, b"x" * 5_000), sent(5_000, len(HELLO) + 5_022, 30)]
    )
    assert [("complete", [])] == verdicts(whole)
    cut = story_of([sent(3_000, len(HELLO), 50), said(4_000, 77, REQUEST, 0, b"first"), sent(5_000, len(HELLO) + 50, 40_000)])
    assert [(REQUEST, 5, None, "unfinished call")] == gaps(cut)
    assert [("partial", ["unfinished call: an unknown number of bytes missing"])] == verdicts(cut)


def test_ciphertext_told_beside_plaintext_is_part_of_the_socket() -> None:
    """A write's record tells the plaintext and where its ciphertext was: the wire has no hole, and one without it has."""
    size = len(HELLO) + 500
    for wire, lost in ((len(HELLO), 500), []), (None, [(REQUEST, len(HELLO), 500, "ring full")]):
        daemon = Daemon()
        story = begin(daemon)
        said = moved(2_800, 77, REQUEST, 0, REQUESTED, wire=wire, **PLAIN)  # type: ignore[arg-type]
        events = [moved(2_000, 9, REQUEST, 0, HELLO), said]
        story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9), tls_opened(2_500, 77, 9)], data=events))
        ends = [tls_closed(4_000, 77, 9, len(REQUESTED), 0), closed(5_000, 9, size, 0, (size, 0))]
        story.append(daemon.cycle(20 * MS, control=ends))
        records = assemble(story)
        assert REQUESTED == stream(records, REQUEST)
        assert lost == gaps(records), verdicts(records)


def test_ciphertext_that_came_without_any_plaintext_is_a_gap() -> None:
    """The events of the last TLS calls were lost, those of their system calls were not; less may never have been asked for."""
    heard = [said(3_000, 77, RESPONSE, 0, b"first")]
    for size, expected in ((20_000, []), (60_000, [(RESPONSE, 5, None, "unfinished call")])):
        late = moved(5_000, 9, RESPONSE, 0, b"", length=size, absence=Absence.CIPHERTEXT)
        assert expected == gaps(story_of([*heard, late]))


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(1, 40), max_size=20))
def test_records_are_followed_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    """TLS records in any pieces are TLS records; clear text behind them never is."""
    whole = b"".join(b"\x17\x03\x03" + len(body).to_bytes(2, "big") + body for body in bodies)
    framing, at = Framing(), 0
    for cut in [*cuts, len(whole)]:
        assert len(whole[at : at + cut]) == framing.take(whole[at : at + cut])
        at += cut
    assert 0 == framing.take(b"GET / HTTP/1.1")


@pytest.mark.parametrize(
    ("attached_ns", "verdict"),
    [(1_500, "complete"), (2_500, "partial"), (80 * MS, "complete")],
    ids=["before", "within", "after"],
)
def test_a_library_that_was_met_within_a_conversation_makes_it_partial(attached_ns: int, verdict: str) -> None:
    """Between the ClientHello and the probes there may have been calls that nobody saw."""
    note = Daemon().note(attached_ns, note="attached", late=True, path="/opt/libssl.so.3")
    records = story_of([said(3_000, 77, REQUEST, 0, REQUESTED)], notes=[note])
    assert [verdict] == [found for found, _ in verdicts(records)]


def test_a_server_that_reads_the_record_header_alone_is_recognised_after_starttls() -> None:
    """OpenSSL's servers read five bytes, then the rest; the handshake is not what was said."""
    daemon = Daemon()
    story = begin(daemon)
    data = [
        moved(2_000, 9, RESPONSE, 0, b"STARTTLS\r\n"),
        moved(3_000, 9, RESPONSE, 10, HELLO[:5]),
        moved(3_100, 9, RESPONSE, 15, HELLO[5:]),
        said(4_000, 77, RESPONSE, 0, b"EHLO"),
    ]
    story.append(daemon.cycle(10 * MS, control=[opened(1_000, 9, role=Role.SERVER)], data=data))
    records = assemble(story)
    assert b"STARTTLS\r\nEHLO" == stream(records, RESPONSE)
    assert HELLO == stream(records, RESPONSE, "wire")


@pytest.mark.parametrize("lost", ["beginning", "end"])
def test_a_lost_lifecycle_event_makes_its_session_partial(lost: str) -> None:
    """What the control ring had no room for may have said that the record is not whole."""
    daemon = Daemon()
    story = begin(daemon)
    control = [opened(1_000, 9)] if lost == "end" else []
    story.append(daemon.cycle(10 * MS, control=control, data=[moved(2_000, 9, REQUEST, 0, REQUESTED)]))
    story.append(daemon.note(20 * MS, note="losses", counters={"control_lost": 1}, streams=[]))
    story.append(daemon.cycle(30 * MS, control=[exited(22 * MS) if lost == "end" else closed(21 * MS, 9, len(REQUESTED), 0)]))
    story.append(daemon.note(40 * MS, note="run_ended", key=RUN))
    assert [("partial", ["its beginning or end was lost"])] == verdicts(assemble(story))
