"""Going again the way that a dead recorder went, where a power cut took some of it: nothing is recorded twice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from pyrage import x25519

from capd.daemon import recorder as recorder_module
from capd.daemon.configuration import Configuration, EncryptionSection
from capd.daemon.recorder import Recorder
from capd.daemon.recording_policy import RecordingSection
from capd.recording.age import Identities, NoKeys
from capd.recording.index import Index
from capd.recording.journal import Block, JournalWriter
from capd.recording.journal.block import file_path
from capd.recording.journal.numbering import reserve
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from tests.assembly.test_snapshot import http_events
from tests.assembly.world import BOOT, HOST, MS, Daemon, closed, opened

_NO_KEYS = NoKeys()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """Give an instance whose directories are there, and recorders that remember nothing until they are stopped."""
    monkeypatch.setattr(recorder_module, "MEMORY_SHARE", 10**9)
    made = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    for path in (made.recorder_dir, made.segments_dir, made.index_dir, made.recorder_runtime_dir, made.journal_dir):
        path.mkdir(parents=True)
    return made


def put(settings: Configuration, *cycles: list[Block]) -> int:
    """Let one start of a daemon write blocks; give its file's number."""
    with JournalWriter(settings.journal_dir, number_min=0) as writer:
        number = writer.position.file
        for block in (block for blocks in cycles for block in blocks):
            stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": block.realtime_ns}
            writer.append(block.source, block.payload, count=block.count, **stamps)
    return number


def seal(made: Recorder) -> None:
    """Let a recorder take and seal all that is there, and remember nothing."""
    while cycle := made._cycles.next() or made._cycles.rest():
        made._take(cycle)
    made._flush()
    path = made._writer.seal({})
    if path is not None:
        made._index.segment(path)


def killed(settings: Configuration) -> None:
    """Let a recorder take and seal all that is there, and die without remembering anything."""
    seal(Recorder(settings, host=HOST, user="test"))


def ended(settings: Configuration) -> None:
    """Let a recorder take all that is there and end."""
    made = Recorder(settings, host=HOST, user="test")
    made.stop()
    made.run()


def release(settings: Configuration) -> None:
    """Have the first segment's local copy go, as a shipper does."""
    bucket = settings.state_dir / "bucket"
    bucket.mkdir()
    first = min(settings.segments_dir.glob("*.seg"))
    first.rename(bucket / first.name)


def recorded(settings: Configuration, keys: Keys = _NO_KEYS) -> list[Record]:
    """Give all records in segments, here and released, in order."""
    found: list[Record] = []
    for path in sorted(settings.state_dir.rglob("*.seg"), key=lambda path: path.name):
        with SegmentReader(path, keys=keys) as reader:
            found += reader.records()
    return found


def talk(daemon: Daemon, begin: int, socket: int) -> list[list[Block]]:
    """Give the cycles of a conversation that goes on."""
    events, _ = http_events(begin, socket)
    return [daemon.cycle(begin, control=[opened(begin - MS, socket)]), daemon.cycle(begin + 5 * MS, data=events)]


def judge(settings: Configuration) -> None:
    """Demand that no message is there twice, and that the index has those sessions that are recorded."""
    records = recorded(settings)
    messages = Counter((record.session, record.body["ordinal"]) for record in records if record.kind is Kind.MESSAGE)
    assert messages
    assert {1} == set(messages.values())
    with Index.open(settings.index_file, readonly=True) as index:
        listed = {row.session: row.messages for row in index.sessions(limit=None)}
    opened_ones = {record.session for record in records if record.kind is Kind.OPEN}
    counts = Counter(session for session, _ in messages)
    assert {session: counts[session] for session in opened_ones} == listed


def named(records: list[Record], name: str) -> list[Record]:
    """Give the markers of a name."""
    return [record for record in records if record.kind is Kind.MARKER and record.body.get("name") == name]


def empty(path: Path) -> None:
    """Lose what is in a file, as a power cut does."""
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [empty, Path.unlink])
def test_who_began_anew_is_followed(settings: Configuration, lose: Callable[[Path], None]) -> None:
    """After a recorder that had to begin anew, and died, the next one goes the way from there, as that recorder did."""
    daemon = Daemon()
    put(settings, daemon.started(), *talk(daemon, 10 * MS, 1))
    second = put(settings, daemon.cycle(30 * MS, data=http_events(30 * MS, 2)[0]))
    killed(settings)
    lose(file_path(settings.journal_dir, second))
    put(settings, *talk(daemon, 50 * MS, 3))
    killed(settings)
    assert 1 == len(named(recorded(settings), "begun_anew"))
    put(settings, *talk(daemon, 70 * MS, 4))
    ended(settings)
    judge(settings)
    assert 1 == len(named(recorded(settings), "begun_anew"))
    abandoned = [record for record in recorded(settings) if record.body.get("state") == "abandoned"]
    assert 2 == len(abandoned)


@pytest.mark.parametrize("waited", [False, True])
def test_a_first_file_that_never_was_is_not_missed(settings: Configuration, *, waited: bool) -> None:
    """Where a daemon died before it made its first file, a recorder is followed that died before it remembered any of it."""
    daemon = Daemon()
    reserve(settings.journal_dir, 0, group=None)
    made = Recorder(settings, host=HOST, user="test")
    if waited:
        made._remember()
    first = put(settings, daemon.started(), *talk(daemon, 10 * MS, 1))
    assert first > 0
    seal(made)
    killed(settings)
    events, ends = http_events(10 * MS, 1)
    put(settings, daemon.cycle(30 * MS, data=events), daemon.cycle(50 * MS, control=[closed(50 * MS, 1, *ends)]))
    ended(settings)
    judge(settings)
    records = recorded(settings)
    assert [[first, 0]] == [marker.body["at"] for marker in named(records, "begun")]
    assert [] == named(records, "begun_anew")
    assert 1 == len({record.session for record in records if record.kind is Kind.OPEN})
    assert ["closed"] == [record.body["state"] for record in records if record.kind is Kind.CLOSE]


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("lose", [empty, Path.unlink])
def test_what_the_recording_began_with_has_to_be_there(
    settings: Configuration, lose: Callable[[Path], None], *, skipped: bool
) -> None:
    """Where the power took the file with which the recording began, the first or not, the next start is not taken for it."""
    daemon = Daemon()
    if skipped:
        reserve(settings.journal_dir, 0, group=None)
    first = put(settings, daemon.started(), *talk(daemon, 10 * MS, 1))
    put(settings, *talk(daemon, 30 * MS, 2))
    killed(settings)
    assert skipped == len(named(recorded(settings), "begun"))
    lose(file_path(settings.journal_dir, first))
    put(settings, *talk(daemon, 50 * MS, 3))
    ended(settings)
    judge(settings)
    assert 1 == len(named(recorded(settings), "begun_anew"))


def test_the_first_block_of_a_start_has_to_be_there(settings: Configuration) -> None:
    """Where the first file is empty now, and the start goes on in the next, its beginning is missing."""
    daemon = Daemon()
    with JournalWriter(settings.journal_dir, file_bytes_max=1) as writer:
        for blocks in [daemon.started(), *talk(daemon, 10 * MS, 1), *talk(daemon, 30 * MS, 2)]:
            for block in blocks:
                stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": block.realtime_ns}
                writer.append(block.source, block.payload, count=block.count, **stamps)
    killed(settings)
    empty(file_path(settings.journal_dir, 0))
    ended(settings)
    judge(settings)
    assert 1 == len(named(recorded(settings), "begun_anew"))


def test_who_does_not_know_the_boot_does_not_guess_it(settings: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no start was told, sessions have the same ids after a reboot, and the next start of a daemon ends them."""
    daemon = Daemon()
    put(settings, *talk(daemon, 10 * MS, 1))
    killed(settings)
    monkeypatch.setattr("capd.daemon.state_directory.boot_id", lambda: UUID(int=77))
    put(settings, daemon.started(), *talk(daemon, 50 * MS, 1))
    ended(settings)
    judge(settings)
    records = recorded(settings)
    boots = [record.body["boot"] for record in records if record.kind is Kind.OPEN]
    assert bytes(16) == boots[0]
    assert boots[-1] != bytes(16)
    assert ["abandoned"] == [record.body["state"] for record in records if record.kind is Kind.CLOSE]


LEVELS = ("full", "masked", "metadata", "off")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("first", "second", "third"), [(3, 4, 6), (4, 7, 12), (5, 9, 14), (4, 12, 15), (6, 13, 19), (9, 16, 23)]
)
def test_a_decoder_that_finds_its_place_on_the_way_repeats_nothing(
    settings: Configuration, level: str, first: int, second: int, third: int
) -> None:
    """Where a decoder cannot be brought to where it was, each byte is there once or told as missing, and so are messages."""
    settings = settings.model_copy(update={"recording": RecordingSection.model_validate({"level": level})})
    daemon = Daemon()
    events, ends = http_events(10 * MS, 1)
    put(settings, daemon.started(), daemon.cycle(9 * MS, control=[opened(8 * MS, 1)], data=events[:2]))
    made = Recorder(settings, host=HOST, user="test")
    for number, (begin, end) in enumerate(pairwise([2, first, second, third])):
        seal(made)
        if number == 2:
            made._remember()
        put(settings, daemon.cycle((20 + number) * MS, data=events[begin:end]))
    seal(made)
    release(settings)
    put(settings, daemon.cycle(40 * MS, data=events[third:]))
    killed(settings)
    put(settings, daemon.cycle(50 * MS, control=[closed(50 * MS, 1, *ends)]))
    ended(settings)
    records = [record for record in recorded(settings) if record.session != HOST]
    messages = Counter(cast("int", record.body["ordinal"]) for record in records if record.kind is Kind.MESSAGE)
    assert list(range(len(messages))) == sorted(messages)
    assert set(messages.values()) <= {1}
    (close,) = (record.body for record in records if record.kind is Kind.CLOSE)
    assert {"request": ends[0], "response": ends[1]} == close["bytes"]
    reached = [0, 0]
    for record in records:
        if record.kind in (Kind.DATA, Kind.GAP) and record.direction is not None:
            assert reached[record.direction] == record.body["position"]
            payload = record.body.get("payload", b"")
            assert isinstance(payload, bytes)
            length = record.body.get("length", len(payload))
            assert isinstance(length, int)
            reached[record.direction] += length
    assert [*ends] == reached if level != "off" else [0, 0] == reached
    missing = [record.body for record in records if record.kind is Kind.GAP]
    assert ("partial" if missing else "complete") == cast("dict[str, str]", close["completeness"])["verdict"]
    assert level in {"masked", "metadata"} or not missing


@pytest.mark.parametrize("reboot", [False, True])
def test_the_boot_is_known_until_a_reboot(settings: Configuration, reboot: bool) -> None:
    """Who lost the snapshot knows of which boot the journal is, and so gives sessions the same ids; after a reboot not."""
    daemon = Daemon()
    put(settings, daemon.started(), *talk(daemon, 10 * MS, 1))
    killed(settings)
    file_path(settings.journal_dir, 0).unlink()
    if reboot:
        shutil.rmtree(settings.runtime_dir)
        settings.recorder_runtime_dir.mkdir(parents=True)
    put(settings, *talk(daemon, 50 * MS, 3))
    killed(settings)
    put(settings, *talk(daemon, 70 * MS, 4))
    ended(settings)
    judge(settings)
    (begun,) = named(recorded(settings), "begun_anew")
    boot = bytes(16) if reboot else BOOT.bytes
    assert boot == begun.body["boot"]
    opens = {record.session: record.body["boot"] for record in recorded(settings) if record.kind is Kind.OPEN}
    assert [BOOT.bytes, boot, boot] == list(opens.values())


def test_steps_that_cannot_be_read_are_not_guessed(settings: Configuration) -> None:
    """Where a power cut took the keys of segments and not the journal, the way in them is not gone without its steps."""
    identity = x25519.Identity.generate()
    encryption = EncryptionSection(recipients=(str(identity.to_public()),))
    settings = settings.model_copy(update={"encryption": encryption})
    daemon = Daemon()
    put(settings, daemon.started(), *talk(daemon, 10 * MS, 1))
    killed(settings)
    shutil.rmtree(settings.runtime_dir)
    settings.recorder_runtime_dir.mkdir(parents=True)
    put(settings, *talk(daemon, 50 * MS, 3))
    ended(settings)
    records = recorded(settings, Identities([identity], "the test"))
    assert 1 == len(named(records, "begun_anew"))
    messages = Counter((record.session, record.body["ordinal"]) for record in records if record.kind is Kind.MESSAGE)
    assert {1} == set(messages.values())
