"""The catalogue: what a fleet is asked is what each host's index would have answered."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.identity import uuid7_from
from capd.recording.index import Index
from capd.recording.index_search import SessionFilter
from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment import SegmentReader, SegmentWriter
from capd.recording.segment.layout import sealed_path

pytest.importorskip("pyarrow", reason="the fleet extra is not installed")
pytest.importorskip("duckdb", reason="the fleet extra is not installed")

from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.layout import Part, day_of, parse_key
from capd.recording.catalogue.rows import Gathering
from capd.recording.catalogue.schema import TABLES, pack, range_of
from capd.recording.catalogue.snippet import snippet

START_NS = 1_763_700_000_000_000_000
HOST = UUID(int=1)
Conversation = Callable[..., list[Record]]


class Objects(dict[str, bytes]):
    """A bucket in memory that counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int]] = []

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give key and size of what is below a prefix."""
        yield from ((key, len(data)) for key, data in self.items() if key.startswith(prefix))

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Give a range, and remember it."""
        self.reads.append((key, length))
        return self[key][offset : offset + length]


def put(objects: Objects, directory: Path, first: int, last: int) -> None:
    """Put the catalogue files of some segments into a bucket."""
    gathering = Gathering()
    for sequence in range(first, last + 1):
        with SegmentReader(sealed_path(directory, sequence)) as reader:
            assert reader.footer is not None
            day, host = day_of(reader.footer.header.created_ns), reader.footer.header.host
            gathering.receive(reader.footer, reader.file_bytes, reader.records())
    for table, rows in gathering.tables().items():
        part = Part(table=table, day=day, host=host, first=first, last=last)
        objects[part.key] = pack(table, rows, first=first, last=last)


def write(directory: Path, segments: list[list[Record]], day: int = 0) -> None:
    """Write one sealed segment for each list of records."""
    now = START_NS + day * 86_400_000_000_000
    writer = SegmentWriter(directory, host=HOST, clock=lambda: now)
    for records in segments:
        writer.append(records)
        writer.flush(Position(1, 0))
        writer.seal({})
    writer.close()


@pytest.fixture
def recorded(tmp_path: Path, conversation: Conversation) -> tuple[Objects, Index]:
    """Give a bucket with the catalogue of three conversations, the second over two segments and two files, and their index."""
    first, second, third = (conversation(number, 3) for number in range(3))
    run = second[0].body["run"]
    assert isinstance(run, bytes)
    facts: dict[str, Value] = {"run_name": "nightly", "command": ["python3", "agent.py"], "host": HOST.bytes}
    selected = Record(Kind.MARKER, UUID(bytes=run), START_NS, None, {"name": "run", **facts})
    write(tmp_path / "segments", [[selected, *first, *second[:5]], [*second[5:], *third]])
    Index.rebuild(tmp_path / "capd.db", tmp_path / "segments")
    objects = Objects()
    put(objects, tmp_path / "segments", 1, 1)
    put(objects, tmp_path / "segments", 2, 2)
    return objects, Index.open(tmp_path / "capd.db", readonly=True)


@pytest.mark.parametrize(
    "where",
    [
        SessionFilter(),
        SessionFilter(protocol="http1"),
        SessionFilter(protocol="postgresql"),
        SessionFilter(target="example.org"),
        SessionFilter(target="ample.org"),
        SessionFilter(user="ann", verdict="complete"),
        SessionFilter(state="open"),
        SessionFilter(from_ns=START_NS + 1_500_000_000),
        SessionFilter(until_ns=START_NS + 500_000_000),
    ],
)
def test_sessions_are_those_of_the_index(recorded: tuple[Objects, Index], where: SessionFilter) -> None:
    """For every filter the catalogue gives the rows that the index gives, though a session is in two files."""
    objects, index = recorded
    given = [row.to_json() for row in Fleet(objects).sessions(where)]
    assert given == [row.to_json() for row in index.sessions(where)]


def test_a_session_is_found_by_the_start_of_its_id(recorded: tuple[Objects, Index]) -> None:
    """A prefix finds what it finds in the index, and only the files of its days are read."""
    objects, index = recorded
    (wanted,) = index.sessions(limit=1)
    assert Fleet(objects).session(str(wanted.session)[:18]).to_json() == wanted.to_json()
    assert Fleet(objects).find_session(UUID(int=7)) is None


def test_runs_are_those_of_the_index(recorded: tuple[Objects, Index]) -> None:
    """Runs come with the number of their sessions and are found by name."""
    objects, index = recorded
    assert [row.to_json() for row in Fleet(objects).runs()] == [row.to_json() for row in index.runs()]
    assert Fleet(objects).run("nightly").to_json() == index.run("nightly").to_json()


@pytest.mark.parametrize(
    "words", ["message", "MESSAGE 1", '"message 1"', '"1 message"', "mess*", "essage", "session 2", "", "*"]
)
def test_search_means_what_it_means_to_the_index(recorded: tuple[Objects, Index], words: str) -> None:
    """Words, phrases and beginnings find the same messages in the same order."""
    objects, index = recorded
    found = Fleet(objects).search(words)
    key = [(hit.time_ns, hit.session, hit.ordinal, hit.direction, hit.type, hit.exchange) for hit in found]
    assert key == [
        (hit.time_ns, hit.session, hit.ordinal, hit.direction, hit.type, hit.exchange) for hit in index.search(words)
    ]
    assert all(hit.snippet[start:end].lower() in hit.snippet.lower() for hit in found for start, end in hit.matches)


def test_search_keeps_to_a_filter(recorded: tuple[Objects, Index]) -> None:
    """A filter on sessions and times narrows a search as it does in the index."""
    objects, index = recorded
    session = index.sessions(limit=1)[0].session
    for where in (
        SessionFilter(session=session),
        SessionFilter(from_ns=START_NS + 1_002_000_000, until_ns=START_NS + 2_000_000_000),
    ):
        expected = [(hit.session, hit.ordinal) for hit in index.search("message", where)]
        assert [(hit.session, hit.ordinal) for hit in Fleet(objects).search("message", where)] == expected
        assert expected


def test_an_exchange_and_its_segments_are_found(recorded: tuple[Objects, Index]) -> None:
    """Where a message's exchange began, and which segments hold a session, is known without reading a segment."""
    objects, index = recorded
    session = index.sessions()[1].session
    fleet = Fleet(objects)
    assert fleet.exchange_start(session, 3) == index.exchange_start(session, 3)
    assert fleet.exchange_start(session, 99) is None
    assert [sequence for _, _, sequence in fleet.segments_of(session)] == index.segments_of(session) == [1, 2]


def test_only_the_days_that_are_asked_for_are_read(tmp_path: Path, conversation: Conversation) -> None:
    """A question about yesterday does not touch the files of other days."""
    objects = Objects()
    for day in range(5):
        directory = tmp_path / str(day)
        write(directory, [conversation(day)], day)
        put(objects, directory, 1, 1)
    clock = START_NS + 4 * 86_400_000_000_000
    Fleet(objects, clock=lambda: clock).sessions(SessionFilter(from_ns=clock))
    assert {parse_key(key, 0).day.isoformat() for key, _ in objects.reads if parse_key(key, 0)} == {  # type: ignore[union-attr]
        day_of(START_NS + day * 86_400_000_000_000).isoformat() for day in (3, 4)
    }


def test_a_large_file_is_read_in_ranges(tmp_path: Path, conversation: Conversation) -> None:
    """Of a file of many messages a question about sessions reads nothing, and one about times a part."""
    objects = Objects()
    write(tmp_path, [[record for number in range(400) for record in conversation(number, 40)]])
    put(objects, tmp_path, 1, 1)
    (large,) = [key for key in objects if "/messages/" in key]
    fleet = Fleet(objects)
    fleet.sessions()
    assert large not in {key for key, _ in objects.reads}
    fleet.exchange_start(fleet.sessions(limit=1)[0].session, 3)
    read = sum(length for key, length in objects.reads if key == large)
    assert 0 < read < len(objects[large])


def test_what_cannot_be_read_keeps_its_session(tmp_path: Path, conversation: Conversation) -> None:
    """Of encrypted segments the host's index gives the sessions; messages are not there, and the segment says so."""
    write(tmp_path / "segments", [conversation(1)])
    Index.rebuild(tmp_path / "capd.db", tmp_path / "segments")
    with (
        Index.open(tmp_path / "capd.db", readonly=True) as index,
        SegmentReader(sealed_path(tmp_path / "segments", 1)) as reader,
    ):
        gathering = Gathering(find_session=index.find_session, find_run=index.find_run)
        assert reader.footer is not None
        gathering.receive(reader.footer, reader.file_bytes, None)
        tables = gathering.tables()
        (expected,) = index.sessions()
    assert [row["session"] for row in tables["sessions"]] == [str(expected.session)]
    assert tables["segments"][0]["readable"] is False
    assert not tables["messages"]


def test_hostile_text_becomes_valid(tmp_path: Path, conversation: Conversation) -> None:
    """Names that are no Unicode, numbers beyond 64 bits and wild ports do not hinder a file."""
    opening, *rest = conversation(1)
    hostile = {
        **opening.body,
        "run_name": "a\udcff",
        "labels": {"\udcfe": "\udcfd"},
        "target": {"host": "x\udcff", "port": 1 << 40, "name": None},
    }
    write(tmp_path, [[Record(Kind.OPEN, opening.session, opening.time_ns, None, hostile), *rest]])
    objects = Objects()
    put(objects, tmp_path, 1, 1)
    (row,) = Fleet(objects).sessions()
    assert row.target.port is None
    assert row.run_name is not None
    assert row.run_name.isascii()


def test_a_file_says_which_segments_it_is_of() -> None:
    """Range and version are in the file; a later version is refused."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only installed with the extra

    metadata = pq.read_metadata(io.BytesIO(pack("gaps", [], first=3, last=9))).metadata
    assert range_of(metadata) == (3, 9)
    with pytest.raises(ValueError, match="version is 2"):
        range_of({**metadata, b"capd.version": b"2"})
    with pytest.raises(ValueError, match="lacks"):
        range_of({})


@pytest.mark.parametrize("table", TABLES)
def test_keys_are_read_back(table: str) -> None:
    """A key gives the file that it was made of."""
    part = Part(table=table, day=day_of(START_NS), host=HOST, first=1, last=20, size=5)
    assert parse_key(part.key, 5) == part


@pytest.mark.parametrize(
    "key", ["", "catalogue/x/date=2026-01-01/host=1/1-2.parquet", "host=1/date=2026-01-01/000000000001.seg"]
)
def test_other_keys_are_no_files(key: str) -> None:
    """What else is in a bucket is passed over."""
    assert parse_key(key, 1) is None


@pytest.mark.parametrize(
    ("text", "words", "piece", "found"),
    [
        ("select * from Customers", ["customers"], "select * from Customers", ["Customers"]),
        ("Müller zahlt", ["muller"], "Müller zahlt", ["Müller"]),
        ("a\nb", [], "a b", []),
        ("x" * 100 + " needle " + "y" * 300, ["needle"], None, ["needle"]),
    ],
)
def test_a_snippet_shows_where_the_words_are(text: str, words: list[str], piece: str | None, found: list[str]) -> None:
    """The piece holds the first match and says where all in it are."""
    given, matches = snippet(text, words)
    assert piece is None or given == piece
    assert [given[start:end] for start, end in matches] == found


def test_the_second_direction_is_kept(recorded: tuple[Objects, Index]) -> None:
    """Messages know their direction."""
    objects, _ = recorded
    assert {hit.direction for hit in Fleet(objects).search("message")} == set(Direction)


def test_ids_tell_their_day() -> None:
    """An id made at a time is looked for from that day on."""
    assert uuid7_from(START_NS // 1_000_000, b"x").version == 7


def test_every_column_is_documented() -> None:
    """docs/formats/catalogue.md names every table and column."""
    text = (Path(__file__).parents[2] / "docs" / "formats" / "catalogue.md").read_text(encoding="utf-8")
    named = {word for quoted in text.split("`")[1::2] for word in quoted.split(", ")}
    columns = {name for schema in TABLES.values() for name in schema.names}
    hidden = {
        name for name in columns if name.removesuffix("_ns") in named or (name.startswith("bytes_") and "bytes_*" in named)
    }
    assert set(TABLES) <= named
    assert columns - hidden - named == set()
