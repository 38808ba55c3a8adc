"""`capd export`: files, bundles, and what `capd verify` says of a bundle."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from capd.cli.export import ExportTargetError
from capd.cli.forms.writing import SUFFIXES
from capd.cli.options import CorrectedUsageError
from capd.cli.replay import FORMS
from capd.recording.bundle import BundleError, read_manifest
from capd.recording.errors import UnknownSessionError
from capd.recording.heads import HeadLog
from capd.recording.index import Index
from capd.recording.keys import HostKey
from capd.recording.record import Kind, Value
from capd.recording.segment import SegmentReader
from tests.cli.conftest import Capd
from tests.cli.recorded import HOST, REQUEST, RESPONSE, RUN, START_NS, Conversation, Recording
from tests.cli.spoken import over_http, over_postgresql
from tests.cli.test_forms import SECRET, form_of, with_secrets


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Give where a bundle goes."""
    return tmp_path / "bundle"


def long_one() -> Conversation:
    """Give a session that goes over the segments 3, 5 and 7."""
    said = Conversation(b"long", port=80, started_ns=START_NS + 2_000_000_000)
    for number in range(3):
        said.say(REQUEST, b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    return said.close()


@pytest.fixture
def scattered(recorded: Recording) -> Recording:
    """Give a recording in which a session's segments have others between them, with heads."""
    records = long_one().records
    cut = len(records) // 3
    for number, part in enumerate((records[:cut], records[cut : 2 * cut], records[2 * cut :])):
        recorded.write(part)
        recorded.write(Conversation(b"other%d" % number, started_ns=START_NS + 3_000_000_000).close().records)
    segments = recorded.state_dir / "segments"
    log = HeadLog(segments, host=HOST, signer=HostKey.load(recorded.state_dir / "keys"))
    for sequence in (1, 8, 8):
        with SegmentReader(segments / f"{sequence:012d}.seg") as reader:
            log.write(START_NS, sequence, reader.footer_digest)
    return recorded


def verified(capd: Capd, target: Path, *arguments: str) -> dict[str, Any]:
    """Give what verify says of a bundle."""
    told = json.loads(capd("verify", str(target), "--json", *arguments).stdout)
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize(("form", "said"), [("har", over_http), ("sql", over_postgresql), ("pcap", over_postgresql)])
def test_a_file_is_what_the_form_gives(
    capd: Capd, recorded: Recording, tmp_path: Path, form: str, said: Callable[[], Conversation]
) -> None:
    """From a state directory, into a file, to standard output, and by replay: the same bytes."""
    done = capd("export", str(said().id), "--format", form, "-o", str(tmp_path / "file"))
    assert done.exception is None
    content = (tmp_path / "file").read_bytes()
    assert content == form_of(form, said())
    assert content == capd("export", str(said().id), "--format", form, "-o", "-").stdout_bytes
    if form in FORMS:
        assert content == capd("replay", str(said().id), "--format", form).stdout_bytes


def test_nothing_is_overwritten(capd: Capd, recorded: Recording, tmp_path: Path) -> None:
    """A file or directory that exists is refused and stays, and a failed export leaves nothing."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for arguments in (["--format", "har"], []):
        assert isinstance(capd("export", str(over_http().id), "-o", str(taken), *arguments).exception, ExportTargetError)
    assert taken.read_text() == "mine"
    assert capd("export", str(over_postgresql().id), "--format", "har", "-o", str(tmp_path / "no")).exception is not None
    assert [] == [path for path in tmp_path.iterdir() if path.name.startswith((".", "no"))]


def test_what_cannot_be_exported_is_said(capd: Capd, recorded: Recording) -> None:
    """An unknown id, a bundle to standard output, and options that a form does not take are errors."""
    assert isinstance(capd("export", "nobody", "-o", "x").exception, UnknownSessionError)
    assert isinstance(capd("export", str(RUN), "-o", "-").exception, CorrectedUsageError)
    for option in (["--direction", "request"], ["--follow"], ["--grep", "x"], ["--at", "1"]):
        refused = capd("replay", str(over_http().id), "--format", "har", *option)
        assert isinstance(refused.exception, CorrectedUsageError)


def test_a_bundle_of_a_run_has_all_of_it(capd: Capd, recorded: Recording, target: Path) -> None:
    """Segments, keys, rows, a page and a file of each form that fits; replay reads it, and verify calls it a whole excerpt."""
    done = capd("export", "nightly", "-o", str(target))
    assert done.exception is None
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    http, database = str(over_http().id), str(over_postgresql().id)
    assert {f"sessions/{http}.har", f"sessions/{http}.pcapng", f"sessions/{database}.sql"} < set(names)
    assert {"replay.html", "manifest.json", "catalogue/messages.json", "segments/000000000001.seg"} < set(names)
    assert 1 == sum(name.startswith("keys/") and name.endswith(".pub") for name in names)
    assert not any("host.key" in name for name in names)
    assert 0o700 == target.stat().st_mode & 0o777
    manifest = json.loads((target / "manifest.json").read_text())
    assert (manifest["runs"], manifest["sessions"], manifest["segments"]) == ([str(RUN)], [http, database], [1, 2])
    assert sorted(one["path"] for one in manifest["files"]) == [name for name in names if name != "manifest.json"]
    for session in (http, database):
        assert capd("replay", session, state_dir=target).stdout == capd("replay", session).stdout
    told = verified(capd, target)
    assert (told["verdict"], told["missing"], told["excerpt"]["notes"]) == ("whole", [], [])
    assert "EXCERPT  2 sessions" in capd("verify", str(target)).stdout


def test_an_excerpt_needs_only_its_own_segments(capd: Capd, scattered: Recording, target: Path) -> None:
    """A session in some of a host's segments verifies as whole, also by who has seen the whole recording."""
    assert "whole" == verified(capd, scattered.state_dir)["verdict"]
    assert capd("export", str(long_one().id), "-o", str(target)).exception is None
    manifest = read_manifest(target)
    assert manifest is not None
    assert [3, 5, 7] == list(manifest.segments)
    assert 2 == len(list((target / "segments").glob("*.head")))
    assert "whole" == verified(capd, target)["verdict"]
    assert "whole" == verified(capd, target, "--records")["verdict"]


def tamper_manifest(target: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a bundle says of itself."""
    told = json.loads((target / "manifest.json").read_text())
    change(told)
    (target / "manifest.json").write_text(json.dumps(told))


def drop(target: Path, sequence: int) -> None:
    """Take a segment out of a bundle as one who knows how: also out of its manifest."""
    name = f"segments/{sequence:012d}.seg"
    (target / name).unlink()

    def change(told: dict[str, Any]) -> None:
        told["segments"].remove(sequence)
        told["files"] = [one for one in told["files"] if one["path"] != name]

    tamper_manifest(target, change)


@pytest.mark.parametrize("sequence", [3, 5, 7])
def test_a_segment_that_was_taken_out_shows(capd: Capd, scattered: Recording, target: Path, sequence: int) -> None:
    """Its beginning, its middle, or its sums: a session that lacks a segment is not whole, whatever the manifest says.

    At the end only the end is missing, which a session that was open when it was exported lacks too: that is said.
    """
    capd("export", str(long_one().id), "-o", str(target))
    drop(target, sequence)
    told = verified(capd, target)
    if sequence == 7:
        assert ["it had not ended when this was exported"] == [one.partition(": ")[2] for one in told["excerpt"]["notes"]]
    else:
        assert "damaged" == told["verdict"]
        assert any(("beginning" if sequence == 3 else "jumps") in one for one in told["missing"])


def test_an_index_in_a_bundle_counts_for_nothing(capd: Capd, scattered: Recording, target: Path) -> None:
    """An index that whoever handed the bundle on put into it and its manifest explains no missing segment."""
    said = Conversation(b"raw", port=9, started_ns=START_NS + 4_000_000_000)
    for number in range(3):
        said.say(REQUEST, b"\x00\x01%d" % number)
    records = said.close().records
    for number, record in enumerate(records[:4]):
        scattered.write([record, *([] if number < 3 else records[4:])])
    capd("export", str(said.id), "-o", str(target))
    manifest = read_manifest(target)
    assert manifest is not None
    assert "whole" == verified(capd, target)["verdict"]
    drop(target, manifest.segments[2])
    shutil.copytree(scattered.state_dir / "index", target / "index")
    with Index.open(target / "index" / "capd.db") as index:
        index.upsert_session(replace(index.session(said.id), protocol="made-up"))
    added = [path.relative_to(target).as_posix() for path in (target / "index").iterdir()]
    tamper_manifest(target, lambda told: told["files"].extend(entry(target, name) for name in added))
    told = verified(capd, target)
    assert ("damaged", []) == (told["verdict"], told["excerpt"]["notes"])
    assert any("jumps from byte" in words for words in told["missing"])
    assert "made-up" not in capd("sessions", state_dir=target).stdout


def entry(target: Path, name: str) -> dict[str, Any]:
    """Give what a manifest says of a file."""
    content = (target / name).read_bytes()
    return {"path": name, "size": len(content), "sha256": sha256(content).hexdigest()}


def test_a_changed_file_of_a_bundle_is_named(capd: Capd, recorded: Recording, target: Path) -> None:
    """A changed page, a missing form, a flipped bit of a segment, something added: each is told for what it is."""
    capd("export", "nightly", "-o", str(target))
    (target / "notes.txt").write_text("mine")
    assert verified(capd, target)["excerpt"]["notes"] == ["notes.txt is not in the manifest"]
    assert "whole" == verified(capd, target)["verdict"]
    with (target / "replay.html").open("ab") as file:
        file.write(b" ")
    next((target / "sessions").glob("*.sql")).unlink()
    segment = target / "segments" / "000000000001.seg"
    content = bytearray(segment.read_bytes())
    content[400] ^= 1
    segment.write_bytes(content)
    told = verified(capd, target)
    assert told["verdict"] == "damaged"
    words = "\n".join(told["missing"])
    assert "replay.html is another one" in words
    assert ".sql is missing" in words
    assert any(one["fault"] == "altered" for one in told["segments"][0]["findings"])


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(capd_bundle=2),
        lambda told: told.update(files=[{"path": "../x", "size": 1, "sha256": ""}]),
        lambda told: told.update(files=[{"path": "/etc/passwd", "size": 1, "sha256": ""}]),
        lambda told: told.update(segments="x"),
        lambda told: told.update(segments=[float("inf")]),
        lambda told: told.pop("sessions"),
    ],
)
def test_a_manifest_that_is_none_is_an_error(
    capd: Capd, recorded: Recording, target: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """A manifest of another version, or one that leads out of the bundle, is refused."""
    capd("export", "nightly", "-o", str(target))
    tamper_manifest(target, change)
    assert isinstance(capd("verify", str(target)).exception, BundleError)


def test_a_manifest_makes_no_excerpt_of_what_is_none(capd: Capd, scattered: Recording, target: Path, tmp_path: Path) -> None:
    """What a bundle may lack, a host's own recording and a bucket may not: a manifest put there explains nothing away."""
    capd("export", str(long_one().id), "-o", str(target))
    gone = scattered.state_dir / "segments" / "000000000002.seg"
    gone.unlink()
    shutil.copy(target / "manifest.json", scattered.state_dir)
    config = tmp_path / "capd.toml"
    config.write_text(f'state_dir = "{scattered.state_dir}"\n')
    done = capd("verify", "--config", str(config), "--json", state_dir=None)
    told = json.loads(done.stdout)
    assert ("damaged", None, [{"first": 2, "last": 2}]) == (told["verdict"], told["excerpt"], told["hosts"][0]["missing"])
    day = tmp_path / "bucket" / f"host={HOST}" / "date=2026-11-21"
    shutil.copytree(scattered.state_dir / "segments", day)
    shutil.copytree(scattered.state_dir / "keys", day.parent / "keys", ignore=lambda *_: ["host.key"])
    shutil.copy(target / "manifest.json", tmp_path / "bucket")
    told = verified(capd, tmp_path / "bucket")
    assert ("damaged", None, [{"first": 2, "last": 2}]) == (told["verdict"], told["excerpt"], told["hosts"][0]["missing"])


def test_a_bucket_that_was_flattened_is_still_a_bucket(capd: Capd, scattered: Recording, tmp_path: Path) -> None:
    """Moved out of its folders, what a verifier saw in a directory as a bucket may not begin later, as a host's may."""
    bucket = tmp_path / "bucket"
    day = bucket / f"host={HOST}" / "date=2026-11-21"
    shutil.copytree(scattered.state_dir / "segments", day)
    shutil.copytree(scattered.state_dir / "keys", day.parent / "keys", ignore=lambda *_: ["host.key"])
    assert "whole" == verified(capd, bucket)["verdict"]
    for path in [*day.iterdir(), *(day.parent / "keys").iterdir()]:
        path.rename(bucket / path.name)
    shutil.rmtree(day.parent)
    (bucket / "000000000001.seg").unlink()
    told = verified(capd, bucket)
    assert ("damaged", [{"first": 1, "last": 1}]) == (told["verdict"], told["hosts"][0]["missing"])


def test_a_manifest_that_names_nothing_proves_nothing(capd: Capd, recorded: Recording, target: Path) -> None:
    """Without a session or run there is nothing that could be whole."""
    capd("export", "nightly", "-o", str(target))
    tamper_manifest(target, lambda told: told.update(sessions=[], runs=[]))
    assert "damaged" == verified(capd, target)["verdict"]


def test_a_segment_that_is_gone_is_told(capd: Capd, scattered: Recording, target: Path) -> None:
    """What retention took from the host is missing from the bundle, and both commands say so."""
    (scattered.state_dir / "segments" / "000000000005.seg").unlink()
    assert "segments 5 are not where" in capd("export", str(long_one().id), "-o", str(target)).stderr
    told = verified(capd, target)
    assert told["verdict"] == "damaged"
    assert "segment 5 was not to be had when this was exported" in told["missing"]


def test_what_replay_does_not_show_is_in_no_file_but_the_segments(
    capd: Capd, recording: Recording, tmp_path: Path, target: Path
) -> None:
    """Credentials are in the evidence, as recorded, and in nothing that was made of it, plain or encoded."""
    said = with_secrets()
    recording.write([record for one in said for record in one.records])
    for conversation in said:
        place = target.with_name(f"bundle-{conversation.port}")
        assert capd("export", str(conversation.id), "-o", str(place), "--full").exception is None
        needles = [SECRET.encode()[:6], SECRET.encode()[:6].hex().encode(), base64.b64encode(SECRET.encode())[:7]]
        for path in place.rglob("*"):
            if path.is_file() and path.suffix != ".seg":
                assert [] == [needle for needle in needles if needle in opened(path)]


def opened(path: Path) -> bytes:
    """Give a file's content, and of Parquet what it holds."""
    content = path.read_bytes()
    if path.suffix != ".parquet":
        return content
    parquet = pytest.importorskip("pyarrow.parquet", reason="the fleet extra is not installed")
    return json.dumps(parquet.read_table(io.BytesIO(content)).to_pylist(), default=str).encode()


def test_rows_are_those_of_the_session_alone(capd: Capd, scattered: Recording, target: Path) -> None:
    """JSON and Parquet hold the same rows, and none of a neighbour that shares a segment."""
    capd("export", str(over_http().id), "-o", str(target))
    messages = json.loads((target / "catalogue" / "messages.json").read_text())
    assert {str(over_http().id)} == {row["session"] for row in messages}
    assert 16 == len(messages)
    parquet = pytest.importorskip("pyarrow.parquet", reason="the fleet extra is not installed")
    rows = parquet.read_table(target / "catalogue" / "messages.parquet").to_pylist()
    assert [row["summary"] for row in rows] == [row["summary"] for row in messages]


def test_what_was_masked_is_told_and_not_held(capd: Capd, recording: Recording, target: Path) -> None:
    """A masked place stands in the page, the HAR and the packets as what it is."""
    said = Conversation(b"masked", port=80)
    said.say(REQUEST, b"GET / HTTP/1.1\r\nHost: h\r\nX-Token: ********\r\n\r\n")
    place: dict[str, Value] = {"layer": "application", "kind": "header", "rule": "header:x-token", "places": [[34, 8]]}
    said.add(Kind.MASKED, REQUEST, place)
    recording.write(said.close().records)
    capd("export", str(said.id), "-o", str(target))
    for name in ("replay.html", f"sessions/{said.id}.har", f"sessions/{said.id}.pcapng"):
        assert b"MASKED header 8 bytes of the request at byte 34" in (target / name).read_bytes()


def test_forms_have_their_names() -> None:
    """Every form has a suffix of its own."""
    assert len(SUFFIXES) == len(set(SUFFIXES.values()))


def test_segments_are_copied_as_they_are(capd: Capd, recorded: Recording, target: Path) -> None:
    """A segment in a bundle is the host's, byte for byte."""
    capd("export", "nightly", "-o", str(target))
    for path in (target / "segments").glob("*.seg"):
        assert path.read_bytes() == (recorded.state_dir / "segments" / path.name).read_bytes()
