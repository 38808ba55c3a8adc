"""`--bucket`: what the reading verbs say of a bucket is what they say of the directory that was shipped to it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from capd.cli.options import CorrectedUsageError
from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import BucketError
from capd.recording.bucket.layout import SegmentKey
from capd.recording.errors import CatalogueError, NothingRecordedError
from capd.recording.index import Index
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import sealed_path
from tests.cli.conftest import VERBS, Capd
from tests.cli.recorded import HOST, RUN, START_NS, Conversation, Recording

pytest.importorskip("duckdb", reason="the fleet extra is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

from capd.recording.catalogue.archive import FollowBucketError
from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.schema import pack
from capd.recording.catalogue.writing import CatalogueWriter

LATE_NS = 1 << 62


@pytest.fixture
def bucket(recorded: Recording, tmp_path: Path) -> Bucket:
    """Give a bucket to which the recording was shipped, with its catalogue."""
    recorded.write(Conversation(b"a third", started_ns=START_NS + 2_000_000_000).records)
    recorded.close()
    (tmp_path / "bucket").mkdir()
    bucket = Bucket.open(str(tmp_path / "bucket"))
    for path in (recorded.state_dir / "segments").glob("*.seg"):
        with SegmentReader(path) as reader:
            header = reader.header
        bucket.create(str(SegmentKey.of(header.host, header.sequence, header.created_ns)), path)
    with Index.open(recorded.state_dir / "index" / "capd.db", readonly=True) as index:
        writer = CatalogueWriter(
            bucket,
            header.host,
            local=lambda sequence: sealed_path(recorded.state_dir / "segments", sequence),
            find_session=index.find_session,
            find_run=index.find_run,
        )
        writer.extend(LATE_NS)
    return bucket


def from_bucket(bucket: Bucket, verb: str, *arguments: str) -> Result:
    """Run a verb on a bucket, as the command line would."""
    command = [*arguments, "--bucket", str(bucket)]
    return CliRunner().invoke(VERBS[verb], command, prog_name=f"capd {verb}", standalone_mode=False)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("sessions", ["--json"]),
        ("sessions", ["--protocol", "postgresql"]),
        ("sessions", ["--since", "2026-11-21T07:24:12Z", "--json"]),
        ("sessions", ["--run", "nightly", "--completeness", "partial", "--json"]),
        ("runs", ["--json"]),
        ("runs", []),
        ("show", ["nightly"]),
        ("show", [str(RUN), "--json"]),
        ("search", ["customers", "--json"]),
        ("search", ["customers"]),
        ("search", ["nothing-of-the-kind", "--json"]),
    ],
)
def test_a_verb_answers_as_from_the_directory(capd: Capd, bucket: Bucket, verb: str, arguments: list[str]) -> None:
    """The output is the same, byte for byte, but for the piece of a text that a search shows."""
    given, expected = from_bucket(bucket, verb, *arguments), capd(verb, *arguments)
    if verb == "search" and "--json" in arguments:
        texts = [json.loads(result.stdout) for result in (given, expected)]
        for hit in (hit for hits in texts for hit in hits):
            marked = {hit["snippet"][start:end].lower() for start, end in hit["matches"]}
            hit["snippet"], hit["matches"] = "", sorted(marked)
        assert texts[0] == texts[1]
    elif verb == "search":
        assert len(given.stdout.splitlines()) == len(expected.stdout.splitlines()) > 1
    else:
        assert given.stdout == expected.stdout
    assert (given.exit_code, given.return_value) == (expected.exit_code, expected.return_value)


def test_a_file_that_is_none_of_a_catalogue_hides_no_other(capd: Capd, bucket: Bucket) -> None:
    """What is damaged, or of other columns, is named and left out; an id that is none is an error of its own."""
    others = [f"catalogue/sessions/date=2026-11-21/host={UUID(int=number)}/000000000001.parquet" for number in (7, 8, 9)]
    columns = pa.table({"session": [1], "started_ns": ["never"]})
    contents = io.BytesIO()
    pq.write_table(columns, contents)
    for key, content in zip(others, (b"no parquet", contents.getvalue()), strict=False):
        bucket.create(key, content)
    for verb in ("sessions", "runs"):
        given, expected = from_bucket(bucket, verb, "--json"), capd(verb, "--json")
        assert given.stdout == expected.stdout
        assert all(f"{key} is damaged, or no file of a catalogue" in given.stderr for key in others[:2])
    bucket.create(others[2], pack("sessions", [{"session": "\x1b[31m", "started_ns": 1, "last_ns": 1}], first=1, last=1))
    assert isinstance(from_bucket(bucket, "sessions").exception, CatalogueError)


@pytest.mark.parametrize("form", ["text", "json", "raw"])
def test_a_replay_is_the_same(capd: Capd, bucket: Bucket, form: str) -> None:
    """Transcript, records and bytes come out of the bucket as out of the directory."""
    for session in json.loads(capd("sessions", "--json").stdout):
        arguments = [session["session"], "--format", form]
        if form == "raw":
            arguments += ["--direction", "response"]
        given, expected = from_bucket(bucket, "replay", *arguments), capd("replay", *arguments)
        assert given.stdout_bytes == expected.stdout_bytes
        assert given.stdout_bytes or not session["messages"]


def test_a_replay_begins_at_a_message(capd: Capd, bucket: Bucket) -> None:
    """`--at` finds the exchange through the catalogue."""
    session = json.loads(capd("sessions", "--protocol", "postgresql", "--json").stdout)[0]["session"]
    arguments = [session, "--at", "3"]
    assert from_bucket(bucket, "replay", *arguments).stdout == capd("replay", *arguments).stdout


def test_a_segment_that_is_gone_is_a_gap(bucket: Bucket) -> None:
    """What the catalogue knows and the bucket has no more stands in the transcript as missing."""
    session = json.loads(from_bucket(bucket, "sessions", "--protocol", "http1", "--json").stdout)[0]["session"]
    for entry in bucket.list("host="):
        bucket.delete(entry.key)
    assert "segment 1 is missing" in from_bucket(bucket, "replay", session).stdout


def test_verify_finds_in_the_bucket_what_is_missing(bucket: Bucket, tmp_path: Path) -> None:
    """A segment that is gone from the bucket is named, from the bucket alone."""
    pins = ["--pins", str(tmp_path / "pins.json")]
    assert "segment 2 is missing" not in from_bucket(bucket, "verify", *pins).stdout
    bucket.delete(next(entry.key for entry in bucket.list("host=") if entry.key.endswith("000000000002.seg")))
    assert "segment 2 is missing" in from_bucket(bucket, "verify", *pins).stdout


def test_verify_takes_a_url_for_a_bucket(bucket: Bucket, tmp_path: Path, capd: Capd) -> None:
    """A URL means the bucket, as --bucket does; two buckets at once are refused."""
    place, pins = (tmp_path / "bucket").as_uri(), ["--pins", str(tmp_path / "pins.json")]
    done = capd("verify", place, "--json", *pins)
    assert json.loads(from_bucket(bucket, "verify", "--json", *pins).stdout)["hosts"] == json.loads(done.stdout)["hosts"] != []
    assert isinstance(capd("verify", place, "--bucket", "s3://another").exception, CorrectedUsageError)


@pytest.mark.parametrize("by_path", [False, True])
def test_verify_misses_a_host_that_is_gone_from_the_bucket(
    bucket: Bucket, recorded: Recording, tmp_path: Path, by_path: bool
) -> None:
    """Who saw a host in a bucket says when all of it is gone from there, also of a bucket that is given as a directory."""
    directory, pins = tmp_path / "bucket", ["--pins", str(tmp_path / "pins.json")]
    shutil.copytree(recorded.state_dir / "keys", directory / f"host={HOST}" / "keys", ignore=lambda *_: ["host.key"])
    shutil.copytree(directory / f"host={HOST}", directory / f"host={UUID(int=2)}")  # another, of which this does not ask

    def verify() -> Result:
        if not by_path:
            return from_bucket(bucket, "verify", *pins)
        return CliRunner().invoke(VERBS["verify"], [str(directory), *pins], standalone_mode=False)

    verify()
    for folder in list(directory.rglob(f"host={HOST}")):
        shutil.rmtree(folder)
    assert "nothing of this host is here any more" in verify().stdout


def test_verify_does_not_call_nothing_whole(tmp_path: Path) -> None:
    """A bucket, or a prefix of one, in which there is nothing is more likely the wrong one than whole."""
    done = from_bucket(Bucket.open(str(tmp_path)), "verify", "--pins", str(tmp_path / "pins.json"))
    assert isinstance(done.exception, NothingRecordedError)


@pytest.mark.parametrize("arguments", [["--records"], ["0197f3a4"]])
def test_verify_says_what_a_bucket_is_not_asked(bucket: Bucket, arguments: list[str]) -> None:
    """What needs the files themselves is refused, not left out."""
    assert isinstance(from_bucket(bucket, "verify", *arguments).exception, CorrectedUsageError)


def test_a_bucket_is_not_followed(bucket: Bucket) -> None:
    """`--follow` says where to do that instead."""
    session = json.loads(from_bucket(bucket, "sessions", "--json").stdout)[0]["session"]
    assert isinstance(from_bucket(bucket, "replay", session, "--follow").exception, FollowBucketError)


def test_two_places_are_one_too_many(bucket: Bucket) -> None:
    """`--bucket` and `--state-dir` together are refused."""
    assert isinstance(from_bucket(bucket, "sessions", "--state-dir", "/tmp").exception, CorrectedUsageError)


def test_a_bucket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A directory that does not exist is no empty fleet."""
    missing = Bucket.open(str(tmp_path / "nowhere"))
    assert isinstance(from_bucket(missing, "sessions").exception, BucketError)


def test_an_empty_bucket_has_no_sessions(tmp_path: Path) -> None:
    """Before anything was shipped the lists are empty."""
    done = from_bucket(Bucket.open(str(tmp_path)), "sessions", "--json")
    assert ("[]", False) == (done.stdout.strip(), "catalogue" in done.stderr)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("sessions", ["--target", "nowhere"]),
        ("search", ["never said"]),
        ("show", ["0197f3a4"]),
        ("export", ["0197f3a4"]),
        ("runs", ["--since", "2027-01-01T00:00:00Z"]),
    ],
)
def test_who_finds_nothing_is_told_what_was_not_looked_at(bucket: Bucket, verb: str, arguments: list[str]) -> None:
    """A host that ships and writes no catalogue is named, and so is that the newest may not be in it yet."""
    other = UUID(int=7)
    for said, expected in (
        (False, ""),
        (True, f"of host={other} the catalogue has nothing of 2026-11-22, when it shipped last"),
    ):
        if said:
            bucket.create(f"host={other}/date=2026-11-22/{1:012d}.seg", b"")
        done = from_bucket(bucket, verb, *arguments)
        told = f"{done.stderr}{done.exception or ''}"
        assert "may not be in the catalogue yet" in told
        assert said is ("when it shipped last" in told)
        assert expected in told


def test_what_is_encrypted_is_searched_in_a_copy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """No identity makes a catalogue say what is not in it: the error names the way, which is another one than on a host."""
    monkeypatch.setattr(Fleet, "withholds", True)
    said = from_bucket(bucket, "search", "never said", "--limit", "1").stderr
    assert ("capd export ID --bucket URL" in said, "here or where" in said) == (True, False)


def test_a_bundle_is_the_same_from_the_bucket(capd: Capd, bucket: Bucket, recorded: Recording, tmp_path: Path) -> None:
    """Evidence, page, forms and rows of a run come out of the bucket as out of the directory, and verify as whole."""
    key = next((recorded.state_dir / "keys").glob("*.pub"))
    header = next(entry.key for entry in bucket.list("host=")).split("/")[0]
    bucket.create(f"{header}/keys/{key.name}", key)
    places = [tmp_path / "from bucket", tmp_path / "from directory"]
    assert from_bucket(bucket, "export", "nightly", "-o", str(places[0])).exception is None
    assert capd("export", "nightly", "-o", str(places[1])).exception is None
    contents = [
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in places
    ]
    for content in contents:
        assert content.pop("manifest.json")
    assert contents[0].keys() == contents[1].keys()
    assert [] == [name for name in contents[0] if contents[0][name] != contents[1][name] and not name.endswith(".parquet")]
    assert json.loads(capd("verify", str(places[0]), "--json").stdout)["verdict"] == "whole"
    bucket.delete(next(entry.key for entry in bucket.list("host=") if entry.key.endswith("000000000002.seg")))
    assert "segments 2 are not where" in from_bucket(bucket, "export", "nightly", "-o", str(tmp_path / "less")).stderr
