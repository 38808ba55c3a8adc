"""The pure parts of presentation: payloads, tables, times, rows, patterns."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from uuid import UUID

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from capd.cli import moments, summary
from capd.cli.facts import Facts
from capd.cli.line import columns, plain
from capd.cli.payload import BRIEF, Limits, json_laid_out, preview, unpack
from capd.cli.rows import result_lines
from capd.cli.table import Column, lay_out
from capd.cli.transcript import Block, Transcript
from capd.cli.window import Window
from capd.recording.record import Direction, Kind, Record
from tests.cli.recorded import START_NS

TEXT = b"hello hello hello " * 20
SECOND = 1_000_000_000


def shown(data: bytes, *, json_like: bool = False, limits: Limits = BRIEF) -> list[str]:
    """Give a preview as plain text."""
    return [plain(line) for line in preview(data, limits=limits, json_like=json_like)]


@pytest.mark.parametrize(
    ("data", "codings", "expected", "note"),
    [
        (gzip.compress(TEXT, mtime=0), ["gzip"], TEXT, None),
        (gzip.compress(TEXT, mtime=0), ["X-GZIP"], TEXT, None),
        (zlib.compress(TEXT), ["deflate"], TEXT, None),
        (zlib.compress(TEXT, wbits=-15), ["deflate"], TEXT, None),
        (zstandard.compress(TEXT), ["zstd"], TEXT, None),
        (gzip.compress(zlib.compress(TEXT), mtime=0), ["deflate", "gzip"], TEXT, None),
        (TEXT, ["identity"], TEXT, None),
        (TEXT, ["br"], TEXT, "not unpacked: br"),
        (TEXT, ["gzip", "gzip", "gzip"], TEXT, "not unpacked: 3 codings"),
        (TEXT, ["gzip"], b"", "damaged: does not unpack"),
        (gzip.compress(TEXT, mtime=0)[:-9], ["gzip"], TEXT, "its packing has no end"),
    ],
)
def test_codings_are_taken_off(data: bytes, codings: list[str], expected: bytes, note: str | None) -> None:
    """Packed bodies come out as they were, and what cannot be unpacked says why."""
    unpacked = unpack(data, codings, whole=True, bytes_max=65536)
    assert (expected, note) == (unpacked.data, unpacked.note)


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_does_not_go_off(coding: str) -> None:
    """A body that unpacks to a gigabyte costs no more than the limit, in memory and time."""
    zeros = bytes(64 << 20)
    bomb = gzip.compress(zeros) if coding == "gzip" else zstandard.compress(zeros)
    tracemalloc.start()
    started = time.process_time()
    unpacked = unpack(bomb, [coding], whole=True, bytes_max=65536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert unpacked.note is not None
    assert len(unpacked.data) <= 65536
    assert peak < 4 << 20
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":[1,2.50,{}],"b":"x,y:{}"}', '{\n  "a": [\n    1,\n    2.50,\n    {}\n  ],\n  "b": "x,y:{}"\n}'),
        ('{"a":1,"a":2}', '{\n  "a": 1,\n  "a": 2\n}'),
        ("[]", "[]"),
        ('{"cut": "off', '{\n  "cut": "off'),
        (r'{"q":"\"}"}', '{\n  "q": "\\"}"\n}'),
    ],
)
def test_json_is_laid_out_as_it_was_sent(text: str, expected: str) -> None:
    """Layout changes blanks only: digits, repeated members and escapes stay, and so does what breaks off."""
    assert expected == json_laid_out(text)


@given(st.text(alphabet='{}[]:,"\\ a1\n', max_size=200))
def test_json_layout_loses_nothing(text: str) -> None:
    """Whatever the text, laying it out changes nothing but white space."""
    assert "".join(text.split()) == "".join(json_laid_out(text).split())


def test_long_bodies_are_cut_with_a_mark() -> None:
    """What is not shown is counted."""
    lines = shown(b"".join(b"line %d\n" % number for number in range(100)))
    assert ["line 23", "… 76 more lines"] == lines[-2:]


def test_binary_is_hexadecimal() -> None:
    """Bytes that are no text are shown with offset, hexadecimal and letters, and the rest is counted."""
    lines = shown(bytes(range(100, 240)))
    assert "000000  64 65 66 67 68 69 6a 6b 6c 6d 6e 6f 70 71 72 73  defghijklmnopqrs" == lines[0]
    assert "… 76 more bytes" == lines[-1]


def test_a_table_fits_its_terminal() -> None:
    """Flexible columns give way, rigid ones and their alignment stay."""
    headings = (Column(name="ID", rigid=True), Column(name="TEXT"), Column(name="N", right=True))
    rows = [["0123456789", "a long text that does not fit", "1"], ["9876543210", "short", "22"]]
    assert ["ID          TEXT                            N", "0123456789  a long text that does not fit   1"] == [
        plain(line) for line in lay_out(headings, rows, fit=None)
    ][:2]
    assert ["ID          TEXT               N", "0123456789  a long text tha…   1", "9876543210  short             22"] == [
        plain(line) for line in lay_out(headings, rows, fit=32)
    ]


@given(
    st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=6),
    st.integers(min_value=30, max_value=100),
)
def test_a_table_never_runs_over(rows: list[list[str]], fit: int) -> None:
    """Whatever the cells, with flexible columns no line is wider than the terminal."""
    lines = lay_out([Column(name=name) for name in "ABC"], rows, fit=fit)
    assert all(columns(line) <= fit for line in lines)


def test_wide_rows_stand_upright() -> None:
    """A result wider than a screen is shown one value a line."""
    fields: Facts = {
        "columns": [{"name": f"c{number}", "type": "text"} for number in range(9)],
        "rows": [["x" * 30] * 9],
        "first_row": 0,
    }
    lines, _, _ = result_lines(fields, BRIEF, shape=None, shown=0)
    assert ["row 1", "c0  " + "x" * 30] == [plain(line) for line in lines[:2]]


def test_rows_of_later_records_keep_the_columns() -> None:
    """Rows that come later line up with the first, and no more than the limit are shown of one result."""
    described = [{"name": "n", "type": "int4"}]
    first, shape, count = result_lines({"columns": described, "rows": [["100"]], "first_row": 0}, BRIEF, shape=None, shown=0)
    rows = [[str(number)] for number in range(30)]
    later, _, _ = result_lines({"columns": described, "rows": rows, "first_row": 1}, BRIEF, shape=shape, shown=count)
    assert ["  n", "100"] == [plain(line) for line in first]
    assert ("  0", "… 11 more rows", 20) == (plain(later[0]), plain(later[-1]), len(later))


def test_null_is_not_the_text_null() -> None:
    """NULL and the text NULL look different even without colour."""
    fields: Facts = {
        "columns": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
        "rows": [[None, "NULL", {"binary": "00ff"}]],
        "first_row": 0,
    }
    lines, _, _ = result_lines(fields, BRIEF, shape=None, shown=0)
    assert "NULL  'NULL'  \\x00ff" == plain(lines[1])


@pytest.mark.parametrize(
    ("text", "back", "expected"),
    [
        ("2026-11-21T07:24:11.5Z", False, START_NS - 123_456_789 + 500_000_000),
        ("2026-11-21t08:24:11+01:00", False, START_NS - 123_456_789),
        ("2026-11-21 07:24", False, START_NS - 123_456_789 - 11 * SECOND),
        ("2026-11-21", False, START_NS - 123_456_789 - (7 * 3600 + 24 * 60 + 11) * SECOND),
        ("07:24:11.123456789", False, START_NS),
        ("90s", False, START_NS + 90 * SECOND),
        ("+1m30.5s", False, START_NS + 90 * SECOND + SECOND // 2),
        ("2h", True, START_NS - 7200 * SECOND),
        ("250ms", True, START_NS - SECOND // 4),
    ],
)
def test_times_are_read_as_people_write_them(text: str, back: bool, expected: int) -> None:
    """Dates, clocks and durations give the nanosecond that they mean."""
    assert expected == moments.parse(text, origin_ns=START_NS, back=back)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "25:00", "07:60", "2026-13-01", "12", "-5s", "2026-11-21T07:24:11+99:00", "٣s"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Anything else is an error, not a guess."""
    with pytest.raises(moments.UnreadableTimeError):
        moments.parse(text, origin_ns=START_NS, back=False)


def test_times_round_trip() -> None:
    """What is printed can be typed in again."""
    assert START_NS == moments.parse(moments.rfc3339(START_NS), origin_ns=0, back=False)


@given(st.lists(st.binary(max_size=30), max_size=12), st.data())
def test_a_window_gives_the_bytes_of_a_span(parts: list[bytes], data: st.DataObject) -> None:
    """Spans taken in order are the bytes of the stream, however it was cut into parts."""
    stream = b"".join(parts)
    window = Window(1 << 20)
    position = 0
    for part in parts:
        window.put(position, part)
        position += len(part)
    ends = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    starts = [0, *ends[:-1]]
    assert [stream[start:end] for start, end in zip(starts, ends, strict=False)] == [
        window.take(start, end) for start, end in zip(starts, ends, strict=False)
    ]


def test_short_ids_tell_neighbours_apart() -> None:
    """Ids are cut to what tells them apart, never below the millisecond and some random digits."""
    near = ["01a1fcfd-c1f3-77d3-b3c0-437d36005f5e", "01a1fcfd-c1f3-77d3-b3c1-000000000000"]
    assert {near[0]: near[0][:23], near[1]: near[1][:23]} == summary.short_ids(near)
    assert {near[0]: "01a1fcfd-c1f3-77d3"} == summary.short_ids(near[:1])


def test_each_datagram_says_where_it_went() -> None:
    """Two datagrams to two peers are two messages, each with its address."""
    session = UUID(int=1)
    blocks: list[Block] = []
    transcript = Transcript(BRIEF)
    for number, host in enumerate(("192.0.2.9", "2001:db8::1")):
        body: Facts = {"position": number, "payload": b"q", "peer": {"host": host, "port": 53}}
        blocks += transcript.feed(Record(Kind.DATA, session, START_NS + number, Direction.REQUEST, body))
    heads = [plain(block.lines[0]) for block in (*blocks, *transcript.pending())]
    assert ["· 1 bytes to 192.0.2.9:53", "· 1 bytes to [2001:db8::1]:53"] == heads
