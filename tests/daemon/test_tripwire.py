"""Credentials in what agents say: told with run and session, and hidden in all that is stored, at every level."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import cast
from uuid import UUID

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.stage import Stage
from capd.daemon.tripwire import HIDDEN, PIECE_BYTES_MAX, PLACES_MAX, Tripwire
from capd.enforcer.credentials.search import BEGUN_STEPS, Search
from capd.enforcer.credentials.search_client import Answer
from capd.enforcer.masking.rules import Choice, Rules
from capd.recording.record import Direction, Kind, Record, Value
from tests.assembly.world import REQUEST, RESPONSE, of_kind, stream
from tests.decoders import http2_bytes as h2
from tests.masking.test_stage import Talk, cycles, stored

VALUE = "kAp9-s3cr3t-value-of-agents"
NOW = 1_700_000_000_000_000_000


class Here:
    """Looks by itself, as the keeper does."""

    def __init__(self, *values: str) -> None:
        self._search = Search([(f"key{number}", value) for number, value in enumerate(values)])
        self.problem: str | None = None

    def search(self, pieces: Sequence[bytes]) -> Answer | None:
        """Look."""
        found = tuple((number, hit) for number, piece in enumerate(pieces) for hit in self._search.find(piece))
        begun = ((number, self._search.begun(piece)) for number, piece in enumerate(pieces))
        cut = tuple((number, at) for number, at in begun if at < len(pieces[number]))
        return Answer(found=found, begun=cut, kept_bytes=self._search.kept_bytes)


class Nobody:
    """Does not answer."""

    problem: str | None = "nobody is there"

    def search(self, pieces: Sequence[bytes]) -> None:
        """Do nothing."""


def passed(tripwire: Tripwire, batches: Sequence[Sequence[Record]], level: Level = Level.MASKED) -> list[Record]:
    """Give what is stored of records."""
    stage, out = Stage(Rules(Choice()), Levels(default=level)), list[Record]()
    for batch in batches:
        seen = tripwire.look(batch)
        out += tripwire.hidden([*stage.take(batch), *seen])
    return out


def answer(body: bytes, head: bytes = b"") -> bytes:
    """Give an answer of HTTP."""
    return b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, size: int) -> bytes:
    """Give an answer in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%b\r\n" % (len(one), one) for one in parts
    )


ASKED = b"GET /plain HTTP/1.1\r\nHost: api.test\r\n\r\n"
SAID = VALUE.encode()
FORMS = {
    "in an answer": (80, [(REQUEST, ASKED), (RESPONSE, answer(b"your key is " + SAID + b", keep it"))]),
    "in a request's path": (
        80,
        [(REQUEST, b"GET /?q=" + SAID + b" HTTP/1.1\r\nHost: a.test\r\n\r\n"), (RESPONSE, answer(b"ok"))],
    ),
    "in a request's body": (
        80,
        [(REQUEST, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\n" + SAID), (RESPONSE, answer(b""))],
    ),
    "in a header": (80, [(REQUEST, ASKED), (RESPONSE, answer(b"ok", b"X-Debug: " + SAID + b"\r\n"))]),
    "in a header that is masked": (
        80,
        [(REQUEST, b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + SAID + b"\r\n\r\n"), (RESPONSE, answer(b""))],
    ),
    "in base64": (80, [(REQUEST, ASKED), (RESPONSE, answer(base64.b64encode(b"user:" + SAID)))]),
    "in chunks": (80, [(REQUEST, ASKED), (RESPONSE, chunked(b"your key is " + SAID + b"!", 7) + b"0\r\n\r\n")]),
    "in no protocol that is known": (9_999, [(REQUEST, b"\x01hello\n"), (RESPONSE, b"\x02" + SAID + b"\x03\n")]),
}


def http2_talk() -> Talk:
    """Give streams of HTTP/2 with it in a compressed header, and over two frames."""
    client, server = Encoder(), Encoder()
    head = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a.test")]
    asked = h2.headers(1, h2.block(client, [*head, ("x-debug", VALUE)]), end=True)
    told = h2.headers(1, h2.block(server, [(":status", "200")])) + h2.data(1, SAID[:9]) + h2.data(1, SAID[9:], end=True)
    return [(REQUEST, h2.OPENING), (RESPONSE, h2.SETTINGS), (REQUEST, asked), (RESPONSE, told)]


ALL = {**FORMS, "in HTTP/2": (8443, http2_talk())}


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("form", ALL)
def test_it_is_told_and_hidden(form: str, level: Level) -> None:
    """At every level the alarm names credential, run and session; the value is in nothing that is stored."""
    port, talk = ALL[form]
    tripwire = Tripwire(Here("another-credential", VALUE), lambda: NOW)
    batches = cycles(talk, port, 100_000, 100)
    shown = passed(tripwire, batches, level)
    found = [record for record in of_kind(shown, Kind.MARKER) if record.body["name"] == "secret"]
    opened = of_kind(shown, Kind.OPEN)[0]
    assert {"key1"} == {record.body["credential"] for record in found}
    assert {opened.session} == {record.session for record in found}
    status = tripwire.status()
    latest = cast("list[dict[str, object]]", status["latest"])[0]
    assert ("key1", str(opened.session), str(UUID(bytes=cast("bytes", opened.body["run"])))) == (
        latest["credential"],
        latest["session"],
        latest["run"],
    )
    assert NOW == status["seen_ns"]
    kept = stored(shown)
    for hidden in (SAID, base64.b64encode(b"user:" + SAID), SAID.hex().encode()):
        assert hidden not in kept
    assert VALUE not in repr(status)
    if level is Level.FULL:
        for direction in (REQUEST, RESPONSE):
            plain = stream([record for batch in batches for record in batch], direction)
            now = stream(shown, direction)
            assert all(a in (b, ord("*")) for a, b in zip(now, plain, strict=True))


@pytest.mark.parametrize("size", [1, 3, 7, 20])
@pytest.mark.parametrize("form", sorted(set(FORMS) - {"in base64"}))
def test_over_the_bounds_of_what_is_stored(form: str, size: int) -> None:
    """Where it comes in pieces, each stored before the next is there, it is told, and all but its first characters hidden."""
    port, talk = FORMS[form]
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    shown = passed(tripwire, cycles(talk, port, size, 1), Level.FULL)
    assert tripwire.status()["seen"]
    said = b" ".join(stream(shown, at) for at in (0, 1))
    shown_first = max((at for at in range(len(SAID)) if SAID[:at] in said), default=0)
    assert shown_first < BEGUN_STEPS + (7 if form == "in chunks" else 0)
    if form != "in chunks":
        later = (SAID[at : at + BEGUN_STEPS] for at in range(BEGUN_STEPS, len(SAID) - BEGUN_STEPS))
        assert not [part for part in later if part in said]


CODED = {
    "as it is": SAID,
    "percent": "".join(f"%{one:02x}" for one in SAID).encode(),
    "HTML": "".join(f"&#0{one};" for one in SAID).encode(),
    "hexadecimal": SAID.hex().encode(),
    "base64": base64.b64encode(b"a" + SAID),
}


@given(st.sampled_from(sorted(CODED)), st.lists(st.integers(1, 60), min_size=1, max_size=400), st.binary(max_size=40))
def test_any_cuts(form: str, sizes: list[int], before: bytes) -> None:
    """However a stream is cut, and whatever the form, a value is found, each piece looked at by itself."""
    said, position, session = before + CODED[form] + b" behind", 0, UUID(int=7)
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    for size in [*sizes, len(said)]:
        piece = said[position : position + size]
        body: dict[str, Value] = {"position": position, "payload": piece}
        tripwire.look([Record(Kind.DATA, session, 1, Direction.REQUEST, body)] if piece else [])
        position += len(piece)
    assert {"key0": 1} == tripwire.status()["seen"]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.text(max_size=9) | st.binary(max_size=9) | st.just(VALUE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "argv", "fields"]), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "position",
    "payload",
    "layer",
    "type",
    "protocol",
    "fields",
    "text",
    "content",
    "start",
    "end",
    "exchange",
    "ordinal",
    "run",
]


@given(
    st.lists(
        st.builds(
            Record,
            st.sampled_from(list(Kind)),
            st.sampled_from([UUID(int=1), UUID(int=2)]),
            st.integers(0, 9),
            st.sampled_from([None, *Direction]),
            st.dictionaries(st.sampled_from(NAMES), ANY),
        ),
        max_size=9,
    )
)
def test_any_records(records: list[Record]) -> None:
    """Records of any content are looked at and given without a defect, and none gets lost."""
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    tripwire.look(records)
    shown = tripwire.hidden(records)
    assert len(records) == len([record for record in shown if record.kind is not Kind.MASKED or record in records])
    assert tripwire.status()["problem"] is None


def test_a_long_stream() -> None:
    """In megabytes that come at once it is found where it is, also over the places at which they are cut to be looked at."""
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    passed(tripwire, [])
    session = UUID(int=7)
    places = [0, PIECE_BYTES_MAX - 5, 2 * PIECE_BYTES_MAX - 27, 2 * PIECE_BYTES_MAX + 100, 3_000_000]
    said = bytearray(b"x" * 4_000_000)
    for at in places:
        said[at : at + len(SAID)] = SAID
    parts = [(at, bytes(said[at : at + 700_001])) for at in range(0, len(said), 700_001)]
    data = [Record(Kind.DATA, session, 1, Direction.RESPONSE, {"position": at, "payload": part}) for at, part in parts]
    seen = tripwire.look(data)
    shown = tripwire.hidden(data)
    told = [record.body["places"] for record in shown if record.kind is Kind.MASKED]
    assert places == [cast("list[list[int]]", one)[0][0] for one in told]
    assert 1 == len(seen)
    assert SAID not in b"".join(cast("bytes", record.body["payload"]) for record in shown if record.kind is Kind.DATA)
    assert {"key0": len(places)} == tripwire.status()["seen"]


def test_what_says_it_without_end_hides_more_and_never_less() -> None:
    """Who says it thousands of times at once gets none of them recorded; what lies far from all of them stays."""
    tripwire, session = Tripwire(Here(VALUE), lambda: NOW), UUID(int=7)
    said = b"first words" + b"." * 5_000 + (SAID + b" again, ") * 2_000 + b"." * 5_000 + b"last words"
    data = [Record(Kind.DATA, session, 1, Direction.RESPONSE, {"position": 0, "payload": said})]
    tripwire.look(data)
    shown = b"".join(cast("bytes", one.body["payload"]) for one in tripwire.hidden(data) if one.kind is Kind.DATA)
    assert (0, len(said)) == (shown.count(SAID), len(shown))
    assert (True, True) == (shown.startswith(b"first words."), shown.endswith(b".last words"))
    assert 2 * PLACES_MAX >= sum(map(len, tripwire._of(session).places))


def test_a_hundred_bodies_side_by_side() -> None:
    """Of as many streams as HTTP/2 has at once, each way, it is found where each is cut in the middle of it."""
    tripwire, session = Tripwire(Here(VALUE), lambda: NOW), UUID(int=7)
    for part in (VALUE[:9], VALUE[9:]):
        for direction in (Direction.REQUEST, Direction.RESPONSE):
            told: dict[str, Value] = {"protocol": "http2", "type": "body", "text": part, "start": 0, "end": 1}
            bodies = [Record(Kind.MESSAGE, session, 1, direction, {**told, "exchange": 2 * at + 1}) for at in range(100)]
            tripwire.look(bodies)
    assert {"key0": 200} == tripwire.status()["seen"]


def test_messages_that_have_it_say_nothing_else() -> None:
    """A message that has it is left out of texts and search; others stay."""
    port, talk = FORMS["in an answer"]
    shown = passed(Tripwire(Here(VALUE), lambda: NOW), cycles(talk, port, 100_000, 100))
    messages = of_kind(shown, Kind.MESSAGE)
    body = next(message for message in messages if message.body["type"] == "body")
    assert ("GET /plain HTTP/1.1", HIDDEN, {}) == (messages[0].body["summary"], body.body["summary"], body.body["fields"])


@pytest.mark.parametrize("level", list(Level))
def test_arguments_of_processes(level: Level) -> None:
    """A value among the arguments of a process is hidden in what is told of it, and an alarm of its run; the others stay."""
    run = UUID(int=9)
    argv = ["curl", f"-HX-Key: {VALUE}", "--password", "hunter2-hunter2", "https://a.test/"]
    body: dict[str, Value] = {"name": "exec", "pid": 7, "exe": "/usr/bin/curl", "argv": argv}
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    shown = passed(tripwire, [[Record(Kind.MARKER, run, 5, None, body)]], level)
    assert {"key0": 1} == tripwire.status()["seen"]
    assert "/usr/bin/curl" == shown[0].body["exe"]
    assert VALUE not in repr(shown)
    if level is Level.MASKED:
        assert ["curl", HIDDEN, "--password", HIDDEN, "https://a.test/"] == shown[0].body["argv"]
    assert not tripwire._facts


def test_what_waits_over_the_recorder_s_end() -> None:
    """A message that was cut off by the end of the recorder is looked at by the next one, and stored without the value."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: abc\r\nX-Debug: " + SAID + b"\r\nX-More: " + b"y" * 200 + b"\r\n\r\n"
    batches, waited = cycles([(REQUEST, head), (RESPONSE, answer(b"ok"))], 80, 100, 1), 0
    for cut in range(1, len(batches)):
        stage, first = Stage(Rules(Choice()), Levels()), Tripwire(Here(VALUE), lambda: NOW)
        out = list[Record]()
        for batch in batches[:cut]:
            seen = first.look(batch)
            out += first.hidden([*stage.take(batch), *seen])
        later, second = Stage(Rules(Choice()), Levels()), Tripwire(Here(VALUE), lambda: NOW)
        assert later.restore(stage.save())
        waited += any(SAID in repr(record.body).encode() for record in later.all_held())
        second.look(later.all_held())
        for batch in batches[cut:]:
            seen = second.look(batch)
            out += second.hidden([*later.take(batch), *seen])
        assert SAID not in stored(out)
    assert waited


def test_nobody_looked() -> None:
    """What could not be looked at is counted, and stored as it is."""
    port, talk = FORMS["in an answer"]
    tripwire = Tripwire(Nobody(), lambda: NOW)
    shown = passed(tripwire, cycles(talk, port, 100_000, 100))
    status = tripwire.status()
    assert (NOW, "nobody is there") == (status["unsearched_ns"], status["problem"])
    assert cast("int", status["unsearched_bytes"]) >= len(talk[1][1])
    assert SAID in stored(shown)


def test_without_credentials() -> None:
    """Where there are none, nothing is looked at."""
    port, talk = FORMS["in an answer"]
    tripwire = Tripwire(None, lambda: NOW)
    assert SAID in stored(passed(tripwire, cycles(talk, port, 100_000, 100)))
    assert tripwire.status()["wanted"] is False
    assert 0 == tripwire.status()["unsearched_bytes"]


def test_nothing_is_kept_of_what_is_over() -> None:
    """A session that ended is forgotten."""
    tripwire = Tripwire(Here(VALUE), lambda: NOW)
    for port, talk in FORMS.values():
        passed(tripwire, cycles(talk, port, 50, 3))
    assert not tripwire._sessions
    assert not tripwire._marked
