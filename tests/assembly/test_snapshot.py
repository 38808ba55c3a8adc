"""Snapshots: an assembler that was killed and made anew goes on as if nothing had happened."""

from __future__ import annotations

from uuid import UUID

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.daemon.assembly import session as sessions_module
from capd.daemon.assembly.decoding import Decoding
from capd.daemon.assembly.snapshot import UnreadableSnapshotError, pack, unpack
from capd.probes.layouts import Absence, Library, Tie
from capd.recording.journal import Block
from capd.recording.record import Kind, Record
from tests.assembly.test_tls import ENCRYPTED, HELLO
from tests.assembly.world import (
    HOST,
    MS,
    REQUEST,
    RESPONSE,
    RUN,
    Daemon,
    assemble,
    assembler,
    closed,
    executed,
    exited,
    forked,
    moved,
    of_kind,
    opened,
    sessions,
    tls_closed,
    tls_opened,
)
from tests.decoders import http2_bytes as h2


def http_events(time_ns: int, socket: int, *, tls: int = 0) -> tuple[list[bytes], tuple[int, int]]:
    """Give keep-alive exchanges in small pieces, and the positions at their end."""
    requested = b"POST /a HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 6\r\n\r\nabcdef" * 3
    answered = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" * 3
    how = {"tls": True, "socket": socket, "tie": Tie.NESTED, "library": Library.OPENSSL} if tls else {}
    events = []
    for direction, payload in ((REQUEST, requested), (RESPONSE, answered)):
        for at in range(0, len(payload), 17):
            time_ns += 1_000
            events.append(moved(time_ns, tls or socket, direction, at, payload[at : at + 17], **how))  # type: ignore[arg-type]
    return events, (len(requested), len(answered))


def story() -> list[list[Block]]:
    """Give a day in the life of a host: plain, encrypted, untied, lossy, inherited and datagram sessions at once."""
    daemon = Daemon()
    plain, plain_ends = http_events(10 * MS, 9)
    secret, secret_ends = http_events(10 * MS + 500, 10, tls=77)
    hello = [moved(9 * MS, 10, REQUEST, 0, HELLO), moved(9 * MS + 1, 10, REQUEST, len(HELLO), ENCRYPTED)]
    udp = moved(11 * MS, 12, REQUEST, 0, b"query", peer=(2, 53, bytes([192, 0, 2, 9]) + bytes(12)))
    mixed = hello + [udp] + [event for pair in zip(plain, secret, strict=False) for event in pair]
    mixed += plain[len(secret) :] + secret[len(plain) :]
    del mixed[20]  # lost in the ring
    mixed[25], mixed[26] = mixed[26], mixed[25]
    control = [executed(1_000, b"/bin/agent", b"agent"), opened(2_000, 9), opened(3_000, 10), forked(4_000, 77, 4_000)]
    control += [opened(5_000, 11, role=0, peer=("", 0)), opened(5_500, 12, kind=2, protocol=17, role=0, peer=("", 0))]
    cycles = [daemon.started(), daemon.run_started(), daemon.cycle(8 * MS, control=control)]
    untied = [moved(9 * MS, 88, REQUEST, 10 * n, b"0123456789", tls=True) for n in range(4)]
    cycles.append(daemon.cycle(9 * MS, data=untied[:2]))
    for number, at in enumerate(range(0, len(mixed), 6)):
        cycles.append(daemon.cycle((12 + number) * MS, control=[tls_opened(9 * MS + 2, 77, 10)], data=mixed[at : at + 6]))
    cycles.append(daemon.cycle(50 * MS, control=[opened(40 * MS, 13), tls_opened(41 * MS, 88, 13)], data=untied[2:]))
    cycles.append(daemon.note(51 * MS, note="losses", counters={}, streams=[[11, 0, REQUEST, 3, Absence.RING_FULL]]))
    cycles.append(
        daemon.cycle(52 * MS, data=[moved(51 * MS, 11, REQUEST, 0, b"late"), moved(52 * MS, 11, REQUEST, 9, b"hole")])
    )
    ends = [closed(53 * MS, 9, *plain_ends), tls_closed(53 * MS, 77, 10, *secret_ends), exited(54 * MS, pid=77, start=4_000)]
    ends.append(closed(54 * MS, 10, len(HELLO) + len(ENCRYPTED), 0))
    cycles.append(daemon.cycle(54 * MS, control=ends))
    cycles.append(daemon.cycle(55 * MS, data=[moved(55 * MS, 13, REQUEST, 0, b"clear")]))
    cycles.append(daemon.started(60 * MS, epoch=HOST))
    cycles.append(daemon.cycle(61 * MS, data=[moved(61 * MS, 11, REQUEST, 70, b"again")]))
    cycles.append(daemon.note(70 * MS, note="run_ended", key=RUN))
    return cycles


def killed_at(cycles: list[list[Block]], deaths: set[int]) -> list[Record]:
    """Give the records of an assembler that is made anew from its snapshot after each of some cycles."""
    records: list[Record] = []
    made = assembler()
    for number, blocks in enumerate(cycles):
        for batch in made.process(blocks):
            records += batch.records
        if number in deaths:
            history: dict[UUID, list[Record]] = {}
            for record in records:
                history.setdefault(record.session, []).append(record)
            made = assembler(unpack(pack(made.snapshot())), history)
    return records + made.settle().records


def test_a_death_after_any_cycle_changes_no_record() -> None:
    """Killed once, after whichever cycle, the recording is the same record for record."""
    cycles = story()
    expected = assemble(cycles)
    assert 5 <= len(sessions(expected))
    assert of_kind(expected, Kind.MESSAGE)
    for number in range(len(cycles)):
        assert expected == killed_at(cycles, {number})


def test_a_gap_of_unknown_length_at_the_end_is_known_again() -> None:
    """A decoder that is built anew knows of all gaps before, and says no second time what it passed over at one of them."""
    daemon, ask = Daemon(), b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    cycles = [daemon.started(), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9)])]
    cycles.append(daemon.cycle(3 * MS, data=[moved(2 * MS, 9, REQUEST, 0, ask)]))
    for number in range(3):
        at = (5 + 5 * number) * MS
        cycles.append(daemon.started(at, epoch=UUID(int=number)))
        cycles.append(daemon.cycle(at + 2, data=[moved(at + 1, 9, REQUEST, 90 + number, b"?")]))
    expected = assemble(cycles)
    assert 3 <= [record.body.get("reason") for record in expected if record.kind is Kind.GAP].count("capture restarted")
    for number in range(len(cycles)):
        assert expected == killed_at(cycles, {number}), f"killed after cycle {number}"


def http2_story() -> list[list[Block]]:
    """Give a connection with two streams at a time, the same fields again and again, and frames that are passed over."""
    daemon = Daemon()
    encoder = Encoder()
    parts = [h2.OPENING]
    for number in (1, 3, 5):
        parts.append(h2.headers(number, h2.block(encoder, [*h2.POST, ("authorization", "Bearer abc")])))
        parts.append(h2.data(number, b"part of a body") + h2.frame(0x40, bytes(20_000)))
    said = b"".join([*parts, *(h2.data(number, b"end", end=True, padding=7) for number in (5, 1, 3))])
    cycles = [daemon.started(), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9, peer=("192.0.2.7", 8443))])]
    for number, at in enumerate(range(0, len(said), 1_777)):
        time_ns = (2 + number) * MS
        cycles.append(daemon.cycle(time_ns + 2, data=[moved(time_ns, 9, REQUEST, at, said[at : at + 1_777])]))
    return cycles


def test_a_death_costs_nothing_of_compressed_headers() -> None:
    """Killed after whichever cycle, a session of HTTP/2 is the same record for record: the header table is remembered."""
    cycles = http2_story()
    expected = assemble(cycles)
    assert ["Bearer abc"] * 3 == [
        dict(record.body["fields"]["headers"])["authorization"]  # type: ignore[call-overload, index, arg-type]
        for record in of_kind(expected, Kind.MESSAGE)
        if record.body["type"] == "request"
    ]
    for number in range(len(cycles)):
        assert expected == killed_at(cycles, {number})


def test_what_is_masked_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its remembered state a decoder of compressed headers resynchronises: the recording's are masked."""
    monkeypatch.setattr(Decoding, "save", lambda _: None)
    records = killed_at(http2_story(), {5})
    assert 1 == [record.body.get("name") for record in records].count("resumed")


def test_what_is_passed_over_is_told_before_what_comes_behind_it() -> None:
    """However often bytes are passed over for one reason, all of them are told by the time of the next message."""
    covered = 0
    for record in assemble(http2_story()):
        if record.kind is Kind.MESSAGE or record.body.get("name") == "skipped":
            start, end = record.body["start"], record.body["end"]
            assert isinstance(start, int)
            assert isinstance(end, int)
            assert covered == start
            covered = end


@settings(max_examples=20)
@given(st.sets(st.integers(0, 40)))
def test_many_deaths_change_no_record(deaths: set[int]) -> None:
    """Killed again and again, the recording is the same record for record."""
    cycles = story()
    assert assemble(cycles) == killed_at(cycles, deaths)


@pytest.mark.parametrize("death", range(2, 7))
def test_a_gap_before_the_decoder_began_is_none_of_its_own(death: int) -> None:
    """A gap of unknown length where TLS began then is not told to the decoder that is built anew, which never met it."""
    daemon = Daemon()
    head = b"POST /a HTTP/1.1\r\nHost: api.example.org\r\n\r\n"

    def said(at: int, position: int, payload: bytes) -> list[Block]:
        event = moved(at * MS, 77, REQUEST, position, payload, tls=True, socket=9, tie=Tie.NESTED, library=Library.OPENSSL)
        return daemon.cycle(at * MS, data=[event])

    cycles = [daemon.started(), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9)])]
    cycles += [daemon.started(2 * MS, epoch=UUID(int=1)), said(3, 0, head[:10]), said(4, 10, head[10:20])]
    cycles += [daemon.started(5 * MS, epoch=UUID(int=2)), said(6, 20, head[20:])]
    undisturbed = assemble(cycles)
    assert "POST /a HTTP/1.1" in [record.body["summary"] for record in of_kind(undisturbed, Kind.MESSAGE)]
    assert undisturbed == killed_at(cycles, {death})


def test_a_decoder_too_long_in_its_stream_resynchronises_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bytes that are read again, a marker tells that decoding resumed, and later messages are decoded."""
    monkeypatch.setattr(sessions_module, "REFEED_BYTES_MAX", 10)
    daemon = Daemon()
    ask, answer = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    cycles = [daemon.started(), daemon.run_started(), daemon.cycle(MS, control=[opened(1_000, 9)])]
    for number in range(3):
        at = (2 + number) * MS
        data = [moved(at, 9, REQUEST, len(ask) * number, ask), moved(at + 1, 9, RESPONSE, len(answer) * number, answer)]
        cycles.append(daemon.cycle(at + 2, data=data))
    records = killed_at(cycles, {3})
    assert 1 == [record.body.get("name") for record in records].count("resumed")
    heads = [r.body for r in of_kind(records, Kind.MESSAGE) if r.body["type"] == "request"]
    assert [0, len(ask), 2 * len(ask)] == [body["start"] for body in heads]
    ordinals = [record.body["ordinal"] for record in of_kind(records, Kind.MESSAGE)]
    assert list(range(len(ordinals))) == ordinals
    exchanges = [body["exchange"] for body in heads]
    assert sorted(set(exchanges)) == exchanges  # type: ignore[type-var]


@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_damaged_snapshot_is_refused(garbage: bytes, cut: int) -> None:
    """What is no whole snapshot of this version raises the one error that means: begin without."""
    whole = pack(assembler().snapshot())
    for data in (garbage, whole[: min(cut, len(whole) - 1)]):
        with pytest.raises(UnreadableSnapshotError):
            unpack(data)
