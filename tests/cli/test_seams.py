"""What was recorded and is not here any more: no reader takes the rest for all of it, whatever the verdict was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import replace

import pytest

from capd.cli import replay_forms
from capd.cli.line import Line
from capd.cli.playback import Choice
from capd.cli.seams import GONE, Seams
from capd.recording.archive import Archive
from capd.recording.holes import expired
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.rows import SessionRow
from tests.cli.conftest import Capd
from tests.cli.recorded import REQUEST, RESPONSE, Conversation, Recording
from tests.cli.spoken import over_http
from tests.cli.test_export import long_one


@pytest.fixture
def parted(recording: Recording) -> Recording:
    """Give a recording of one session in three segments, the second of which somebody removed."""
    records = long_one().records
    cut = len(records) // 3
    for part in (records[:cut], records[cut : 2 * cut], records[2 * cut :]):
        recording.write(part)
    (recording.state_dir / "segments" / "000000000002.seg").unlink()
    return recording


@pytest.mark.parametrize("indexed", [True, False])
def test_a_segment_that_was_removed_shows_where_it_was(capd: Capd, parted: Recording, indexed: bool) -> None:
    """Transcript, summary and exports say what is missing, though an index that was made since knows nothing of it."""
    if not indexed:
        parted.close()
        shutil.rmtree(parted.state_dir / "index")
    session = str(long_one().id)
    words = "segment 2 is missing" if indexed else GONE
    for verb in ("replay", "show"):
        done = capd(verb, session)
        assert (1, True) == (done.return_value, words in done.stdout)
        assert "NOT WHOLE HERE" in done.stdout
    assert json.loads(capd("show", session, "--json").stdout)["whole_here"] is False
    assert words in capd("export", session, "--format", "har", "-o", "-").stdout
    assert words in capd("export", session, "--format", "page", "-o", "-").stdout
    done = capd("replay", session, "--format", "json")
    assert words in done.stdout
    bodies = [json.loads(told)["body"] for told in done.stdout.splitlines()]
    assert [2] * indexed == [body["missing_segment"] for body in bodies if "missing_segment" in body]


FORMS = [
    ["replay", "--format", "json"],
    ["replay", "--format", "raw", "--direction", "response"],
    ["replay", "--format", "har"],
    ["export", "--format", "har", "-o", "-"],
    ["export", "--format", "page", "-o", "-"],
]


@pytest.mark.parametrize(("verb", "arguments"), [(form[0], form[1:]) for form in FORMS])
def test_a_script_learns_that_not_all_is_here(capd: Capd, parted: Recording, verb: str, arguments: list[str]) -> None:
    """Whatever the form, the exit status says it, and standard error why."""
    done = capd(verb, str(long_one().id), *arguments)
    assert (1, True) == (done.return_value, "NOT WHOLE HERE" in done.stderr)
    parted.write(over_http().records)
    assert 0 == capd(verb, str(over_http().id), *arguments).return_value


def change_index(recording: Recording, *statements: str) -> None:
    """Do what anybody can who may write the index."""
    recording.close()
    database = sqlite3.connect(recording.state_dir / "index" / "capd.db")
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_an_index_that_makes_a_session_better_is_not_believed(capd: Capd, recording: Recording) -> None:
    """The verdict that counts is signed with the records."""
    records = long_one().records
    assert records[-1].kind is Kind.CLOSE
    lossy = {**records[-1].body, "completeness": {"verdict": "partial", "reasons": ["lost"]}}
    recording.write([*records[:-1], replace(records[-1], body=lossy)])
    session = str(long_one().id)
    assert 0 == capd("replay", session).return_value
    change_index(recording, "UPDATE sessions SET verdict = 'complete', reasons = '[]'")
    for verb in ("replay", "show"):
        done = capd(verb, session)
        assert (1, True) == (done.return_value, "NOT AS RECORDED" in done.stdout)
        assert "PARTIAL  something is missing:\n  - lost" in done.stdout.partition("NOT AS RECORDED")[2]
    told = json.loads(capd("show", session, "--json").stdout)
    assert (False, "partial", ["lost"]) == (
        told["whole_here"],
        *(told["completeness"][word] for word in ("verdict", "reasons")),
    )


@pytest.mark.parametrize("gone", [[2], [3], [2, 3]])
def test_an_index_cannot_hide_that_the_end_is_gone(capd: Capd, recording: Recording, gone: list[int]) -> None:
    """Segments that were removed together with what an index knew of them are missed at the end, or with the end."""
    records = long_one().records
    cut = len(records) // 2
    for part in (records[:cut], records[cut:-1], records[-1:]):
        recording.write(part)
    for number in gone:
        (recording.state_dir / "segments" / f"{number:012d}.seg").unlink()
    change_index(recording, "DELETE FROM session_segments WHERE sequence > 1")
    done = capd("replay", str(long_one().id))
    assert (1, True) == (done.return_value, "NOT WHOLE HERE" in done.stdout)


def test_what_ends_after_it_was_read_is_not_called_complete(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict below a transcript is on what stands above it."""
    conversation = long_one()
    recording.write(conversation.records[:-1])
    shown = recording.index.session(conversation.id)
    monkeypatch.setattr(replay_forms, "_play", lambda *_, **__: recording.write(conversation.records[-1:]))
    told = transcript_of(recording, shown, monkeypatch)
    assert any(words.startswith("STILL OPEN") for words in told)
    assert not any(words.startswith("COMPLETE") for words in told)


def test_what_is_found_while_it_is_read_is_no_contradiction(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second end that makes a session worse reaches records and index one after the other."""
    conversation = long_one()
    recording.write(conversation.records)
    shown = recording.index.session(conversation.id)
    conversation.close("partial", ["found later"])
    recording.write(conversation.records[-1:])
    assert not any("NOT AS RECORDED" in words for words in transcript_of(recording, shown, monkeypatch))


@pytest.mark.parametrize("kept", [slice(0, 2), slice(2, None)])
def test_what_expired_is_not_missed(kept: slice) -> None:
    """Of a session that was complete a policy let the beginning go, or the end: that is told, and is no hole."""
    records = long_one().records
    half = len(records) // 2
    parts = [records[:half], [expired(long_one().id, 1, "gone by policy")], records[half:]]
    row = SessionRow(session=long_one().id, ended_ns=1, verdict="complete")
    seams = Seams(row)
    told = list(seams.follow(record for part in (parts[:2] if kept.stop else parts[1:]) for record in part))
    assert (True, False) == (seams.sound, any(record.body.get("reason") == GONE for record in told))


def transcript_of(recording: Recording, shown: SessionRow, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the lines of a transcript of what an index had at first."""
    written: list[str] = []

    class Paper:
        def write(self, lines: Iterable[Line]) -> None:
            written.extend("".join(span.text for span in one) for one in lines)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(replay_forms, "standard_output", Paper)
    with Archive(recording.state_dir) as archive:
        replay_forms.write_text(archive, shown, replay_forms.Request(choice=Choice()))
    return written


def test_a_recording_that_is_whole_has_no_seam(capd: Capd, recorded: Recording) -> None:
    """Of what is all here nothing is said besides the verdict."""
    for verb in ("replay", "show"):
        told = capd(verb, str(over_http().id)).stdout
        assert "COMPLETE" in told
        assert "NOT WHOLE" not in told
    lossy = Conversation(b"lossy", port=9)
    lossy.say(REQUEST, b"a" * 10)
    lossy.lose(REQUEST, 5)
    lossy.say(REQUEST, b"b")
    assert (lossy.records, False) == followed(lossy.records)


def followed(records: Iterable[Record]) -> tuple[list[Record], bool]:
    """Give what is made of records, and whether something is missing."""
    seams = Seams()
    return list(seams.follow(records)), seams.missing


def moved(position: int, payload: bytes = b"12345", direction: Direction = REQUEST, **more: Value) -> Record:
    """Give a piece of a stream."""
    return Record(Kind.DATA, long_one().id, 1, direction, {"position": position, "payload": payload, **more})


def gap(position: int, length: int | None, direction: Direction | None = REQUEST, reason: str = "ring full") -> Record:
    """Give a gap."""
    body: dict[str, Value] = {"position": position, "length": length, "reason": reason}
    return Record(Kind.GAP, long_one().id, 1, direction, body)


@pytest.mark.parametrize(
    ("records", "missing"),
    [
        ([moved(0), moved(5)], []),
        ([moved(0), moved(7)], [(5, 2)]),
        ([moved(3)], [(0, 3)]),
        ([Record(Kind.OPEN, long_one().id, 1, None, {"mid_stream": True}), moved(3), moved(9)], [(8, 1)]),
        ([moved(0), moved(0), moved(5)], []),
        ([moved(0), moved(2), moved(8)], [(7, 1)]),
        ([moved(0), gap(5, 3), moved(8)], []),
        ([moved(0), gap(5, None), moved(80), moved(86)], [(85, 1)]),
        ([moved(0), gap(0, None, None), moved(80)], []),
        ([moved(0), moved(0, direction=RESPONSE), moved(5), moved(6, direction=RESPONSE)], [(5, 1)]),
        ([moved(0), moved(90, layer="wire"), moved(5)], []),
        ([moved(0, b"", length=4), moved(4, b"", length=6), moved(10)], []),
    ],
)
def test_positions_tell_what_is_missing(records: list[Record], missing: list[tuple[int, int]]) -> None:
    """A jump forward is a gap of so many bytes, unless a record says so itself; what is told twice is none."""
    found, told = followed(records)
    gaps = [(one.body["position"], one.body["length"]) for one in found if one.body.get("reason") == GONE]
    assert (missing, bool(missing)) == (gaps, told)
    assert records == [one for one in found if one.body.get("reason") != GONE]
