"""Records between the assembler and the disk: what is hidden, what waits, what is said of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import cast

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.daemon.masking.levels import Level, Levels, Scope
from capd.daemon.masking.session import MaskedSession
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules
from capd.probes.layouts import Absence
from capd.recording.projection import Projection
from capd.recording.record import Kind, Record, Value, pack
from tests.assembly.world import MS, REQUEST, RESPONSE, Daemon, assemble, closed, executed, gaps, moved, of_kind, opened, stream
from tests.decoders import http2_bytes as h2
from tests.decoders import redis_bytes as rd
from tests.enforcer.test_masking_postgresql import DONE, READY, described, message, query, row, startup

RULES = Rules(Choice(columns=["ssn"], json_paths=["$.user.ssn"], redis_keys=["session:*"]))
TOKEN = b"sk-ant-api03-" + b"Ab9_" * 8
SECRETS = (TOKEN, b"hunter2-0", b"a.b.c-d", b"123-45-6789", b"sid-4711", b"pw-of-role", b"pw-of-other", b"scram-proof")
HTTP = (
    b"POST /v1?access_token=hunter2-0 HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer a.b.c-d\r\n"
    b"Cookie: s=sid-4711\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
BODY = b'{"user": {"ssn": "123-45-6789", "name": "Ada"}, "password": "hunter2-0", "note": "' + TOKEN + b'"}'
ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[at : at + 11] for at in range(0, len(BODY), 11))
)
SCRAM = message(b"p", b"SCRAM-SHA-256\0\0\0\0\x10n,,p=scram-proof-")
ROWS = described("id", "ssn") + row(b"1", b"123-45-6789") + row(b"2", b"123-45-6789") + DONE
EXECUTED = message(b"B", b"\0s\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
Talk = list[tuple[int, bytes]]


def http_talk() -> Talk:
    """Give two exchanges."""
    request = HTTP % (len(BODY), BODY)
    return [(REQUEST, request), (RESPONSE, ANSWER + b"0\r\n\r\n")] * 2


def postgresql_talk() -> Talk:
    """Give a start with a password, a result, an error."""
    error = message(b"E", b"SERROR\0C23505\0Mno\0DKey (ssn)=(123-45-6789) already exists.\0\0")
    return [
        (REQUEST, startup(user="agent", database="shop")),
        (RESPONSE, message(b"R", b"\0\0\0\nSCRAM-SHA-256\0\0")),
        (REQUEST, SCRAM),
        (RESPONSE, message(b"R", bytes(4)) + READY),
        (REQUEST, query("ALTER ROLE x PASSWORD 'pw-of-role'; SELECT id, ssn FROM t")),
        (RESPONSE, ROWS),
        (REQUEST, message(b"P", b"s\0ALTER ROLE x PASSWORD /* ' */ E'\\'pw-of-other'\0\0\0") + EXECUTED),
        (RESPONSE, message(b"1", b"") + message(b"2", b"") + message(b"C", b"ALTER ROLE\0") + READY),
        (REQUEST, query("INSERT")),
        (RESPONSE, error + READY),
    ]


def http2_talk() -> Talk:
    """Give two streams at a time, in small frames, each with a body and an answer; what they hold is in Huffman codes."""
    client, server = Encoder(), Encoder()
    head = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v1?access_token=hunter2-0"),
        (":authority", "api.example.org"),
        ("content-type", "application/json"),
    ]
    secret = [("authorization", "Bearer a.b.c-d"), ("cookie", "s=sid-4711")]
    asked = b"".join(h2.headers(number, h2.block(client, [*head, *secret]), cut=20) for number in (1, 3))
    answers = [h2.headers(number, h2.block(server, [(":status", "200"), ("set-cookie", "s=sid-4711")])) for number in (3, 1)]
    parts = [BODY[at : at + 11] for at in range(0, len(BODY), 11)]
    mixed = b"".join(h2.data(1, part, padding=3) + h2.data(3, part) for part in parts)
    ends = h2.headers(1, h2.block(server, [("x-api-key", "hunter2-0")]), end=True) + h2.data(3, b"", end=True)
    quiet = h2.headers(5, h2.block(client, [*head[:2], (":path", "/plain"), head[3]]), end=True)
    return [
        (REQUEST, h2.OPENING),
        (RESPONSE, h2.SETTINGS),
        (REQUEST, asked + mixed + h2.data(1, b"", end=True) + h2.data(3, b"", end=True)),
        (RESPONSE, b"".join(answers) + mixed + ends),
        (REQUEST, quiet),
        (RESPONSE, h2.headers(5, h2.block(server, [(":status", "200")])) + h2.data(5, b"key " + TOKEN[:20])),
        (RESPONSE, h2.data(5, TOKEN[20:]) + h2.goaway(5, 0, b"password=hunter2-0")),
    ]


def redis_talk() -> Talk:
    """Give passwords, values of keys and fields by their names, some of them no text, a setting, a message of a channel."""
    signed_in = rd.command("AUTH", "agent", "hunter2-0") + rd.command("HELLO", "3", "AUTH", "agent", "hunter2-0")
    kept = rd.command("SET", "session:7", b"\x80sid-4711") + rd.command(
        "HSET", "user:7", "password", "hunter2-0", "name", "Ada"
    )
    fields = (b"password", b"hunter2-0", b"name", b"Ada", b"signature", b"\x80hunter2-0", b"photo", b"\xff " + TOKEN)
    given = rd.array(*map(rd.string, fields), code=b"%")
    read = rd.command("GET", "session:7") + rd.command("HGETALL", "user:7") + rd.command("HGET", "user:7", "password")
    setting = rd.array(rd.string(b"requirepass"), rd.string(b"pw-of-role"))
    queued = rd.command("MULTI") + rd.command("GET", "session:7") + rd.command("EXEC") + rd.command("GET", "plain")
    return [
        (REQUEST, signed_in),
        (RESPONSE, rd.OK + rd.HELLO_3),
        (REQUEST, kept + rd.command("CONFIG", "SET", "requirepass", "pw-of-role") + rd.command("CONFIG", "GET", "require*")),
        (RESPONSE, rd.OK + b":2\r\n" + rd.OK + setting),
        (REQUEST, read),
        (RESPONSE, rd.string(b"\x80sid-4711") + given + rd.string(b"hunter2-0")),
        (REQUEST, queued + rd.command("SUBSCRIBE", "session:new") + rd.command("SET", "note", TOKEN)),
        (RESPONSE, rd.OK + rd.QUEUED + rd.array(rd.string(b"sid-4711")) + rd.string(b"nothing to hide")),
        (
            RESPONSE,
            rd.confirmed(b"subscribe", b"session:new", 1, b">") + rd.OK + rd.published(b"session:new", b"sid-4711", b">"),
        ),
        (REQUEST, b"AUTH hunter2-0\r\n"),
        (RESPONSE, b"-WRONGPASS invalid\r\n"),
    ]


def unknown_talk() -> Talk:
    """Give a protocol that nobody knows, with a secret in it."""
    return [(REQUEST, b"\x01LOGIN password=hunter2-0;\n"), (RESPONSE, b"\x02+OK " + TOKEN + b" \x03\n")] * 2


def cycles(
    talk: Talk, port: int, size: int, per_cycle: int, *, lost: Iterable[int] = (), mid_stream: int = 0
) -> list[list[Record]]:
    """Give the records of a session that says this in pieces of a size, some of which are lost; a list for each cycle."""
    daemon = Daemon()
    events: list[bytes] = []
    positions = [0, 0]
    time_ns = 20 * MS
    number = 0
    for direction, data in talk:
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            time_ns += 1_000
            number += 1
            if number in lost:
                event = moved(time_ns, 9, direction, positions[direction], b"", length=len(piece), absence=Absence.FAULT)
            else:
                event = moved(time_ns, 9, direction, positions[direction], piece)
            events.append(event)
            positions[direction] += len(piece)
    begin = [daemon.started(), daemon.run_started()]
    argv = executed(5 * MS, b"/usr/bin/agent", b"agent", b"--password", b"hunter2-0", b"--url=https://u:hunter2-0@h/")
    turns = [daemon.cycle(10 * MS, control=[argv, opened(6 * MS, 9, peer=("192.0.2.7", port), mid_stream=mid_stream)])]
    turns += [
        daemon.cycle(time_ns + at * 20 * MS, data=events[at * per_cycle : (at + 1) * per_cycle])
        for at in range((len(events) + per_cycle - 1) // per_cycle)
    ]
    end_ns = time_ns + len(turns) * 20 * MS
    ends = (positions[0], positions[1])
    turns.append(daemon.cycle(end_ns, control=[closed(end_ns, 9, *ends, ends)]))
    from tests.assembly.world import assembler  # noqa: PLC0415 - one assembler for all cycles

    core = assembler()
    return [assemble([blocks], into=core) for blocks in (*begin, *turns)] + [core.settle().records]


def passed(stage: Stage, batches: Iterable[Sequence[Record]]) -> list[Record]:
    """Give what leaves a stage."""
    return [record for batch in batches for record in stage.take(batch)]


def stored(records: Iterable[Record]) -> bytes:
    """Give everything that a segment and an index would hold, and what its payload gives when it is put together."""
    records = list(records)
    projection = Projection()
    projection.receive(records)
    held = b"".join(pack(record) for record in records) + repr(projection.changes()).encode()
    return b" ".join([held, stream(records, REQUEST), stream(records, RESPONSE)])


def shape(records: Iterable[Record], direction: int) -> list[tuple[Value, int]]:
    """Give positions and lengths of a direction's data."""
    return [
        (record.body["position"], len(cast("bytes", record.body["payload"])))
        for record in of_kind(records, Kind.DATA)
        if record.direction == direction
    ]


TALKS = ((http_talk, 80), (http2_talk, 8443), (postgresql_talk, 5432), (redis_talk, 6379), (unknown_talk, 9_999))


@pytest.mark.parametrize(("talk", "port"), TALKS)
@pytest.mark.parametrize(("size", "per_cycle"), [(100_000, 100), (100_000, 1), (7, 3), (1, 1), (40, 1)])
def test_nothing_covered_is_stored(talk: type[Talk], port: int, size: int, per_cycle: int) -> None:
    """What the rules cover is in no record and no row; without rules it is; positions and all else stay."""
    batches = cycles(talk(), port, size, per_cycle)
    plain = [record for batch in batches for record in batch]
    shown = passed(Stage(RULES, Levels()), batches)
    said = stored(plain)
    covered = [secret for secret in SECRETS if secret in said or secret in b"".join(stream(plain, at) for at in (0, 1))]
    assert covered
    assert [] == [secret for secret in covered if secret in stored(shown) or secret.hex().encode() in stored(shown)]
    for direction in (REQUEST, RESPONSE):
        before, after = stream(plain, direction), stream(shown, direction)
        assert len(before) == len(after)
        assert all(now in (was, ord("*")) for was, now in zip(before, after, strict=True))
        assert shape(plain, direction) == shape(shown, direction)
    assert [r.body.get("ordinal") for r in of_kind(plain, Kind.MESSAGE)] == [
        r.body.get("ordinal") for r in of_kind(shown, Kind.MESSAGE)
    ]


def test_of_redis_only_values_by_name_are_hidden() -> None:
    """Other values, and what tells which command it was, are stored as they were."""
    kept = stored(passed(Stage(RULES, Levels()), cycles(redis_talk(), 6379, 100_000, 100)))
    words = (b"nothing to hide", b"Ada", b"CONFIG SET requirepass", b"GET session:7", b"HGET user:7 password", b"+QUEUED\r\n")
    assert [] == [word for word in words if word not in kept]


@pytest.mark.parametrize(("talk", "port"), TALKS)
@pytest.mark.parametrize("size", [100_000, 64, 7])
def test_a_batch_may_end_behind_any_call(talk: type[Talk], port: int, size: int) -> None:
    """What was looked at before its message came stays hidden; what a call completes comes with it."""
    plain = [record for batch in cycles(talk(), port, size, 5) for record in batch]
    batches: list[list[Record]] = [[]]
    for record in plain:
        if record.kind is Kind.DATA:
            batches.append([])
        batches[-1].append(record)
    shown = passed(Stage(RULES, Levels()), batches)
    assert [] == [secret for secret in SECRETS if secret in stored(shown)]
    assert len(stream(plain, REQUEST)) == len(stream(shown, REQUEST))


@pytest.mark.parametrize(("talk", "port"), TALKS)
def test_places_are_told(talk: type[Talk], port: int) -> None:
    """Every filled byte is told by a MASKED record that names kind and rule, and the end of the session counts them."""
    batches = cycles(talk(), port, 100_000, 100)
    plain = [record for batch in batches for record in batch]
    shown = passed(Stage(RULES, Levels()), batches)
    for direction in (REQUEST, RESPONSE):
        before, after = stream(plain, direction), stream(shown, direction)
        told = set()
        for record in of_kind(shown, Kind.MASKED):
            if record.direction == direction:
                assert {"layer", "kind", "rule", "places"} == set(record.body)
                for start, length in record.body["places"]:  # type: ignore[union-attr, misc]
                    told |= set(range(start, start + length))  # type: ignore[arg-type, operator]
        assert told == {at for at in range(len(before)) if before[at] != after[at]} | {
            at for at in told if before[at] == ord("*")
        }
    (end,) = of_kind(shown, Kind.CLOSE)
    completeness = end.body["completeness"]
    assert isinstance(completeness, dict)
    assert completeness["policy"][0].startswith("masked: ")
    assert "complete" == completeness["verdict"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TALKS), st.integers(1, 90), st.integers(1, 8))
def test_no_cutting_changes_what_is_stored(talk: tuple[type[Talk], int], size: int, per_cycle: int) -> None:
    """However calls and cycles cut a conversation, the same bytes are hidden."""
    whole = passed(Stage(RULES, Levels()), cycles(talk[0](), talk[1], 100_000, 100))
    cut = passed(Stage(RULES, Levels()), cycles(talk[0](), talk[1], size, per_cycle))
    if talk[0] is not unknown_talk and size < 45:
        return  # what is not known to be HTTP or PostgreSQL yet is looked at more strictly
    assert [stream(whole, at) for at in (0, 1)] == [stream(cut, at) for at in (0, 1)]


@pytest.mark.parametrize(("talk", "port"), TALKS)
def test_a_killed_recorder_goes_on_as_if_nothing_had_happened(talk: type[Talk], port: int) -> None:
    """A stage that was saved and restored between any two cycles gives what one gives that never ended."""
    batches = cycles(talk(), port, 23, 2)
    whole = [pack(record) for record in passed(Stage(RULES, Levels()), batches)]
    for at in range(0, len(batches), 3):
        first, second = Stage(RULES, Levels()), Stage(RULES, Levels())
        before = passed(first, batches[:at])
        second.restore(first.save())
        assert whole == [pack(record) for record in (*before, *passed(second, batches[at:]))]


@pytest.mark.parametrize(("talk", "port"), TALKS)
@pytest.mark.parametrize("size", [23, 64])
def test_a_recorder_that_ends_in_order_uncovers_nothing(talk: type[Talk], port: int, size: int) -> None:
    """Wherever it lets go of what waits, and another one goes on: what began before is hidden to its end."""
    batches = cycles(talk(), port, size, 1)
    for at in range(1, len(batches)):
        first, second = Stage(RULES, Levels()), Stage(RULES, Levels())
        before = [*passed(first, batches[:at]), *first.cut()]
        second.restore(first.save())
        records = [*before, *passed(second, batches[at:])]
        shown = stream(records, REQUEST) + stream(records, RESPONSE)
        assert [] == [secret for secret in SECRETS if secret[3:] in shown], at


NAMED = b"Adalbertina-of-the-north"
NAMED_BODY = b'{"user": {"ssn": "1", "name": "' + NAMED + b'"}, "note": "' + b"x" * 30 + b'"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
MEASURED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(NAMED_BODY), NAMED_BODY)


def chunked(extension: bytes, size: int) -> bytes:
    """Give that body as an answer in chunks."""
    parts = (NAMED_BODY[at : at + size] for at in range(0, len(NAMED_BODY), size))
    return CHUNKED % b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)


@pytest.mark.parametrize("answer", [chunked(b"", 11), chunked(b";e=1", 5), chunked(b";" + b"x" * 30, 5), MEASURED])
@pytest.mark.parametrize(("size", "per_cycle"), [(2, 2), (13, 1), (64, 1)])
def test_a_value_named_by_a_path_stays_hidden_over_an_end_in_order(answer: bytes, size: int, per_cycle: int) -> None:
    """Also where the recorder ends between the bytes of a chunk's framing, and what it hid is put together again."""
    batches = cycles([(REQUEST, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (RESPONSE, answer)], 80, size, per_cycle)
    rules = Rules(Choice(json_paths=["$.user.name"]))
    for at in range(1, len(batches)):
        first, second = Stage(rules, Levels()), Stage(rules, Levels())
        before = [*passed(first, batches[:at]), *first.cut()]
        second.restore(first.save())
        shown = stream([*before, *passed(second, batches[at:])], RESPONSE)
        content = re.sub(rb"\r\n[0-9a-f]+(;[ex=1]*)?\r\n", b"", shown)
        assert [] == [NAMED[start : start + 4] for start in range(len(NAMED) - 3) if NAMED[start : start + 4] in content], at


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TALKS), st.randoms(use_true_random=False))
def test_lost_bytes_uncover_nothing(talk: tuple[type[Talk], int], rnd: random.Random) -> None:
    """When bytes are lost, no recognisable part of a secret is stored before or behind the gap."""
    lost = {rnd.randrange(1, 40) for _ in range(rnd.randrange(1, 4))}
    size = rnd.choice([16, 29, 64])
    batches = cycles(talk[0](), talk[1], size, 4, lost=lost)
    shown = passed(Stage(RULES, Levels()), batches)
    assert [record.body["position"] for record in of_kind(shown, Kind.GAP)] or not gaps(shown)
    kept = stored(shown)
    assert [] == [secret for secret in SECRETS if secret in kept]


def test_what_waits_at_the_end_is_given_masked() -> None:
    """A recorder that is told to end lets go of everything, masked where it may be the beginning of something."""
    batches = cycles(
        [(REQUEST, HTTP[:60] + b"xx\r\nAuthorization: Bearer a.b.c-d"), (RESPONSE, b"HTTP/1.1 2")], 80, 100_000, 100
    )[:-2]
    stage = Stage(RULES, Levels())
    shown = passed(stage, batches)
    assert b"" == stream(shown, REQUEST)
    shown += stage.cut()
    assert 60 < len(stream(shown, REQUEST))
    assert b"a.b.c-d" not in stored(shown)
    assert [] == stage.cut()


def test_plain_lines_are_stored_at_once() -> None:
    """What cannot become anything waits for nothing, so that a session can be followed, or a stream of events."""
    events = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] + [b"a\r\ndata: {}\r\n\r\n\r\n"] * 3
    for talk, port in (
        ([(REQUEST, b"hello\n")] * 3, 9_999),
        ([(REQUEST, b"GET / HTTP/1.1\r\n\r\n"), *((RESPONSE, e) for e in events)], 80),
    ):
        batches = cycles(talk, port, 100_000, 1)
        stage = Stage(RULES, Levels())
        for batch in batches[:-2]:
            assert len(of_kind(batch, Kind.DATA)) == len(of_kind(stage.take(batch), Kind.DATA))


def levels(*scopes: Scope, default: Level = Level.MASKED) -> Levels:
    """Give levels."""
    return Levels(default=default, scopes=scopes)


def test_full_is_everything() -> None:
    """At the level `full` every record passes as it is."""
    batches = cycles(http_talk(), 80, 100_000, 100)
    shown = passed(Stage(RULES, levels(default=Level.FULL)), batches)
    assert [record for batch in batches for record in batch] == shown


@pytest.mark.parametrize(
    "scope",
    [
        Scope(level=Level.METADATA, protocol="http1"),
        Scope(level=Level.METADATA, host="api.example.*"),
        Scope(level=Level.METADATA, port=80),
        Scope(level=Level.METADATA, host="192.0.2.*", protocol="http1"),
    ],
)
def test_metadata_is_sizes_and_types(scope: Scope) -> None:
    """At the level `metadata` nothing that was said is stored, but how much and of what sort."""
    batches = cycles(http_talk(), 80, 100_000, 100)
    shown = passed(Stage(RULES, levels(scope)), batches)
    kept = stored(shown)
    assert [] == [secret for secret in (*SECRETS, b"Ada", b"/v1", b"application/json") if secret in kept]
    assert "POST" == of_kind(shown, Kind.MESSAGE)[0].body["summary"]
    assert sum(len(data) for direction, data in http_talk() if direction == REQUEST) == sum(
        record.body["length"]  # type: ignore[misc]
        for record in of_kind(shown, Kind.DATA)
        if record.direction == REQUEST
    )
    (end,) = of_kind(shown, Kind.CLOSE)
    assert ["payload not recorded: recording level metadata"] == end.body["completeness"]["policy"]  # type: ignore[index, call-overload]


def test_off_is_a_row_that_says_so() -> None:
    """At the level `off` there are the session's facts, the level, and its end."""
    shown = passed(Stage(RULES, levels(Scope(level=Level.OFF, port=80))), cycles(http_talk(), 80, 100_000, 100))
    session = of_kind(shown, Kind.CLOSE)[0].session
    kinds = [record.kind for record in shown if record.session == session]
    assert {Kind.OPEN, Kind.MARKER, Kind.CLOSE} == set(kinds)
    assert [{"name": "recording", "level": "off"}] == [
        record.body for record in shown if record.session == session and record.kind is Kind.MARKER
    ]
    projection = Projection()
    projection.receive(shown)
    (found,) = projection.changes().sessions
    assert (["not recorded: recording level off"], "complete") == (found.policy, found.verdict)


def test_a_level_that_hangs_on_the_protocol_waits_for_it() -> None:
    """While a scope may still match when the protocol is known, nothing is stored."""
    rules = levels(Scope(level=Level.OFF, protocol="postgresql"))
    batches = cycles(postgresql_talk(), 5432, 3, 1)
    shown = passed(Stage(RULES, rules), batches)
    assert [] == of_kind(shown, Kind.DATA)
    shown = passed(Stage(RULES, rules), cycles(http_talk(), 80, 5, 1))
    assert stream(shown, REQUEST).startswith(b"POST /v1?access_token=*********")


def test_scopes() -> None:
    """The first scope of which all conditions hold decides."""
    facts = {
        "principal": {"name": "Alice"},
        "run_name": "nightly-3",
        "labels": {"team": "a"},
        "target": {"host": "10.0.0.1", "port": 1},
    }
    cases = (
        (Scope(level=Level.FULL, principal="alice"), Level.FULL),
        (Scope(level=Level.OFF, principal="bob"), Level.MASKED),
        (Scope(level=Level.OFF, run="nightly-*", labels={"team": "?"}), Level.OFF),
        (Scope(level=Level.OFF, labels={"other": "*"}), Level.MASKED),
        (Scope(level=Level.METADATA, host="10.*", port=1), Level.METADATA),
        (Scope(level=Level.METADATA, port=2), Level.MASKED),
    )
    for scope, expected in cases:
        assert (expected, True) == levels(scope, Scope(level=Level.OFF, run="other")).of(facts, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["_data", "_message", "settle", "_masked_message"])
def test_a_defect_stores_nothing_that_was_said(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """When masking itself fails in a session, sizes and types are recorded and nothing else, and the session says why."""

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MaskedSession, broken, fail)
    stage = Stage(RULES, Levels())
    shown = passed(stage, cycles(http_talk(), 80, 100_000, 100))
    kept = stored(shown)
    assert [] == [secret for secret in SECRETS if secret in kept]
    (told,) = [record.body["error"] for record in of_kind(shown, Kind.MARKER) if record.body["name"] == "masking"]
    assert str(told).startswith("ZeroDivisionError in tests.masking.test_stage, line ")
    assert (1, f"session {shown[-1].session}: {told}") == (stage.failures.count, stage.failures.latest)
    (end,) = of_kind(shown, Kind.CLOSE)
    completeness = cast("dict[str, list[str]]", end.body["completeness"])
    assert "payload not recorded: masking failed, a defect of capd" in completeness["reasons"]
    assert "partial" == end.body["completeness"]["verdict"]  # type: ignore[index, call-overload]
