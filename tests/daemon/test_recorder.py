"""The recorder as a process: journal in, recording out, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon import recorder as recorder_module
from capd.daemon import recorder_user, state_directory
from capd.daemon.configuration import Configuration
from capd.daemon.recorder import Recorder
from capd.daemon.recording_policy import RecordingSection
from capd.recording import keys
from capd.recording.age import NoKeys
from capd.recording.deletions import Deleted, Deletion
from capd.recording.durable import sync_directory
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.index import Index
from capd.recording.journal import Block, JournalWriter, Position
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from tests.assembly.test_snapshot import http_events, story
from tests.assembly.world import HOST, MS, REQUEST, RUN, Daemon, closed, executed, moved, opened, stream
from tests.daemon.conftest import ENVIRONMENT, READY_SECONDS, capd, in_time, wait_until
from tests.on_disk import content

DEATHS = 8
FULL_BYTES = 2_000
"""More than the status takes, which has to be written meanwhile, and less than what there is to record."""


@pytest.fixture
def settings(configuration: Configuration) -> Configuration:
    """Give an instance whose directories are there, as the daemon leaves them."""
    if os.geteuid() == 0:
        user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
        state_directory.prepare(configuration, user)
    else:
        for directory in (configuration.recorder_dir, configuration.segments_dir, configuration.recorder_runtime_dir):
            directory.mkdir(parents=True)
    keys.ensure(configuration.keys_dir, group=configuration.segments_dir.stat().st_gid)
    configuration.host_file.write_text(f"{HOST}\n")
    lines = f'state_dir = "{configuration.state_dir}"\nruntime_dir = "{configuration.runtime_dir}"\n'
    (configuration.state_dir / "capd.toml").write_text(lines)
    return configuration


Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(settings: Configuration) -> Iterator[Start]:
    """Give a starter of the role; what it started ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        command = capd("recorder", "--config", settings.state_dir / "capd.toml")
        started.append(subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


class Journal:
    """Writes blocks as the daemon would, readable for the recorder."""

    def __init__(self, settings: Configuration) -> None:
        group = settings.journal_dir.stat().st_gid if settings.journal_dir.exists() else None
        self._writer = JournalWriter(settings.journal_dir, group=group)

    def put(self, blocks: list[Block]) -> None:
        """Append the blocks of one cycle."""
        for block in blocks:
            stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": block.realtime_ns}
            self._writer.append(block.source, block.payload, count=block.count, **stamps)

    def position(self) -> Position:
        """Say where the next block goes."""
        return self._writer.position

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def status(settings: Configuration) -> dict[str, object]:
    """Give the role's status; empty while there is none."""
    try:
        found = json.loads(settings.recorder_status_file.read_bytes())
    except FileNotFoundError:
        return {}
    assert isinstance(found, dict)
    return found


def end(settings: Configuration, process: subprocess.Popen[bytes]) -> None:
    """Stop the role as the supervisor does, once it is there."""
    wait_until(lambda: status(settings).get("pid") == process.pid or process.poll() is not None, "the role runs")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=180)
    assert (0, b"") == (process.returncode, errors)


def recorded(settings: Configuration, opener: Keys | None = None) -> dict[UUID, list[Record]]:
    """Give all records on disk by session, in recorded order, without what tells of the recorder's own pauses."""
    found: dict[UUID, list[Record]] = {}
    for path in sorted(settings.segments_dir.glob("*.seg")):
        with SegmentReader(path, keys=opener or NoKeys()) as reader:
            for record in reader.records():
                if record.body.get("name") not in {"settled", "let_go", "parted"}:
                    found.setdefault(record.session, []).append(record)
    return found


def proven(settings: Configuration) -> HostReport:
    """Give what verification says of everything that was recorded; there must be no damage."""
    (report,) = verify_shelf(DirectoryShelf(settings.state_dir), Trust())
    assert [] == [finding for finding in report.all_findings() if finding.damage]
    assert 0 == report.unsigned
    return report


def said(records: list[Record]) -> list[tuple[object, ...]]:
    """Give what was said, without the OPEN records: how often facts are repeated depends on how the journal grew."""
    return [
        (record.kind, record.direction, record.time_ns, dict(record.body)) for record in records if record.kind is not Kind.OPEN
    ]


def test_a_journal_becomes_segments_and_an_index(settings: Configuration, start: Start) -> None:
    """What is in the journal is in sealed segments and in the index when the role was told to end."""
    journal = Journal(settings)
    for blocks in story():
        journal.put(blocks)
    end(settings, start())
    found = recorded(settings)
    with Index.open(settings.index_file, readonly=True) as index:
        rows = index.sessions(limit=None)
        assert {row.session for row in rows} == {session for session, records in found.items() if records[0].kind is Kind.OPEN}
        for row in rows:
            closing = found[row.session][-1].body
            assert closing["messages"] == row.messages
            assert {"request": row.bytes[0], "response": row.bytes[1]} == closing["bytes"]
        assert {"closed"} == {row.state for row in rows}
    assert [] == list(settings.segments_dir.glob("*.open"))
    head = proven(settings).head
    assert head is not None
    assert (True, max(int(path.stem) for path in settings.segments_dir.glob("*.seg"))) == (head.final, head.sequence)


def test_a_head_names_the_segment_that_it_says(settings: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a seal's last step failed once, the head that is said later has number and hash of one and the same segment."""
    refusals: list[OSError] = []

    def sync(path: Path) -> None:
        if refusals:
            raise refusals.pop()
        sync_directory(path)

    monkeypatch.setattr("capd.recording.segment.writer.sync_directory", sync)
    for refused in ([], [OSError(errno.ENOSPC, "no")]):
        journal = Journal(settings)
        for blocks in story():
            journal.put(blocks)
        journal.close()
        refusals += refused
        made = Recorder(settings, host=HOST, user="test", signer=keys.HostKey.load(settings.keys_dir))
        made.stop()
        made.run()
    assert [] == refusals
    head = proven(settings).head
    assert head is not None
    assert head.sequence >= 2


def test_the_role_runs_without_rights_and_says_so(settings: Configuration, start: Start) -> None:
    """The status names an unprivileged user, the lag and the counts."""
    journal = Journal(settings)
    for blocks in story():
        journal.put(blocks)
    process = start()
    wait_until(lambda: status(settings).get("sessions_total"), "the status tells of sessions")
    wait_until(lambda: status(settings)["lag_bytes"] == 0, "all is read: it may tell of itself before that, too")
    found = status(settings)
    assert process.pid == found["pid"]
    assert "running" == found["state"]
    assert [] == found["errors"]
    if os.geteuid() == 0:
        assert 0 != found["uid"]
    names = {"position", "lag_bytes", "lag_seconds", "sessions_open", "sessions_total", "messages", "records", "segments"}
    assert names | {"losses", "uid", "user", "pid", "rss_bytes", "state", "errors"} <= set(found)
    end(settings, process)


def test_sessions_can_be_found_before_they_end(settings: Configuration, start: Start) -> None:
    """An open session is in the index, and its bytes in an open segment, within a second of being drained."""
    journal = Journal(settings)
    daemon = Daemon()
    process = start()
    wait_until(lambda: settings.index_file.exists() and status(settings), "the role runs")
    events, _ = http_events(10 * MS, 9)
    journal.put(daemon.started())
    journal.put(daemon.run_started())
    began = time.monotonic()
    journal.put(daemon.cycle(12 * MS, control=[executed(MS, b"/bin/agent", b"agent"), opened(2 * MS, 9)], data=events[:6]))
    with Index.open(settings.index_file, readonly=True) as index:
        while not index.sessions():  # seldom looking would take longer than what is measured
            assert time.monotonic() - began < READY_SECONDS
            time.sleep(0.02)
    took = time.monotonic() - began
    assert in_time(took), took
    (path,) = settings.segments_dir.glob("*.open")
    with SegmentReader(path) as reader:
        assert b"POST /a HTTP/1.1\r\n" in stream(reader.records(), REQUEST)
    end(settings, process)


def test_what_expired_goes_out_of_the_index_while_the_role_runs(settings: Configuration, start: Start) -> None:
    """A signed record that the shipper brought is enough: the confined role takes the rows out to the last byte."""
    journal = Journal(settings)
    for blocks in story():
        journal.put(blocks)
    end(settings, start())
    paths = sorted(settings.segments_dir.glob("*.seg"))
    assert b"POST /a" in settings.index_file.read_bytes()
    deleted = [Deleted(sequence=int(path.stem), digest=bytes(32), policy="ci") for path in paths]
    deletion = Deletion(host=HOST, written_ns=1, segments=deleted).signed(keys.HostKey.load(settings.keys_dir))
    for path in paths:
        path.unlink()
    process = start()
    wait_until(lambda: status(settings).get("pid") == process.pid, "the role runs")
    settings.deletions_dir.mkdir(exist_ok=True)
    (settings.deletions_dir / deletion.name).write_bytes(deletion.pack())

    def gone() -> bool:
        return not any(b"POST /a" in content(path) for path in settings.index_dir.iterdir())

    wait_until(gone, "no word is left")
    with Index.open(settings.index_file, readonly=True) as index:
        assert [] == index.sessions()
        assert [deletion.segments[-1].sequence] == [record.last for record in index.let_go()]
    found = status(settings)
    assert ([], []) == (found["errors"], found["expiry_refused"])
    end(settings, process)


def test_kill_9_at_any_moment_loses_and_repeats_nothing(settings: Configuration, start: Start, tmp_path: Path) -> None:
    """Killed again and again while the journal grows, the role has recorded in the end what it records without."""
    chance = random.Random(4)
    cycles = story()
    daemon = Daemon()
    time_ns = 80 * MS
    for number in range(60):
        events, ends = http_events(time_ns, 1_000 + number)
        cycles.append(daemon.cycle(time_ns + MS, control=[opened(time_ns, 1_000 + number)], data=events[:9]))
        cycles.append(daemon.cycle(time_ns + 2 * MS, data=events[9:]))
        cycles.append(daemon.cycle(time_ns + 3 * MS, control=[closed(time_ns + 3 * MS, 1_000 + number, *ends)]))
        time_ns += 10 * MS
    cycles.append(daemon.note(time_ns, note="run_ended", key=RUN))
    journal = Journal(settings)
    process = start()
    deaths = set(chance.sample(range(len(cycles)), DEATHS))
    for number, blocks in enumerate(cycles):
        journal.put(blocks)
        time.sleep(0.01)
        if number in deaths:
            time.sleep(chance.random())
            process.kill()
            process.wait()
            process = start()
    end(settings, process)
    found = recorded(settings)
    proven(settings)
    undisturbed = assembled(settings.journal_dir, tmp_path / "other")
    assert set(undisturbed) == set(found)
    for session, records in undisturbed.items():
        assert said(records) == said(found[session])


def assembled(journal: Path, directory: Path) -> dict[UUID, list[Record]]:
    """Give what a role that nobody disturbed makes of the same journal."""
    other = Configuration(state_dir=directory / "state", runtime_dir=directory / "run")
    for place in (other.recorder_dir, other.segments_dir, other.index_dir, other.recorder_runtime_dir):
        place.mkdir(parents=True, exist_ok=True)
    other.journal_dir.symlink_to(journal)
    role = Recorder(other, host=HOST, user="test")
    role.stop()
    role.run()
    return recorded(other)


def test_the_journal_may_be_freed_behind_sealed_segments(settings: Configuration, start: Start) -> None:
    """The journal before the role's position can go: a killed role goes on without it, and nothing is lost or repeated."""
    cycles = story()
    journal = Journal(settings)
    for blocks in cycles[:4]:
        journal.put(blocks)
    journal.close()
    whole = Path(shutil.copytree(settings.journal_dir, settings.runtime_dir / "journal"))
    journal = Journal(settings)  # a restarted daemon begins another file
    journal.put(cycles[4])
    process = start()
    wait_until(lambda: status(settings).get("records"), "the role has recorded")
    process.send_signal(signal.SIGUSR1)
    wait_until(settings.position_file.exists, "the role has sealed")
    process.kill()
    process.wait()
    position = Position.from_bytes(settings.position_file.read_bytes())
    freed = [path for path in settings.journal_dir.glob("*.journal") if int(path.stem) < position.file]
    assert freed
    for path in freed:
        path.unlink()
    for blocks in cycles[5:]:
        journal.put(blocks)
    end(settings, start())
    for path in settings.journal_dir.glob("*.journal"):
        shutil.copy(path, whole)
    undisturbed = assembled(whole, settings.runtime_dir / "other")
    found = recorded(settings)
    assert set(undisturbed) == set(found)
    for session, records in undisturbed.items():
        assert said(records) == said(found[session])


def test_a_number_is_never_used_again(settings: Configuration, start: Start) -> None:
    """When all segments were taken away the numbers go on, chained to what the newest head names."""
    journal = Journal(settings)
    for blocks in story()[:4]:
        journal.put(blocks)
    end(settings, start())
    before = proven(settings)
    assert before.head is not None
    for path in settings.segments_dir.glob("*.seg"):
        path.unlink()
    for blocks in story()[4:]:
        journal.put(blocks)
    end(settings, start())
    paths = sorted(settings.segments_dir.glob("*.seg"))
    assert before.head.sequence + 1 == int(paths[0].stem)
    with SegmentReader(paths[0]) as reader:
        assert reader.footer is not None
        assert before.head.digest == reader.footer.previous
    proven(settings)


def test_a_second_recorder_in_the_same_place_is_refused(settings: Configuration, start: Start) -> None:
    """Two roles never write one recording: the second ends with the status for that."""
    first = start()
    wait_until(lambda: status(settings), "the role runs")
    second = start()
    _, errors = second.communicate(timeout=180)
    assert 7 == second.returncode
    assert b"another capd" in errors
    end(settings, first)


def test_a_full_disk_stops_nothing_for_ever(tmp_path: Path) -> None:
    """While the disk takes nothing the role says so and waits; afterwards everything is recorded and can be found."""
    settings = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    for place in (settings.recorder_dir, settings.segments_dir, settings.index_dir, settings.recorder_runtime_dir):
        place.mkdir(parents=True)
    journal = Journal(settings)
    for blocks in story():
        journal.put(blocks)
    roles: list[Recorder] = []

    def work() -> None:
        roles.append(Recorder(settings, host=HOST, user="test"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, limits[1]))
        roles[0].run()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    thread = threading.Thread(target=work)
    try:
        thread.start()
        wait_until(lambda: "disk full" == status(settings).get("state"), "the role says that the disk is full")
        assert thread.is_alive()
        assert all(len(content(path)) <= FULL_BYTES for path in settings.segments_dir.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    wait_until(lambda: "running" == status(settings).get("state"), "the role goes on")
    roles[0].stop()
    thread.join()
    found = recorded(settings)
    undisturbed = assembled(settings.journal_dir, tmp_path / "other")
    assert set(undisturbed) == set(found)
    for session, records in undisturbed.items():
        assert said(records) == said(found[session])
    with Index.open(settings.index_file, readonly=True) as index:
        assert {row.session for row in index.sessions(limit=None)} < set(found)
        assert index.search("hello world")


class Killed(BaseException):
    """The recorder is gone."""


class Moments:
    """A clock for a recorder: whenever it waits, the next thing happens."""

    def __init__(self, happens: list[Callable[[], object]]) -> None:
        self._happens = iter(happens)
        self._now = 0.0

    def monotonic(self) -> float:
        """Give the time: every piece of work takes some."""
        self._now += 0.001
        return self._now

    @staticmethod
    def time_ns() -> int:
        """Give the wall time."""
        return time.time_ns()

    time = staticmethod(time.time)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += 1.1 * seconds
        next(self._happens, lambda: None)()


def test_a_turn_that_was_met_in_parts_is_met_so_again(settings: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of which the recorder saw the control ring first gives one session, though its data is older, over any death."""
    for name in ("FLUSH_SECONDS", "IDLE_SECONDS", "MEMORY_SHARE"):
        monkeypatch.setattr(recorder_module, name, 10**9)
    settings = settings.model_copy(update={"recording": RecordingSection(level="full")})
    journal, daemon = Journal(settings), Daemon()
    control, data = daemon.cycle(3 * MS, control=[opened(2 * MS, 9)], data=[moved(MS, 9, REQUEST, 0, b"before ")])
    journal.put([*daemon.started(), *daemon.run_started(), control])

    def die() -> None:
        raise Killed

    made = Recorder(settings, host=HOST, user="test")
    waits: list[Callable[[], object]] = [lambda: None, lambda: None]
    happens = [*waits, lambda: journal.put([data]), *waits, made.ask_seal, *waits, die]
    monkeypatch.setattr(recorder_module, "time", Moments(happens))
    with pytest.raises(Killed):
        made.run()
    assert [b"before "] == [stream(records, REQUEST) for records in recorded(settings).values() if stream(records, REQUEST)]
    journal.put(daemon.cycle(5 * MS, data=[moved(4 * MS, 9, REQUEST, 7, b"after")]))
    journal.put(daemon.cycle(7 * MS, control=[closed(6 * MS, 9, 12, 0)]))
    following = Recorder(settings, host=HOST, user="test")
    following.stop()
    following.run()
    assert [b"before after"] == [
        stream(records, REQUEST) for records in recorded(settings).values() if stream(records, REQUEST)
    ]


@pytest.mark.parametrize("damage", ["state", "index"])
def test_lost_memory_costs_no_record(settings: Configuration, start: Start, damage: str) -> None:
    """Without its snapshot or its index the role makes them anew from journal and segments."""
    journal = Journal(settings)
    cycles = story()
    for blocks in cycles[:4]:
        journal.put(blocks)
    process = start()
    wait_until(lambda: status(settings).get("records"), "the role has recorded")
    process.kill()
    process.wait()
    victim = settings.recorder_dir / "state" if damage == "state" else settings.index_file
    victim.write_bytes(b"\xff" * 100)
    for blocks in cycles[4:]:
        journal.put(blocks)
    end(settings, start())
    found = recorded(settings)
    undisturbed = assembled(settings.journal_dir, settings.runtime_dir / "other")
    assert set(undisturbed) == set(found)
    for session, records in undisturbed.items():
        assert said(records) == said(found[session])
