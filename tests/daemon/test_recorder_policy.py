"""The recorder and the policy: what its scopes leave out is on no disk, whenever the policy changes and the recorder dies."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon.configuration import Configuration
from capd.recording.record import Kind, Record
from tests.assembly.test_snapshot import http_events
from tests.assembly.world import MS, REQUEST, Daemon, closed, opened, stream
from tests.daemon.conftest import wait_until
from tests.daemon.test_recorder import Journal, Start, end, proven, recorded, start, status
from tests.daemon.test_recorder import settings as settings  # noqa: PLC0414 - a fixture
from tests.requirements import require_root

__all__ = ["start"]
RULE = "rules: [{id: all, match: {hosts: '*'}, then: allow}]\n"


@pytest.fixture
def policy(settings: Configuration) -> Path:
    """Give the file of the instance's policy, which is not there yet."""
    directory = settings.state_dir.parent / "policy"
    directory.mkdir(mode=0o755)
    with (settings.state_dir / "capd.toml").open("a") as file:
        file.write(f'policy_dir = "{directory}"\n')
    return directory / "p.yaml"


def write(path: Path, scope: str) -> None:
    """Write a policy with one scope, at once."""
    new = path.with_suffix(".new")
    new.write_text(f"{RULE}scopes: [{{id: s, {scope}}}]\n", encoding="ascii")
    new.chmod(0o644)
    new.rename(path)


def of_policy(settings: Configuration) -> dict[str, object]:
    """Give what the role says of the policy."""
    found = status(settings).get("policy", {})
    assert isinstance(found, dict)
    return found


class Talk:
    """Agents that say the same over one connection after the other."""

    def __init__(self, settings: Configuration) -> None:
        self.daemon, self.journal = Daemon(), Journal(settings)
        self.journal.put([*self.daemon.started(), *self.daemon.run_started()])
        self._time_ns = 80 * MS

    def begin(self, socket: int, parts: int = 3) -> None:
        """Say the first parts of three of a conversation."""
        self._events, self._ends = http_events(self._time_ns, socket)
        self._socket = socket
        self.journal.put(self.daemon.cycle(self._time_ns + MS, control=[opened(self._time_ns, socket)], data=self._events[:1]))
        if parts > 1:
            self.finish()

    def finish(self) -> None:
        """Say the rest, and end."""
        end_ns = self._time_ns + 3 * MS
        self.journal.put(self.daemon.cycle(self._time_ns + 2 * MS, data=self._events[1:]))
        self.journal.put(self.daemon.cycle(end_ns, control=[closed(end_ns, self._socket, *self._ends)]))
        self._time_ns += 10 * MS


def said(settings: Configuration) -> dict[int, bytes]:
    """Give what the agents said in each session that is recorded, by socket."""
    found: dict[int, bytes] = {}
    for records in recorded(settings).values():
        socket = records[0].body.get("socket")
        if records[0].kind is Kind.OPEN and isinstance(socket, int):
            found[socket] = stream(records, REQUEST)
    return found


def records_of(settings: Configuration, socket: int) -> list[Record]:
    """Give the records of a session."""
    found: dict[UUID, list[Record]] = recorded(settings)
    return next(records for records in found.values() if records[0].body.get("socket") == socket)


def test_a_policy_that_changes_counts_from_then_on(settings: Configuration, start: Start, policy: Path) -> None:
    """What a policy leaves out is not stored from when it is in force, until another one is; the recording says by which."""
    talk, process = Talk(settings), start()
    wait_until(lambda: status(settings).get("sessions_total") == 0, "the role works")
    talk.begin(1_001)
    wait_until(lambda: status(settings).get("sessions_total") == 1 and not status(settings)["sessions_open"], "it was recorded")
    write(policy, "match: {hosts: api.example.org}, recording: 'off'")
    wait_until(lambda: of_policy(settings).get("version"), "the policy is in force")
    talk.begin(1_002)
    wait_until(lambda: status(settings).get("sessions_total") == 2 and not status(settings)["sessions_open"], "it was recorded")
    policy.write_text("rules: [", encoding="ascii")
    wait_until(lambda: of_policy(settings).get("problem"), "it is refused, and that is said")
    talk.begin(1_003)
    wait_until(lambda: status(settings).get("sessions_total") == 3 and not status(settings)["sessions_open"], "it was recorded")
    policy.unlink()
    wait_until(lambda: of_policy(settings) == {"version": "", "known": True, "problem": None}, "there is none any more")
    talk.begin(1_004)
    wait_until(lambda: status(settings).get("sessions_total") == 4 and not status(settings)["sessions_open"], "it was recorded")
    end(settings, process)
    found = said(settings)
    assert (True, b"", b"", True) == (bool(found[1_001]), found[1_002], found[1_003], found[1_001] == found[1_004])
    words = [
        record.body for records in recorded(settings).values() for record in records if record.body.get("name") == "policy"
    ]
    assert [True, False] == [bool(body["version"]) for body in words]
    proven(settings)


@pytest.mark.parametrize("killed", [True, False])
def test_what_waited_is_not_lost_with_the_recorder(settings: Configuration, start: Start, policy: Path, killed: bool) -> None:
    """A session that waits for its name when the recorder ends, and whose policy is another afterwards, has every byte."""
    write(policy, "match: {hosts: '*.other.test'}, recording: 'off'")
    talk, process = Talk(settings), start()
    wait_until(lambda: of_policy(settings).get("version"), "the policy is in force")
    talk.begin(1_001)
    talk.begin(1_002, parts=1)
    wait_until(lambda: status(settings).get("sessions_total") == 2, "it was seen")
    if killed:
        process.kill()
        process.wait()
    else:
        end(settings, process)
    policy.unlink()
    process = start()
    wait_until(lambda: status(settings).get("pid") == process.pid and not of_policy(settings)["version"], "there is none")
    talk.finish()
    wait_until(lambda: not status(settings)["sessions_open"], "it was recorded")
    end(settings, process)
    found = said(settings)
    assert found[1_001]
    assert found[1_001] == found[1_002]
    assert "complete" == records_of(settings, 1_002)[-1].body["completeness"]["verdict"]  # type: ignore[index, call-overload]


def test_a_policy_that_could_never_be_read_hides_all(settings: Configuration, start: Start, policy: Path) -> None:
    """Where there is a policy and nobody knows what it says, no word is stored, and the status says why."""
    policy.write_text("scopes: 1\n", encoding="ascii")
    process = start()
    wait_until(lambda: of_policy(settings).get("known") is False, "it says so")
    assert "must be a list" in str(of_policy(settings)["problem"])
    talk = Talk(settings)
    talk.begin(1_001)
    wait_until(lambda: status(settings).get("sessions_total") == 1 and not status(settings)["sessions_open"], "it was recorded")
    end(settings, process)
    assert b"" == said(settings)[1_001]


def test_a_policy_of_others_is_not_read(settings: Configuration, start: Start, policy: Path) -> None:
    """A file that somebody else than root may write says nothing about what is recorded."""
    require_root()
    write(policy, "match: {hosts: api.example.org}, recording: full")
    os.chown(policy, 65_534, -1)
    process = start()
    wait_until(lambda: of_policy(settings).get("known") is False, "it says so")
    end(settings, process)
