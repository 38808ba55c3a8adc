"""Sessions in forms that other tools read: HAR, SQL, asciicast, pcapng."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.cli.forms.frames import checksum
from capd.cli.forms.spoken import FormError, Spoken
from capd.cli.forms.sql_text import is_closed, takes_what_follows
from capd.cli.forms.writing import SUFFIXES, pieces
from capd.cli.payload import BRIEF, FULL, Limits
from capd.cli.veil import StreamVeil
from capd.recording.projection import Projection
from capd.recording.record import Kind, Record
from tests.cli.recorded import REQUEST, RESPONSE, Conversation
from tests.cli.spoken import over_http, over_http2, over_mysql, over_postgresql, over_terminal
from tests.cli.test_transcript_hostile import RECORD, STEERS
from tests.decoders import postgresql_bytes as pg

GOLDEN = Path(__file__).parent / "golden"
TCPDUMP = shutil.which("tcpdump")


def spoken(records: Sequence[Record]) -> Spoken:
    """Give records as a form takes them, with the row that the index would have."""
    projection = Projection(load_session=lambda _: None, load_run=lambda _: None)
    projection.receive(list(records))
    return Spoken(row=next(iter(projection.changes().sessions)), records=lambda: iter(records))


def form_of(form: str, *conversations: Conversation, limits: Limits = BRIEF) -> bytes:
    """Give the file of a form."""
    return b"".join(pieces(form, [spoken(said.records) for said in conversations], limits))


@pytest.mark.parametrize(
    ("form", "said", "golden"),
    [
        ("har", over_http, "http.har"),
        ("har", over_http2, "http2.har"),
        ("sql", over_postgresql, "postgresql.sql"),
        ("sql", over_mysql, "mysql.sql"),
        ("pcap", over_mysql, "mysql.pcapng"),
        ("cast", over_terminal, "terminal.cast"),
        ("pcap", over_postgresql, "postgresql.pcapng"),
    ],
)
def test_a_form_reads_as_it_always_did(form: str, said: Callable[[], Conversation], golden: str) -> None:
    """A recording of real bytes gives exactly the golden file."""
    assert (GOLDEN / golden).read_bytes() == form_of(form, said())


# -- HAR -----------------------------------------------------------------------------------------------------------------------

NUMBER, TEXT = (int, float), str
PAIRS = [{"name": TEXT, "value": TEXT}]
HAR_REQUIRED: dict[str, object] = {
    "version": TEXT,
    "creator": {"name": TEXT, "version": TEXT},
    "entries": [
        {
            "startedDateTime": TEXT,
            "time": NUMBER,
            "request": {
                "method": TEXT, "url": TEXT, "httpVersion": TEXT, "cookies": PAIRS, "headers": PAIRS, "queryString": PAIRS,
                "headersSize": int, "bodySize": int,
            },
            "response": {
                "status": int, "statusText": TEXT, "httpVersion": TEXT, "cookies": PAIRS, "headers": PAIRS,
                "content": {"size": int, "mimeType": TEXT}, "redirectURL": TEXT, "headersSize": int, "bodySize": int,
            },
            "cache": {},
            "timings": {"send": NUMBER, "wait": NUMBER, "receive": NUMBER},
        }
    ],
}  # fmt: skip
"""What HAR 1.2 asks for, and its types."""


def lacking(required: object, given: object, place: str = "log") -> list[str]:
    """Say where an object is not as the specification wants it."""
    if isinstance(required, dict):
        if not isinstance(given, dict):
            return [place]
        missing = [f"{place}.{name}" for name in required if name not in given]
        return missing + [
            one for name, inner in required.items() if name in given for one in lacking(inner, given[name], f"{place}.{name}")
        ]
    if isinstance(required, list):
        if not isinstance(given, list):
            return [place]
        return [one for number, inner in enumerate(given) for one in lacking(required[0], inner, f"{place}[{number}]")]
    assert isinstance(required, type | tuple)
    return [] if isinstance(given, required) and not isinstance(given, bool) else [place]


def har_of(*conversations: Conversation, limits: Limits = BRIEF) -> dict[str, object]:
    """Give the log of a HAR file."""
    log = json.loads(form_of("har", *conversations, limits=limits))["log"]
    assert isinstance(log, dict)
    return log


def entries_of(log: dict[str, object]) -> list[dict[str, object]]:
    """Give the entries of a log."""
    entries = log["entries"]
    assert isinstance(entries, list)
    return entries


def test_a_har_file_has_what_the_specification_asks_for() -> None:
    """Every required field is there, with its type, also of an exchange that was cut off."""
    said = over_http()
    said.say(REQUEST, b"GET /slow?a=1&b=%20x+y#f HTTP/1.1\r\nHost: h\r\nCookie: one=secret1; secret2\r\n\r\n")
    log = har_of(said.close("partial", ["still open"]))
    assert ["log"] == lacking(HAR_REQUIRED, None)
    assert [] == lacking(HAR_REQUIRED, log)
    last = entries_of(log)[-1]
    assert isinstance(last["request"], dict)
    assert last["request"]["queryString"] == [{"name": "a", "value": "1"}, {"name": "b", "value": " x y"}]
    assert [cookie["name"] for cookie in last["request"]["cookies"]] == ["one", ""]
    assert "the response is not in the recording" in str(last["comment"])


def test_pipelined_requests_find_their_answers() -> None:
    """Answers belong to the requests in their order, an interim answer is told beside the final one."""
    said = Conversation(b"pipelined", port=80)
    said.say(REQUEST, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n")
    said.say(RESPONSE, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nA")
    said.say(RESPONSE, b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nB")
    entries = entries_of(har_of(said.close()))
    told = [(one["request"]["url"], one["response"]["content"].get("text"), one.get("_interim")) for one in entries]  # type: ignore[index]
    assert told == [("http://h/a", "A", [103]), ("http://h/b", "B", None)]


def test_a_body_is_cut_where_a_replay_cuts_it() -> None:
    """A huge body is given up to the limit and says so; --full gives more."""
    said = Conversation(b"huge", port=80)
    said.say(REQUEST, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    said.close()
    for limits, length in ((BRIEF, BRIEF.body_bytes), (FULL, 200_000)):
        response = entries_of(har_of(said, limits=limits))[0]["response"]
        assert isinstance(response, dict)
        assert length - 100 < response["content"]["size"] <= length
        assert response["bodySize"] == 200_000
        assert ("comment" in response["content"]) == (length < 200_000)


# -- credentials ---------------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t-Value"


def with_secrets() -> list[Conversation]:
    """Give conversations in which credentials stand wherever replay does not show them."""
    said = Conversation(b"secrets", port=80)
    head = (
        f"POST / HTTP/1.1\r\nHost: h\r\nauthorization: Bearer {SECRET}\r\nCookie: a={SECRET}; b={SECRET}\r\n"
        f"X-Api-Key:{SECRET}\r\n"
        f"Proxy-Authorization: {SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: {SECRET}\r\n\r\n"
    )
    said.say(REQUEST, head.encode(), piece=7)
    said.say(
        RESPONSE, f"HTTP/1.1 200 OK\r\nSet-Cookie: {SECRET}\r\nSet-Cookie: k={SECRET}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    said.lose(REQUEST, 10)
    said.say(REQUEST, f"on: Bearer {SECRET}\r\nHost: h\r\n\r\n".encode())
    said.say(REQUEST, f"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer\r\n {SECRET}\r\n\r\n".encode())
    database = Conversation(b"password", port=5432)
    database.say(REQUEST, pg.startup(user="ann", database="shop"))
    database.say(RESPONSE, pg.authentication(3))
    database.say(REQUEST, pg.message("p", SECRET.encode() + b"\0"))
    database.say(RESPONSE, pg.authentication(0) + pg.ready())
    return [said.close(), database.close()]


@pytest.mark.parametrize("form", ["har", "sql", "pcap"])
@pytest.mark.parametrize("limits", [BRIEF, FULL])
def test_no_form_holds_a_credential(form: str, limits: Limits) -> None:
    """What replay does not show is in no form, --full or not; the recording holds it."""
    said = with_secrets()
    recorded = b"".join(
        payload for one in said for record in one.records if isinstance(payload := record.body.get("payload"), bytes)
    )
    assert 11 == recorded.count(SECRET.encode()[:6])
    assert SECRET.encode()[:6] not in form_of(form, *said, limits=limits)


@given(st.lists(st.sampled_from([b"Cookie", b": ", b"se", b"cret", b"\r\n", b"\n", b" ", b"Host: h", b"x" * 40, b"api-key:"])))
def test_a_veil_does_not_depend_on_how_bytes_are_cut(parts: list[bytes]) -> None:
    """Whole or byte by byte: the same bytes are filled, and none is added or taken."""
    whole = b"".join(parts)
    shown = StreamVeil(http=True).filled(whole, 0)
    assert len(whole) == len(shown)
    veil = StreamVeil(http=True)
    bytewise = b"".join(veil.filled(whole[at : at + 1], at) for at in range(len(whole)))
    kept = [(at, byte) for at, byte in enumerate(bytewise) if byte != ord("*")]
    assert bytewise == shown
    assert all(whole[at] == byte for at, byte in kept)


# -- SQL -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "closed"),
    [
        ("SELECT 1", True),
        ("SELECT 'it''s', \"a\"\"b\", $$x'y$$, $t$ $$ ' $t$, E'\\'', U&'\\0041'", True),
        ("SELECT 1 -- it's", True),
        ("SELECT /* ' /* nested */ ' */ 1", True),
        ("SELECT a$1$ FROM b WHERE c = $1", True),
        ("SELECT 'open", False),
        ("SELECT 'it\\'s'", False),
        ("SELECT 'a\\'", False),
        ('SELECT "open', False),
        ("SELECT $t$ open $$", False),
        ("SELECT E'open\\'", False),
        ("SELECT /* open /* */", False),
        ("SELECT 1\n\\! rm -rf /", False),
        ("\\copy t to program 'x'", False),
    ],
)  # fmt: skip
def test_a_statement_ends_where_its_text_does(statement: str, closed: bool) -> None:
    """Open quotes and comments are seen in every way in which a server may read quotes, and so are psql's own commands."""
    assert closed == is_closed(statement)


@pytest.mark.parametrize(
    ("statement", "closed"),
    [
        ("SELECT `a'b`, \"c;\" # it's\n, 'it''s' -- \"quiet\"", True),
        ("SELECT /* it's */ 1", True),
        ("SELECT 1--'2'", True),
        ("SELECT 1--'", False),
        ("SELECT 'it\\'s'", False),
        ("SELECT `open", False),
        ('SELECT "open', False),
        ("SELECT /* open", False),
        ("SELECT 1 /*!50000 , '*/", False),
        ("SELECT 1 /*M! , 2 */", False),
        ("SELECT 1\n\\! rm -rf /", False),
    ],
)
def test_a_statement_of_mysql_ends_where_its_text_does(statement: str, closed: bool) -> None:
    """So it is with the quotes, names and comments of MySQL, whatever its sql_mode is."""
    assert closed == is_closed(statement, mysql=True)


@pytest.mark.parametrize(
    "statement", ["LOAD DATA\nLOCAL INFILE 'x' INTO TABLE t", "source /x", "select 1\n  delimiter //", "system ls"]
)
def test_what_mysqls_client_would_do_itself_is_a_comment(statement: str) -> None:
    """Commands of the client, and files that it would send."""
    assert takes_what_follows(statement, mysql=True)
    assert not takes_what_follows("select source, status from t", mysql=True)


def test_what_takes_more_than_its_text_is_a_comment() -> None:
    """COPY from the client would eat the lines after it; to or from a program it would run one."""
    assert takes_what_follows("copy t\nFROM STDIN with (format csv)")
    assert takes_what_follows("COPY t TO PROGRAM 'rm'")
    assert not takes_what_follows("COPY t TO STDOUT")
    said = Conversation(b"copy", port=5432)
    said.say(REQUEST, pg.startup(user="ann", database="shop"))
    said.say(RESPONSE, pg.authentication(0) + pg.ready())
    for statement in ("COPY t FROM STDIN", "SELECT 'open\n\\! id", "SELECT 1 -- x\x1b[2J"):
        said.say(REQUEST, pg.query(statement))
        said.say(RESPONSE, pg.error("42601", "no\n\\! id\nDROP TABLE x") + pg.ready())
    live = [line for line in form_of("sql", said.close()).decode().splitlines() if line and not line.startswith("--")]
    assert live == ["SELECT 1 -- x\\x1b[2J", ";"]


def test_one_exchange_may_hold_many_executions() -> None:
    """Pipelined executions of one prepared statement each stand with their parameters and their own outcome."""
    said = Conversation(b"pipelined", port=5432)
    said.say(REQUEST, pg.startup(user="ann", database="shop"))
    said.say(RESPONSE, pg.authentication(0) + pg.ready())
    binds = b"".join(pg.bind("", "s", [value]) + pg.execute() for value in (b"1", b"2"))
    said.say(REQUEST, pg.parse("s", "INSERT INTO t VALUES ($1)", 23) + binds + pg.message("S"))
    done = pg.message("2") + pg.complete("INSERT 0 1")
    said.say(RESPONSE, pg.message("1") + done + pg.message("2") + pg.error("23505", "twice") + pg.ready())
    told = [line for line in form_of("sql", said.close()).decode().splitlines() if line[:5] in {"-- $1", "INSER", "-- =>"}]
    assert told == [
        "-- $1 = 1", "INSERT INTO t VALUES ($1)", "-- => INSERT 0 1  after 1 ms",
        "-- $1 = 2", "INSERT INTO t VALUES ($1)", "-- => ERROR 23505: twice  after 1 ms",
    ]  # fmt: skip


# -- asciicast -----------------------------------------------------------------------------------------------------------------


def test_what_a_player_writes_only_draws() -> None:
    """Titles, the clipboard, device queries, mouse reports and eight-bit controls are left out; colours and cursors stay."""
    header, *events = [json.loads(line) for line in form_of("cast", over_terminal()).splitlines() if not line.startswith(b"#")]
    assert header["version"] == 3
    written = "".join(text for _, code, text in events if code == "o")
    assert written == "\r\n\x1b[1mlab\x1b[0m login: \x1b[2J\x1b[Hwelcome Zo\u00eb\x1b[31mred\x1b[0m\r\n\ufffd2J$ "
    assert ["m"] == [code for _, code, text in events if "GAP 9 bytes" in text]
    assert [1.5] == [interval for interval, code, text in events if text == "ann\r\n"]


@pytest.mark.parametrize("said", [over_http, over_postgresql])
def test_what_is_no_terminal_is_not_made_one(said: Callable[[], Conversation]) -> None:
    """The error says what the session is."""
    with pytest.raises(FormError, match="is no terminal: it is"):
        form_of("cast", said())


def test_a_form_says_what_it_is_not_for() -> None:
    """A database is no HAR, HTTP is no SQL, and of several sessions those that fit are taken."""
    with pytest.raises(FormError, match="no HTTP in it"):
        form_of("har", over_postgresql())
    with pytest.raises(FormError, match="no SQL in it"):
        form_of("sql", over_http())
    assert len(entries_of(har_of(over_postgresql(), over_http()))) == 3


# -- pcapng --------------------------------------------------------------------------------------------------------------------


def packets(content: bytes) -> list[bytes]:
    """Give the packets of a file, checking how its blocks are laid out."""
    found, at = [], 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        assert length % 4 == 0
        assert (length,) == struct.unpack_from("<I", content, at + length - 4)
        if kind == 6:
            (captured,) = struct.unpack_from("<I", content, at + 20)
            found.append(content[at + 28 : at + 28 + captured])
        at += length
    return found


def stream_of(content: bytes, port: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Put what was sent from a port together by its sequence numbers: the bytes, and the holes as position and length."""
    parts = []
    for packet in packets(content):
        source, _, sequence, _, offset = struct.unpack_from("!HHIIB", packet, 20)
        payload = packet[20 + (offset >> 4) * 4 :]
        if source == port and payload:
            parts.append((sequence - 1, payload))
    stream, holes, end = b"", [], 0
    for position, payload in parts:
        if position > end:
            holes.append((end, position - end))
        stream, end = stream + payload, position + len(payload)
    return stream, holes


def test_streams_come_back_out_of_packets() -> None:
    """Put together by sequence number, packets give what was said byte for byte, with holes where bytes are missing."""
    said = Conversation(b"raw", port=9)
    data = bytes(range(256)) * 40
    said.say(RESPONSE, data)
    said.lose(RESPONSE, 70_000)
    said.say(RESPONSE, b"after")
    said.add(Kind.GAP, RESPONSE, {"position": 80_245, "length": None, "reason": "unknown", "layer": "application"})
    said.say(RESPONSE, b"end")
    content = form_of("pcap", said.close())
    assert stream_of(content, 9) == (data + b"afterend", [(10_240, 70_000), (80_245, 1)])


@pytest.mark.skipif(TCPDUMP is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "not an address"])
@pytest.mark.parametrize("transport", ["tcp", "udp", "unix"])
def test_tcpdump_reads_the_packets(address: str, transport: str, tmp_path: Path) -> None:
    """Tcpdump reads every packet and finds no checksum, length or flag wrong."""
    assert TCPDUMP is not None
    one = spoken(over_http().records)
    target = replace(one.row.target, host=address)
    one = replace(one, row=replace(one.row, target=target, transport=transport))
    (tmp_path / "said.pcapng").write_bytes(b"".join(pieces("pcap", [one], BRIEF)))
    command = [TCPDUMP, "-nvvr", str(tmp_path / "said.pcapng")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("cksum" if transport != "udp" else "udp sum ok") >= 6
    assert "incorrect" not in done.stdout
    assert "bad" not in done.stdout
    assert "truncated" not in done.stdout + done.stderr


@given(st.binary(max_size=64))
def test_a_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    """The short way gives what adding word by word gives."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == 0xFFFF - total


# -- hostile recordings --------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.lists(RECORD, max_size=12),
    st.sampled_from(["http1", "mysql", "postgresql", "unknown"]),
    st.sampled_from(sorted(SUFFIXES)),
)
def test_no_record_breaks_a_form(records: list[Record], protocol: str, form: str) -> None:
    """For any records: a file that its readers take, with nothing in a text form that steers a terminal, and no exception."""
    row = replace(spoken(over_http().records).row, protocol=protocol)
    one = Spoken(row=row, records=lambda: iter(records))
    try:
        content = b"".join(pieces(form, [one], BRIEF))
    except FormError:
        return
    if form == "pcap":
        assert all(packet[0] >> 4 in {4, 6} for packet in packets(content))
        return
    assert [] == STEERS.findall(content.decode().replace("\n", ""))
    if form == "har":
        assert [] == lacking(HAR_REQUIRED, json.loads(content)["log"])
    elif form == "cast":
        assert all(json.loads(line) for line in content.splitlines() if not line.startswith(b"#"))
