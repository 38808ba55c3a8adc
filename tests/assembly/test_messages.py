"""Messages: decoded from both sides, put together for a reader, never lost to a broken protocol."""

from __future__ import annotations

import pytest

from capd.daemon.assembly import messages as messages_module
from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import Direction, Gap
from capd.probes.layouts import Role
from capd.recording.record import Kind, Record
from tests.assembly.world import MS, REQUEST, RESPONSE, Daemon, assemble, closed, moved, of_kind, opened, stream

REQUESTED = b"POST /v1 HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 4\r\n\r\nping"
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"


def conversation(
    *pieces: tuple[int, bytes], role: Role = Role.CLIENT, port: int = 80, end: bool = True, per_cycle: int = 100
) -> list[Record]:
    """Give the records of one session that carried these pieces."""
    daemon = Daemon()
    positions, events = [0, 0], []
    for number, (direction, payload) in enumerate(pieces):
        events.append(moved(10_000 + number, 9, direction, positions[direction], payload))
        positions[direction] += len(payload)
    story = [daemon.started(), daemon.run_started()]
    ours = (
        {"peer": ("192.0.2.7", 5_000), "local": ("192.0.2.1", port)} if role is Role.SERVER else {"peer": ("192.0.2.7", port)}
    )
    story.append(daemon.cycle(5_000, control=[opened(4_000, 9, role=role, **ours)]))  # type: ignore[arg-type]
    story += [daemon.cycle(MS + at, data=events[at : at + per_cycle]) for at in range(0, len(events), per_cycle)]
    if end:
        story.append(daemon.cycle(2 * MS, control=[closed(90_000, 9, positions[0], positions[1])]))
    return assemble(story)


def told(records: list[Record]) -> list[tuple[object, ...]]:
    """Give direction, type and summary of every message."""
    return [(record.direction, record.body["type"], record.body["summary"]) for record in of_kind(records, Kind.MESSAGE)]


def test_messages_have_spans_ordinals_and_search_text() -> None:
    """Every message says where its bytes are; ordinals count from 0; a body's text can be searched."""
    records = of_kind(conversation((REQUEST, REQUESTED), (RESPONSE, ANSWERED)), Kind.MESSAGE)
    bodies = [record.body for record in records]
    assert list(range(len(bodies))) == [body["ordinal"] for body in bodies]
    assert {"http1"} == {body["protocol"] for body in bodies}
    assert ["ping", "hello world"] == [body["text"] for body in bodies if body["type"] == "body"]
    spans = [(body["start"], body["end"]) for body in bodies if body["type"] == "body"]
    assert [(len(REQUESTED) - 4, len(REQUESTED)), (len(ANSWERED) - 11, len(ANSWERED))] == spans


def test_the_agent_may_be_the_server() -> None:
    """Where the peer opened the connection its requests are in the response stream, and are decoded as requests."""
    records = conversation((RESPONSE, REQUESTED), (REQUEST, ANSWERED), role=Role.SERVER)
    assert (RESPONSE, "request", "POST /v1 HTTP/1.1") == told(records)[0]
    assert (REQUEST, "response", "200 OK") in told(records)


def test_who_opened_may_be_told_by_the_bytes_alone() -> None:
    """With SOCKET_OPEN lost, the bytes still say which side asks."""
    records = conversation((RESPONSE, REQUESTED), (REQUEST, ANSWERED), role=Role.UNKNOWN)
    assert (RESPONSE, "request", "POST /v1 HTTP/1.1") == told(records)[0]


def test_body_pieces_that_come_together_are_one_message() -> None:
    """A body in many reads of one drain is one record; one in two drains is two, with no byte between them."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"
    pieces = [(REQUEST, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), (RESPONSE, head)]
    pieces += [(RESPONSE, b"abc"), (RESPONSE, b"def"), (RESPONSE, b"ghi"), (RESPONSE, b"jkl")]
    once = [record.body for record in of_kind(conversation(*pieces), Kind.MESSAGE) if record.body["type"] == "body"]
    assert ["abcdefghijkl"] == [body["text"] for body in once]
    split = [
        record.body for record in of_kind(conversation(*pieces, per_cycle=4), Kind.MESSAGE) if record.body["type"] == "body"
    ]
    assert ["abcdef", "ghijkl"] == [body["text"] for body in split]
    assert split[0]["end"] == split[1]["start"]


def test_the_text_of_one_message_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a body is, and in however many drains it comes, only so much of it is indexed."""
    monkeypatch.setattr(messages_module, "TEXT_BYTES_MAX", 8)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"
    pieces = [(REQUEST, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), (RESPONSE, head)]
    pieces += [(RESPONSE, b"abcdef"), (RESPONSE, b"ghijkl")]
    records = of_kind(conversation(*pieces, per_cycle=3), Kind.MESSAGE)
    assert ["abcdef", "gh"] == [record.body["text"] for record in records if record.body["type"] == "body"]


def postgresql(kind: bytes, body: bytes) -> bytes:
    """Give a PostgreSQL message."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def test_rows_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one statement are one record with columns, at most so many to a record; numbering goes on."""
    monkeypatch.setattr(messages_module, "ROWS_PER_RECORD_MAX", 3)
    startup = b"\0\3\0\0user\0ann\0database\0shop\0\0"
    column = b"id\0" + bytes(6) + (23).to_bytes(4, "big") + (4).to_bytes(2, "big") + b"\xff\xff\xff\xff" + bytes(2)
    rows = b"".join(postgresql(b"D", b"\0\1\0\0\0\1%d" % number) for number in range(5))
    answer = postgresql(b"T", b"\0\1" + column) + rows + postgresql(b"C", b"SELECT 5\0") + postgresql(b"Z", b"I")
    records = conversation(
        (REQUEST, (len(startup) + 4).to_bytes(4, "big") + startup),
        (RESPONSE, postgresql(b"R", bytes(4)) + postgresql(b"Z", b"I")),
        (REQUEST, postgresql(b"Q", b"SELECT id FROM t\0")),
        (RESPONSE, answer),
        port=5432,
    )
    tables = [record.body["fields"] for record in of_kind(records, Kind.MESSAGE) if record.body["type"] == "rows"]
    assert [([["0"], ["1"], ["2"]], 0), ([["3"], ["4"]], 3)] == [(table["rows"], table["first_row"]) for table in tables]  # type: ignore[call-overload, index]
    assert {"id"} == {table["columns"][0]["name"] for table in tables}  # type: ignore[call-overload, index]
    target = of_kind(records, Kind.OPEN)[-1].body["target"]
    assert isinstance(target, dict)
    assert "shop" == target["name"]


def test_rows_never_have_the_columns_of_another_statement() -> None:
    """Where a statement's RowDescription was lost its rows have no columns: those of the one before would name them wrongly."""
    startup = b"\0\3\0\0user\0ann\0\0"
    column = b"id\0" + bytes(6) + (23).to_bytes(4, "big") + (4).to_bytes(2, "big") + b"\xff\xff\xff\xff" + bytes(2)
    row = postgresql(b"D", b"\0\1\0\0\0\0017") + postgresql(b"C", b"SELECT 1\0") + postgresql(b"Z", b"I")
    described = postgresql(b"T", b"\0\1" + column)
    daemon = Daemon()
    asked = [(len(startup) + 4).to_bytes(4, "big") + startup, *[postgresql(b"Q", b"SELECT id FROM t\0")] * 2]
    answers = [postgresql(b"R", bytes(4)) + postgresql(b"Z", b"I"), described + row, described + row]
    events: list[bytes] = []
    positions = [0, 0]
    for number, pair in enumerate(zip(asked, answers, strict=True)):
        for direction, payload in zip((REQUEST, RESPONSE), pair, strict=True):
            lost = len(described) if (number, direction) == (2, RESPONSE) else 0
            events.append(moved(10_000 + len(events), 9, direction, positions[direction] + lost, payload[lost:]))
            positions[direction] += len(payload)
    story = [daemon.started(), daemon.run_started(), daemon.cycle(5_000, control=[opened(4_000, 9, peer=("192.0.2.7", 5432))])]
    story.append(daemon.cycle(MS, data=events))
    messages = [record.body for record in of_kind(assemble(story), Kind.MESSAGE) if record.body["type"] == "rows"]
    columns = [body["fields"]["columns"] for body in messages]  # type: ignore[call-overload, index]
    assert columns[0]
    assert [()] * len(columns[1:]) == [tuple(found) for found in columns[1:]]  # type: ignore[arg-type]


def test_a_broken_protocol_is_a_marker_and_loses_nothing() -> None:
    """Bytes that break the protocol are recorded whole; a marker says where decoding ended and what was passed over."""
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
    records = conversation(
        (REQUEST, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), (RESPONSE, broken), (RESPONSE, b"rest"), (RESPONSE, b"more")
    )
    assert broken + b"restmore" == stream(records, RESPONSE)
    markers = [record.body for record in of_kind(records, Kind.MARKER) if record.body["name"] in ("decoder", "skipped")]
    assert "decoder" == markers[0]["name"]
    passed = [(body["start"], body["end"]) for body in markers if body["name"] == "skipped"]
    assert len(broken) + 8 == max(end for _, end in passed)  # type: ignore[type-var]


def test_a_defect_of_a_decoder_stops_nothing_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a decoder raises what it must not, the session goes on raw, and a marker tells it."""

    def fail(self: Http1Decoder, direction: Direction, data: bytes | Gap) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Http1Decoder, "receive", fail)
    records = conversation((REQUEST, REQUESTED), (RESPONSE, ANSWERED))
    assert ANSWERED == stream(records, RESPONSE)
    errors = [record.body["error"] for record in of_kind(records, Kind.MARKER) if record.body["name"] == "decoder"]
    assert ["the decoder failed: ZeroDivisionError: a defect"] == errors


def test_an_unknown_protocol_is_labelled_and_kept() -> None:
    """Bytes that no decoder knows are recorded raw, with a protocol of `unknown`."""
    records = conversation((REQUEST, b"\x01\x02\x03binary"), (RESPONSE, b"\x04\x05"))
    assert ["unknown"] == [r.body["protocol"] for r in of_kind(records, Kind.MARKER) if r.body["name"] == "protocol"]
    assert [] == of_kind(records, Kind.MESSAGE)


def test_a_gap_in_a_message_makes_it_incomplete() -> None:
    """The decoder meets a gap where it is: the message that it hits says so, the next one is decoded."""
    daemon = Daemon()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
    story = [daemon.started(), daemon.run_started(), daemon.cycle(5_000, control=[opened(4_000, 9)])]
    ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    at = len(answer)
    events = [moved(10_000, 9, REQUEST, 0, ask * 2), moved(10_100, 9, RESPONSE, 0, answer[: at - 6])]
    events += [moved(10_200, 9, RESPONSE, at - 3, answer[-3:] + answer)]
    story.append(daemon.cycle(MS, data=events))
    records = of_kind(assemble(story), Kind.MESSAGE)
    incomplete = [record.body["type"] for record in records if record.body["incomplete"]]
    assert incomplete
    assert 2 == [record.body["type"] for record in records].count("response")
