"""The recorder of a host with recipients: nothing said is on its disk in the clear, and a crash costs what it costs without."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest
from pyrage import x25519

from capd.daemon.configuration import Configuration, EncryptionSection, parse
from capd.daemon.errors import ConfigurationError
from capd.daemon.recorder_memory import ENCRYPTED
from capd.recording.age import Identities
from capd.recording.errors import EncryptedError
from capd.recording.index import Index
from capd.recording.journal import JournalKey, JournalWriter
from capd.recording.journal.cipher import renew
from capd.recording.segment import SegmentReader
from tests.assembly.test_snapshot import http_events, story
from tests.assembly.world import MS, RUN, Daemon, closed, opened
from tests.daemon.conftest import wait_until
from tests.daemon.test_recorder import Journal, Start, assembled, end, proven, recorded, said, settings, start, status

__all__ = ["settings", "start"]
"""Fixtures."""
SAID = (b"hello world", b"POST /a HTTP/1.1")
BOOT = UUID(int=77)


@pytest.fixture
def identity(settings: Configuration) -> Path:
    """Give an identity to whose recipient the instance encrypts."""
    made = x25519.Identity.generate()
    with (settings.state_dir / "capd.toml").open("a") as file:
        file.write(f'[encryption]\nrecipients = ["{made.to_public()}"]\n')
    path = settings.state_dir.parent / "identity.txt"
    path.write_text(f"{made}\n")
    return path


@pytest.fixture
def closed_settings(settings: Configuration, identity: Path) -> Configuration:
    """Give the configuration that the role reads."""
    recipient = str(x25519.Identity.from_str(identity.read_text().strip()).to_public())
    return settings.model_copy(update={"encryption": EncryptionSection(recipients=(recipient,))})


def make_key(settings: Configuration, boot: UUID) -> JournalKey:
    """Make the journal's key as the daemon does."""
    group = settings.segments_dir.stat().st_gid if os.geteuid() == 0 else None
    return renew(settings.journal_key_file, settings.journal_key_elsewhere, boot=boot, group=group)


@pytest.fixture
def key(closed_settings: Configuration) -> JournalKey:
    """Give the journal's key, as the daemon makes it."""
    return make_key(closed_settings, BOOT)


class ClosedJournal(Journal):
    """Writes encrypted blocks."""

    def __init__(self, settings: Configuration, key: JournalKey) -> None:
        self._writer = JournalWriter(settings.journal_dir, group=settings.journal_dir.stat().st_gid, key=key)


def on_disk(settings: Configuration) -> list[tuple[str, bytes]]:
    """Give every file below the state directory in which something that was said can be found, in any usual spelling."""
    found = []
    for path in sorted(path for path in settings.state_dir.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for word in SAID:
            if word in data or base64.b64encode(word)[:-4] in data or word.hex().encode() in data:
                found.append((str(path.relative_to(settings.state_dir)), word))  # noqa: PERF401 - clearer than one expression
    return found


@pytest.fixture
def disturbed(closed_settings: Configuration, start: Start, key: JournalKey) -> list[list[object]]:
    """Give the cycles of a journal that was recorded by roles that were killed again and again."""
    chance = random.Random(7)
    cycles = story()
    daemon = Daemon()
    time_ns = 80 * MS
    for number in range(30):
        events, ends = http_events(time_ns, 1_000 + number)
        cycles.append(daemon.cycle(time_ns + MS, control=[opened(time_ns, 1_000 + number)], data=events[:9]))
        cycles.append(daemon.cycle(time_ns + 2 * MS, data=events[9:]))
        cycles.append(daemon.cycle(time_ns + 3 * MS, control=[closed(time_ns + 3 * MS, 1_000 + number, *ends)]))
        time_ns += 10 * MS
    cycles.append(daemon.note(time_ns, note="run_ended", key=RUN))
    journal = ClosedJournal(closed_settings, key)
    process = start()
    deaths = set(chance.sample(range(len(cycles)), 4))
    for number, blocks in enumerate(cycles):
        journal.put(blocks)
        time.sleep(0.01)
        if number in deaths:
            time.sleep(chance.random())
            process.kill()
            process.wait()
            process = start()
    end(closed_settings, process)
    return [list(blocks) for blocks in cycles]


def test_kill_9_costs_nothing_and_nothing_is_in_the_clear(
    closed_settings: Configuration, identity: Path, disturbed: list[list[object]], tmp_path: Path
) -> None:
    """Killed at random moments, the role records what an undisturbed one does, and the disk never says what was said."""
    settings = closed_settings
    assert [] == on_disk(settings)
    assert (settings.recorder_dir / "state").read_bytes().startswith(ENCRYPTED)
    proven(settings)
    with pytest.raises(EncryptedError):
        recorded(settings)
    found = recorded(settings, Identities.load(identity))
    other = tmp_path / "other"
    (other / "state" / "keys").mkdir(parents=True)
    shutil.copy(settings.journal_key_file, other / "state" / "keys" / "journal.key")
    undisturbed = assembled(settings.journal_dir, other)
    assert set(undisturbed) == set(found)
    for session, records in undisturbed.items():
        assert said(records) == said(found[session])
    assert [] != on_disk(Configuration(state_dir=other / "state", runtime_dir=other / "run"))  # the control
    with Index.open(settings.index_file, readonly=True) as index:
        assert ([], True) == (index.search("hello"), index.withholds)
        assert {row.session for row in index.sessions(limit=None)} <= set(found)
        assert all(row.messages for row in index.sessions(limit=None) if row.protocol == "http1")


def test_a_session_goes_on_over_a_death(closed_settings: Configuration, start: Start, key: JournalKey, identity: Path) -> None:
    """What a session said before a kill -9 is read again with a key from memory: its messages go on, nothing is skipped."""
    settings = closed_settings
    journal = ClosedJournal(settings, key)
    for blocks in story()[:4]:
        journal.put(blocks)
    daemon = Daemon()
    events, ends = http_events(80 * MS, 1_000)
    journal.put(daemon.cycle(81 * MS, control=[opened(80 * MS, 1_000)], data=events[:5]))
    process = start()
    wait_until(lambda: status(settings).get("sessions_open"), "the session is open")
    process.send_signal(signal.SIGUSR1)
    wait_until(settings.position_file.exists, "it is sealed")
    wait_until((settings.recorder_dir / "state").exists, "there is a snapshot")
    process.kill()
    process.wait()
    process = start()
    journal.put(daemon.cycle(82 * MS, data=events[5:]))
    journal.put(daemon.cycle(83 * MS, control=[closed(83 * MS, 1_000, *ends)]))
    end(settings, process)
    found = recorded(settings, Identities.load(identity))
    names = {record.body.get("name") for records in found.values() for record in records}
    assert "resumed" not in names
    assert any(record.body.get("state") == "closed" for records in found.values() for record in records)


def test_a_key_that_has_not_moved_yet_is_found(settings: Configuration, start: Start, identity: Path) -> None:
    """A recorder that goes by recipients before the daemon does reads what that still writes with a key from the disk."""
    journal = ClosedJournal(settings, make_key(settings, BOOT))
    for blocks in story()[:4]:
        journal.put(blocks)
    end(settings, start())
    assert (0, True) == (status(settings)["damages"], bool(recorded(settings, Identities.load(identity))))


def test_keys_of_segments_go_when_nothing_needs_them(closed_settings: Configuration, start: Start, key: JournalKey) -> None:
    """While a session is open the recorder can read its segments; when all are closed no key is left but those of the end."""
    settings = closed_settings
    ring = settings.recorder_runtime_dir / "keys"
    journal = ClosedJournal(settings, key)
    cycles = story()
    for blocks in cycles[:4]:
        journal.put(blocks)
    process = start()
    wait_until(lambda: list(ring.glob("*.key")), "a key is kept: under this name it is whole")
    assert 0o700 == ring.stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in ring.glob("*.key")}
    for blocks in cycles[4:]:
        journal.put(blocks)
    end(settings, process)
    assert [] == list(ring.glob("*.key"))


def test_a_power_cut_costs_what_was_not_sealed_and_the_chain_goes_on(
    closed_settings: Configuration, start: Start, key: JournalKey, identity: Path
) -> None:
    """Without the keys that were in memory the rest of the journal is damage that is told; what is recorded later follows."""
    settings = closed_settings
    cycles = story()
    journal = ClosedJournal(settings, key)
    for blocks in cycles[:5]:
        journal.put(blocks)
    process = start()
    wait_until(lambda: status(settings).get("records"), "the role has recorded")
    process.kill()
    process.wait()
    for blocks in cycles[5:7]:
        journal.put(blocks)
    settings.journal_key_file.unlink()
    shutil.rmtree(settings.recorder_runtime_dir / "keys", ignore_errors=True)
    later = make_key(settings, UUID(int=78))
    fresh = ClosedJournal(settings, later)
    for blocks in story():
        fresh.put(blocks)
    process = start()
    wait_until(lambda: status(settings).get("pid") == process.pid and status(settings).get("damages"), "the damage is told")
    end(settings, process)
    errors = status(settings)["errors"]
    assert isinstance(errors, list)
    assert any("which is gone" in str(error) for error in errors)
    proven(settings)
    found = recorded(settings, Identities.load(identity))
    assert any(record.body.get("payload") for records in found.values() for record in records)


def test_recipients_are_checked_at_load() -> None:
    """What is no recipient is refused with the key's name, and an identity there is not repeated."""
    secret = str(x25519.Identity.generate())
    for text in ("age1abc", secret):
        with pytest.raises(ConfigurationError, match=r"encryption\.recipients") as caught:
            parse({"encryption": {"recipients": [text]}}, "capd.toml")
        assert secret not in str(caught.value)


def test_where_the_journals_key_is() -> None:
    """With recipients it is only in memory, without on disk, unless the configuration says otherwise."""
    recipient = str(x25519.Identity.generate().to_public())
    places = [
        Configuration(encryption=EncryptionSection(recipients=recipients, journal_key=choice)).journal_key_file.parent.name  # type: ignore[arg-type]
        for recipients, choice in (((), "auto"), ((recipient,), "auto"), ((), "memory"), ((recipient,), "disk"))
    ]
    assert ["keys", "capd", "capd", "keys"] == places


def test_a_segment_of_the_open_session_is_read_by_an_identity_while_it_is_written(
    closed_settings: Configuration, start: Start, key: JournalKey, identity: Path
) -> None:
    """An open encrypted segment is followed by who has an identity, as soon as it was flushed."""
    journal = ClosedJournal(closed_settings, key)
    for blocks in story()[:4]:
        journal.put(blocks)
    process = start()
    wait_until(lambda: list(closed_settings.segments_dir.glob("*.open")), "a segment is open")
    path = next(iter(closed_settings.segments_dir.glob("*.open")))
    with SegmentReader(path, keys=Identities.load(identity)) as reader:
        assert list(reader.records())
    end(closed_settings, process)
