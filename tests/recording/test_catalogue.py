"""The catalogue: what a fleet is asked is what each host's index would have answered."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from pyrage import x25519

from capd.recording import index_segments
from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.layout import SegmentKey, day_folder
from capd.recording.errors import CatalogueError
from capd.recording.index import Index
from capd.recording.index_search import SessionFilter
from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import sealed_path
from capd.recording.segment.writer import Sealing, SegmentWriter

pytest.importorskip("pyarrow", reason="the fleet extra is not installed")
pytest.importorskip("duckdb", reason="the fleet extra is not installed")

import pyarrow.parquet as pq

from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.layout import Part, day_of, parse_key
from capd.recording.catalogue.rows import Gathering
from capd.recording.catalogue.schema import TABLES, pack, range_of
from capd.recording.catalogue.snippet import snippet
from capd.recording.catalogue.writing import (
    FILE_BYTES_MAX,
    SEGMENTS_MAX,
    Candidate,
    CatalogueWriter,
    next_range,
)

START_NS = 1_763_700_000_000_000_000
DAY_NS = 86_400_000_000_000
HOST = UUID(int=1)
Conversation = Callable[..., list[Record]]


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """Give an empty bucket in a directory."""
    (tmp_path / "bucket").mkdir()
    return Bucket.open(str(tmp_path / "bucket"))


def put(bucket: Bucket, directory: Path, first: int, last: int) -> None:
    """Put the catalogue files of some segments into a bucket."""
    gathering = Gathering()
    for sequence in range(first, last + 1):
        with SegmentReader(sealed_path(directory, sequence)) as reader:
            assert reader.footer is not None
            day, host = day_of(reader.footer.header.created_ns), reader.footer.header.host
            gathering.receive(reader.footer, reader.file_bytes, reader.records())
    for table, rows in gathering.tables().items():
        part = Part(table=table, day=day, host=host, first=first)
        bucket.create(part.key, pack(table, rows, first=first, last=last))


def write(directory: Path, segments: list[list[Record]], day: int = 0) -> None:
    """Write one sealed segment for each list of records."""
    now = START_NS + day * DAY_NS
    writer = SegmentWriter(directory, host=HOST, clock=lambda: now)
    for records in segments:
        writer.append(records)
        writer.flush(Position(1, 0))
        writer.seal({})
    writer.close()


@pytest.fixture
def recorded(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> tuple[Bucket, Index]:
    """Give a bucket with the catalogue of three conversations, the second over two segments and two files, and their index."""
    first, second, third = (conversation(number, 3) for number in range(3))
    run = second[0].body["run"]
    assert isinstance(run, bytes)
    facts: dict[str, Value] = {"run_name": "nightly", "command": ["python3", "agent.py"], "host": HOST.bytes}
    lost = Record(Kind.MARKER, UUID(bytes=run), START_NS + 1, None, {"name": "run_losses", "streams": 2, "bytes": 77})
    selected = Record(Kind.MARKER, UUID(bytes=run), START_NS, None, {"name": "run", **facts})
    write(tmp_path / "segments", [[selected, lost, *first, *second[:5]], [*second[5:], *third]])
    index_segments.rebuild(tmp_path / "capd.db", tmp_path / "segments")
    put(bucket, tmp_path / "segments", 1, 1)
    put(bucket, tmp_path / "segments", 2, 2)
    return bucket, Index.open(tmp_path / "capd.db", readonly=True)


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
        SessionFilter(principal="ann", host=HOST),
        SessionFilter(principal="bob"),
        SessionFilter(host=UUID(int=9)),
        SessionFilter(from_ns=START_NS + 1_500_000_000),
        SessionFilter(until_ns=START_NS + 500_000_000),
    ],
)
def test_sessions_are_those_of_the_index(recorded: tuple[Bucket, Index], where: SessionFilter) -> None:
    """For every filter the catalogue gives the rows that the index gives, though a session is in two files."""
    bucket, index = recorded
    given = [row.to_json() for row in Fleet(bucket).sessions(where)]
    assert given == [row.to_json() for row in index.sessions(where)]


def test_a_session_is_found_by_the_start_of_its_id(recorded: tuple[Bucket, Index]) -> None:
    """A prefix finds what it finds in the index, and only the files of its days are read."""
    bucket, index = recorded
    (wanted,) = index.sessions(limit=1)
    assert Fleet(bucket).session(str(wanted.session)[:18]).to_json() == wanted.to_json()
    assert Fleet(bucket).find_session(UUID(int=7)) is None


def test_runs_are_those_of_the_index(recorded: tuple[Bucket, Index]) -> None:
    """Runs come with the number of their sessions and are found by name."""
    bucket, index = recorded
    assert [row.to_json() for row in Fleet(bucket).runs()] == [row.to_json() for row in index.runs()]
    assert Fleet(bucket).run("nightly").to_json() == index.run("nightly").to_json()


@pytest.mark.parametrize(
    "words", ["message", "MESSAGE 1", '"message 1"', '"1 message"', "mess*", "essage", "session 2", "", "*"]
)
def test_search_means_what_it_means_to_the_index(recorded: tuple[Bucket, Index], words: str) -> None:
    """Words, phrases and beginnings find the same messages in the same order."""
    bucket, index = recorded
    found = Fleet(bucket).search(words)
    key = [(hit.time_ns, hit.session, hit.ordinal, hit.direction, hit.type, hit.exchange) for hit in found]
    assert key == [
        (hit.time_ns, hit.session, hit.ordinal, hit.direction, hit.type, hit.exchange) for hit in index.search(words)
    ]
    assert all(hit.snippet[start:end].lower() in hit.snippet.lower() for hit in found for start, end in hit.matches)


def test_search_keeps_to_a_filter(recorded: tuple[Bucket, Index]) -> None:
    """A filter on sessions and times narrows a search as it does in the index."""
    bucket, index = recorded
    session = index.sessions(limit=1)[0].session
    for where in (
        SessionFilter(session=session),
        SessionFilter(from_ns=START_NS + 1_002_000_000, until_ns=START_NS + 2_000_000_000),
    ):
        expected = [(hit.session, hit.ordinal) for hit in index.search("message", where)]
        assert [(hit.session, hit.ordinal) for hit in Fleet(bucket).search("message", where)] == expected
        assert expected


def test_an_exchange_and_its_segments_are_found(recorded: tuple[Bucket, Index]) -> None:
    """Where a message's exchange began, and which segments hold a session, is known without reading a segment."""
    bucket, index = recorded
    session = index.sessions()[1].session
    fleet = Fleet(bucket)
    assert fleet.exchange_start(session, 3) == index.exchange_start(session, 3)
    assert fleet.exchange_start(session, 99) is None
    assert [sequence for _, _, sequence in fleet.segments_of(session)] == index.segments_of(session) == [1, 2]


def test_only_the_days_that_are_asked_for_are_read(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """A question about yesterday does not touch the files of other days."""
    for day in range(5):
        directory = tmp_path / str(day)
        write(directory, [conversation(day)], day)
        put(bucket, directory, 1, 1)
    bucket.counters.requests = 0
    clock = START_NS + 4 * DAY_NS
    Fleet(bucket, clock=lambda: clock).sessions(SessionFilter(from_ns=clock))
    assert bucket.counters.requests == 3 + 2  # lists of yesterday, today and tomorrow; the two files that there are


def test_a_large_file_is_read_in_ranges(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Of a file of many messages a question about sessions reads nothing, and one about times a part."""
    write(tmp_path, [[record for number in range(400) for record in conversation(number, 40)]])
    put(bucket, tmp_path, 1, 1)
    sizes = {entry.key.split("/")[1]: entry.size for entry in bucket.list("catalogue/")}
    fleet = Fleet(bucket)
    (newest,) = fleet.sessions(limit=1)
    assert bucket.counters.bytes_read <= sizes["sessions"]
    before = bucket.counters.bytes_read
    fleet.exchange_start(newest.session, 3)
    assert 0 < bucket.counters.bytes_read - before < sizes["messages"]


def test_what_cannot_be_read_keeps_its_session(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Of encrypted segments the host's index gives the sessions; messages are not there, and the segment says so."""
    write(tmp_path / "segments", [conversation(1)])
    index_segments.rebuild(tmp_path / "capd.db", tmp_path / "segments")
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


def test_a_search_knows_what_it_could_not_search(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Encrypted segments have no text in the catalogue, and a search over their days says that it was without them."""
    recipient = str(x25519.Identity.generate().to_public())
    for directory, recipients in (("open", ()), ("closed", (recipient,))):
        writer = SegmentWriter(tmp_path / directory, host=HOST, clock=lambda: START_NS, sealing=Sealing(recipients=recipients))
        writer.append(conversation(1))
        writer.flush(Position(1, 0))
        writer.seal({})
        writer.close()
        assert not Fleet(bucket).withholds
        bucket.create(
            f"host={HOST}/date={TODAY}/{len(bucket.list('host=')) + 1:012d}.seg", sealed_path(tmp_path / directory, 1)
        )
        cataloguer(bucket).extend(NEVER)
    fleet = Fleet(bucket)
    assert fleet.search("message")
    assert fleet.withholds


def test_hostile_text_becomes_valid(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Names that are no Unicode, numbers beyond 64 bits and wild ports do not hinder a file."""
    opening, *rest = conversation(1)
    hostile = {
        **opening.body,
        "run_name": "a\udcff",
        "labels": {"\udcfe": "\udcfd"},
        "target": {"host": "x\udcff", "port": 1 << 40, "name": None},
    }
    write(tmp_path, [[Record(Kind.OPEN, opening.session, opening.time_ns, None, hostile), *rest]])
    put(bucket, tmp_path, 1, 1)
    (row,) = Fleet(bucket).sessions()
    assert row.target.port is None
    assert row.run_name is not None
    assert row.run_name.isascii()


def test_a_file_says_which_segments_it_is_of() -> None:
    """Range and version are in the file; a later version is refused."""
    metadata = pq.read_metadata(io.BytesIO(pack("gaps", [], first=3, last=9))).metadata
    assert range_of(metadata) == (3, 9)
    with pytest.raises(ValueError, match="version is 2"):
        range_of({**metadata, b"capd.version": b"2"})
    with pytest.raises(ValueError, match="lacks"):
        range_of({})


@pytest.mark.parametrize("table", TABLES)
def test_keys_are_read_back(table: str) -> None:
    """A key gives the file that it was made of."""
    part = Part(table=table, day=day_of(START_NS), host=HOST, first=1, size=5)
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


def test_the_second_direction_is_kept(recorded: tuple[Bucket, Index]) -> None:
    """Messages know their direction."""
    bucket, _ = recorded
    assert {hit.direction for hit in Fleet(bucket).search("message")} == set(Direction)


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


TODAY = day_of(START_NS)
AGE_MAX_NS = 60_000_000_000
LATE = START_NS + AGE_MAX_NS


def candidate(sequence: int, *, file_bytes: int = 1_000) -> Candidate:
    """Give a segment of a sequence number that was shipped at the start."""
    return Candidate(sequence=sequence, day=TODAY, shipped_ns=START_NS, file_bytes=file_bytes)


@pytest.mark.parametrize(
    ("candidates", "covered", "now_ns", "expected"),
    [
        pytest.param([], 0, LATE, [], id="nothing"),
        pytest.param([candidate(1), candidate(2)], 0, START_NS, [], id="young ones wait for others"),
        pytest.param([candidate(1), candidate(2)], 0, LATE, [1, 2], id="not longer than the limit"),
        pytest.param([candidate(1), candidate(2)], 1, LATE, [2], id="what is covered is not taken again"),
        pytest.param([candidate(1), candidate(3)], 0, START_NS, [1], id="a range has no hole"),
        pytest.param(
            [candidate(n) for n in range(1, SEGMENTS_MAX + 1)], 0, START_NS, list(range(1, SEGMENTS_MAX + 1)), id="full"
        ),
        pytest.param([candidate(1, file_bytes=FILE_BYTES_MAX), candidate(2)], 0, START_NS, [1], id="large"),
        pytest.param([candidate(1)], 0, START_NS + DAY_NS, [1], id="its day is over"),
    ],
)
def test_a_range_is_due_when_full_or_old(candidates: list[Candidate], covered: int, now_ns: int, expected: list[int]) -> None:
    """Segments share a file until it is full, its day is over or its oldest segment has waited long enough."""
    assert [chosen.sequence for chosen in next_range(candidates, covered, now_ns=now_ns, age_max_ns=AGE_MAX_NS)] == expected


def ship(bucket: Bucket, directory: Path, *sequences: int) -> None:
    """Put segments into a bucket."""
    for sequence in sequences:
        bucket.create(str(SegmentKey.of(HOST, sequence, START_NS)), sealed_path(directory, sequence))


def cataloguer(bucket: Bucket, directory: Path = Path("/nowhere")) -> CatalogueWriter:
    """Give a writer without an index, which fetches segments that are not in the directory."""
    return CatalogueWriter(
        bucket,
        HOST,
        local=lambda sequence: sealed_path(directory, sequence),
        find_session=lambda _: None,
        find_run=lambda _: None,
    )


def catalogued(bucket: Bucket) -> dict[str, int]:
    """Give the number of files of each table."""
    return dict(Counter(entry.key.split("/")[1] for entry in bucket.list("catalogue/")))


NEVER = 1 << 62


def test_a_later_writer_goes_on_where_the_first_ended(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Three segments, two at first: every message is in the catalogue once, whoever writes, with or without local copies."""
    write(tmp_path, [conversation(number) for number in range(3)])
    ship(bucket, tmp_path, 1, 2)
    assert cataloguer(bucket, tmp_path).extend(NEVER).through == 2
    ship(bucket, tmp_path, 3)
    for _ in range(2):
        extent = cataloguer(bucket).extend(NEVER)
        assert (extent.through, extent.waiting, extent.whole) == (3, 0, TODAY)
    assert catalogued(bucket) == dict.fromkeys(TABLES, 2)
    assert len(Fleet(bucket).search("message", limit=100)) == 3 * 4


def test_a_file_that_is_none_is_named(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """What somebody else put where the host's own file belongs stops it with a word that names the file."""
    write(tmp_path, [conversation(1)])
    ship(bucket, tmp_path, 1)
    key = Part(table="segments", day=day_of(START_NS), host=HOST, first=1).key
    bucket.create(key, b"no parquet")
    with pytest.raises(CatalogueError, match=key):
        cataloguer(bucket, tmp_path).extend(NEVER)


def test_what_waits_is_counted(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """A segment that has just been shipped waits for others, and is told."""
    write(tmp_path, [conversation(1)])
    ship(bucket, tmp_path, 1)
    extent = cataloguer(bucket).extend(START_NS, age_max_ns=AGE_MAX_NS)
    assert (extent.through, extent.waiting) == (0, 1)
    assert not catalogued(bucket)


def test_two_writers_with_different_ends_agree(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """Of two that start at the same segment the first decides where the range ends; the other goes on from there."""
    write(tmp_path, [conversation(number) for number in range(3)])
    ship(bucket, tmp_path, 1)
    fast, slow = cataloguer(bucket), cataloguer(bucket)
    create = bucket.create

    def overtaken(key: str, content: bytes | Path) -> Outcome:
        bucket.create = create  # type: ignore[method-assign] # once
        for entry in moved:
            Path(entry[0]).rename(entry[1])
        fast.extend(NEVER)
        for entry in moved:
            Path(entry[1]).rename(entry[0])
        return create(key, content)

    ship(bucket, tmp_path, 2, 3)
    folder = bucket.location.directory / day_folder(HOST, TODAY)
    moved = [(folder / f"{number:012d}.seg", tmp_path / f"away-{number}") for number in (2, 3)]
    bucket.create = overtaken  # type: ignore[method-assign] # another shipper was faster, and saw only the first
    assert slow.extend(NEVER).through == 3
    assert catalogued(bucket) == dict.fromkeys(TABLES, 2)
    assert len(Fleet(bucket).search("message", limit=100)) == 3 * 4


@pytest.mark.parametrize("survivors", range(1, len(TABLES)))
def test_a_killed_writer_leaves_no_hole(tmp_path: Path, bucket: Bucket, conversation: Conversation, survivors: int) -> None:
    """Killed after any of its files, the next writer creates the others of the same range."""
    write(tmp_path, [conversation(number) for number in range(2)])
    ship(bucket, tmp_path, 1, 2)
    create = bucket.create
    created: list[str] = []

    def dying(key: str, content: bytes | Path) -> Outcome:
        if len(created) == survivors:
            raise KeyboardInterrupt
        created.append(key)
        return create(key, content)

    bucket.create = dying  # type: ignore[method-assign] # kill -9 at this moment
    with pytest.raises(KeyboardInterrupt):
        cataloguer(bucket).extend(NEVER)
    bucket.create = create  # type: ignore[method-assign]
    assert cataloguer(bucket).extend(NEVER).through == 2
    assert catalogued(bucket) == dict.fromkeys(TABLES, 1)


def test_damage_and_loss_do_not_stop_the_catalogue(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """A segment with a wrong byte is said to be unreadable; one without a footer is left out."""
    write(tmp_path, [conversation(1), conversation(2), conversation(3)])
    for sequence, change in ((1, lambda data: flip(data, 250)), (2, lambda data: data[:-50])):
        path = sealed_path(tmp_path, sequence)
        path.chmod(0o600)
        path.write_bytes(change(path.read_bytes()))
    ship(bucket, tmp_path, 1, 2, 3)
    assert cataloguer(bucket).extend(NEVER).through == 3
    (key,) = [entry.key for entry in bucket.list("catalogue/segments/")]
    rows = pq.read_table(io.BytesIO(bucket.read(key)))
    assert dict(zip(rows.column("sequence").to_pylist(), rows.column("readable").to_pylist(), strict=True)) == {
        1: False,
        3: True,
    }


def flip(data: bytes, place: int) -> bytes:
    """Change one bit."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
