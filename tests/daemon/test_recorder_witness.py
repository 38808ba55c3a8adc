"""The recorder as a second witness: journal and decision log side by side, whatever happens to it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon import recorder_user, state_directory
from capd.daemon.configuration import Configuration
from capd.daemon.drained import Drained, tell
from capd.daemon.recorder_witness import DUE_SECONDS
from capd.daemon.witness.matching import AGE_NS
from capd.enforcer.decision_log import DecisionLog
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.action import Run as PolicyRun
from capd.enforcer.proxy import entry
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Destination, Question, Request, Verdict
from capd.enforcer.proxy.question import Kind as About
from capd.recording.index import Index
from capd.recording.record import Kind
from tests.assembly.test_snapshot import http_events
from tests.assembly.world import MS, RUN_ID, Daemon, closed, opened
from tests.daemon.conftest import wait_until
from tests.daemon.test_recorder import Journal, Start, end, proven, recorded, start, status
from tests.daemon.test_recorder import settings as settings  # noqa: PLC0414 - a fixture

__all__ = ["start"]
CONNECTIONS, REQUESTS, DEATHS = 16, 3, 4
AGENT = Agent(run=PolicyRun(name="r", id=str(RUN_ID), labels={}), principal=Principal(name="p", kind="user", verified=False))
TO = Destination(address="192.0.2.7", port=80)
LATER_NS = 3_600_000_000_000
"""The journal's times are made up; entries seem to come after all of them, so that no probe is late."""


@pytest.fixture
def log(settings: Configuration) -> Iterator[DecisionLog]:
    """Give the log of an enforcer, whose files the recorder may read and nothing else."""
    with (settings.state_dir / "capd.toml").open("a") as file:
        file.write('[enforcement]\nmode = "enforce"\n')
    user = recorder_user.choose(settings.recorder.user, settings.segments_dir)
    state_directory.prepare_enforcer(settings, os.geteuid(), os.getegid(), user.gid)
    made = DecisionLog(settings.decisions_dir, "w0")
    yield made
    made.close()


def flow(number: int) -> str:
    """Give the enforcer's id of a connection."""
    return str(UUID(int=5_000 + number))


def let_in(log: DecisionLog, number: int, decided: int = REQUESTS, *, later_ns: int = LATER_NS) -> None:
    """Write that a connection was let in, and what was decided about so many of its requests."""
    at_ns = time.time_ns() + later_ns
    owner = Owner(uid=1000, cookie=1_000 + number, cgroup=5)
    log.append(entry.opened_entry(flow(number), AGENT, owner, client=("192.0.2.1", 40_000), to=TO, at_ns=at_ns))
    for asked in range(decided):
        request = Request(method="POST", host="api.example.org", path="/a")
        question = Question(number=asked + 1, kind=About.REQUEST, destination=TO, protocol="http1", request=request)
        allowed = asked != 1
        verdict = Verdict(
            number=asked + 1, allowed=allowed, reason="" if allowed else "denied_by_policy", rule="r", policy="v1"
        )
        log.append(entry.decision_entry(flow(number), question, verdict, at_ns))
    log.flush()


def converse(
    daemon: Daemon, journal: Journal, log: DecisionLog, number: int, *, log_first: bool, decided: int = REQUESTS
) -> None:
    """Let both witnesses tell of a connection, from begin to end."""
    socket, time_ns = 1_000 + number, (80 + 10 * number) * MS
    events, ends = http_events(time_ns, socket)
    if log_first:
        let_in(log, number, decided)
    journal.put(daemon.cycle(time_ns + MS, control=[opened(time_ns, socket)], data=events[:9]))
    journal.put(daemon.cycle(time_ns + 2 * MS, data=events[9:]))
    if not log_first:
        let_in(log, number, decided)
    journal.put(daemon.cycle(time_ns + 3 * MS, control=[closed(time_ns + 3 * MS, socket, *ends)]))
    passed = {Side.UPSTREAM: 0, Side.CLIENT: ends[1]}
    log.append(entry.closed_entry(flow(number), passed, entry.Heard(count=ends[0], ended=True), time.time_ns()))
    log.flush()


def test_kill_9_at_any_moment_loses_and_repeats_no_verdict(settings: Configuration, start: Start, log: DecisionLog) -> None:
    """Killed again and again while journal and log grow, the role has recorded every verdict once, in its session."""
    chance = random.Random(7)
    daemon = Daemon()
    journal = Journal(settings)
    journal.put([*daemon.started(), *daemon.run_started()])
    process = start()
    deaths = set(chance.sample(range(CONNECTIONS), DEATHS))
    for number in range(CONNECTIONS):
        converse(daemon, journal, log, number, log_first=chance.random() < 0.7)
        time.sleep(0.02)
        if number == CONNECTIONS // 2:
            wait_until(lambda: status(settings).get("pid") == process.pid, "the role works")  # noqa: B023 - called at once
            process.send_signal(signal.SIGUSR1)  # it seals, and remembers
        if number in deaths:
            wait_until(lambda: status(settings).get("pid") == process.pid, "the role works")  # noqa: B023 - called at once
            time.sleep(chance.random() / 2)
            process.kill()
            process.wait()
            process = start()
    wait_until(lambda: witness(settings).get("flows") == 0, "all were compared")
    end(settings, process)
    found = witness(settings)
    names = ("undecided", "unseen", "differing", "requests", "unknown", "missing", "malformed", "orphans", "incomparable")
    assert dict.fromkeys(names, 0) == {name: found[name] for name in names}
    verdicts = [record for records in recorded(settings).values() for record in records if record.kind is Kind.VERDICT]
    expected = sorted((flow(number), str(asked + 1)) for number in range(CONNECTIONS) for asked in range(REQUESTS))
    assert expected == sorted(tuple(str(record.body["decision"]).split("/")) for record in verdicts)
    assert {record.session for record in verdicts} == set(sessions(settings))
    assert {(2, 1, 0)} == set(sessions(settings).values())
    proven(settings)


def witness(settings: Configuration) -> dict[str, object]:
    """Give what the role says of the log."""
    found = status(settings).get("witness", {})
    assert isinstance(found, dict)
    return found


def sessions(settings: Configuration) -> dict[UUID, tuple[int, int, int]]:
    """Give the decisions of all sessions, as the index has them."""
    with Index.open(settings.index_file) as index:
        rows = index.sessions(limit=None)
    return {row.session: (d.allowed, d.denied, d.held) for row in rows if (d := row.decision) is not None}


def test_damage_of_the_log_is_told(settings: Configuration, start: Start, log: DecisionLog) -> None:
    """A log that was tampered with is put aside, counted in the status, and what follows in the next file is taken."""
    let_in(log, 1)
    log.close()
    path: Path = next(settings.decisions_dir.iterdir())
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    after = DecisionLog(settings.decisions_dir, "w0")
    let_in(after, 2)
    process = start()
    wait_until(lambda: witness(settings).get("flows"), "the log was read")
    log_counts = witness(settings)["log"]
    assert isinstance(log_counts, dict)
    assert (1, True) == (log_counts["damages"], log_counts["damaged_ns"] is not None)
    assert [f"{path.name}.8.damaged"] == [kept.name for kept in settings.quarantine_dir.iterdir()]
    wait_until(settings.decisions_done_file.exists, "it says which file is done")
    after.let_go([path.name])
    assert not path.exists()
    after.close()
    end(settings, process)


def reasons(settings: Configuration) -> list[list[str]]:
    """Give why sessions are not complete, as the index has it, of those that are not."""
    with Index.open(settings.index_file) as index:
        return [list(row.reasons) for row in index.sessions(limit=None) if row.reasons]


def test_missing_decisions_are_told_in_the_recording(settings: Configuration, start: Start, log: DecisionLog) -> None:
    """Entries that had no room make the sessions that were open partial, in the index and in the recording, over a restart."""
    daemon, journal = Daemon(), Journal(settings)
    journal.put([*daemon.started(), *daemon.run_started()])
    converse(daemon, journal, log, 0, log_first=True)
    events, ends = http_events(200 * MS, 1_001)
    journal.put(daemon.cycle(201 * MS, control=[opened(200 * MS, 1_001)], data=events))
    let_in(log, 1)
    log.leave_out()
    log.leave_out()
    log.append({"kind": "of a later enforcer"})
    log.flush()
    process = start()
    wait_until(lambda: witness(settings).get("missing") == 2, "the gap is counted")
    process.kill()
    process.wait()
    process = start()
    journal.put(daemon.cycle(300 * MS, control=[closed(300 * MS, 1_001, *ends)]))
    passed = {Side.UPSTREAM: 0, Side.CLIENT: ends[1]}
    log.append(entry.closed_entry(flow(1), passed, entry.Heard(count=ends[0], ended=True), time.time_ns()))
    log.flush()
    wait_until(lambda: witness(settings).get("flows") == 0, "all were compared")
    end(settings, process)
    assert [["verdicts not known: 2 entries of the decision log missing"]] == reasons(settings)
    findings = [
        record.body["finding"]
        for records in recorded(settings).values()
        for record in records
        if record.kind is Kind.MARKER and record.body.get("name") == "witness"
    ]
    assert ["verdicts not known: 2 entries of the decision log missing"] == findings
    assert (2, 1, 0) == tuple(witness(settings)[name] for name in ("missing", "unknown", "requests"))
    proven(settings)


def test_requests_are_held_against_decisions(settings: Configuration, start: Start, log: DecisionLog) -> None:
    """A connection with one decision less than it has answered requests is an alarm, though both moved the same bytes."""
    daemon, journal = Daemon(), Journal(settings)
    journal.put([*daemon.started(), *daemon.run_started()])
    journal.put(daemon.cycle(100 * MS, data=[]))
    process = start()
    converse(daemon, journal, log, 0, log_first=True, decided=REQUESTS - 1)
    wait_until(lambda: witness(settings).get("requests") == 1, "the alarm is counted")
    wait_until(lambda: witness(settings).get("flows") == 0, "all were compared")
    end(settings, process)
    assert [["undecided request: number 2 was answered, and the enforcer has no decision about it"]] == reasons(settings)


def test_silence_of_the_probes_is_no_answer(settings: Configuration, start: Start, log: DecisionLog) -> None:
    """Without a probe's word a connection is an alarm only once the daemon says that all is told, by the clock of now."""
    daemon, journal = Daemon(), Journal(settings)
    journal.put([*daemon.started(), *daemon.run_started()])
    process = start()
    wait_until(lambda: witness(settings).get("enforced"), "the role works")
    let_in(log, 1, later_ns=0)
    told_ns, position = time.time_ns() + AGE_NS + 1_000_000_000, journal.position()
    wait_until(lambda: witness(settings).get("flows") == 1 and time.time_ns() > told_ns, "the log was read, and it is late")
    not_read = Drained(realtime_ns=told_ns, file=position.file, offset=position.offset + 1)
    before_a_jump = Drained(realtime_ns=told_ns + LATER_NS, file=position.file, offset=position.offset)
    for word in (not_read, before_a_jump):
        tell(settings.drained_file, word)
        time.sleep(3 * DUE_SECONDS)
        assert 0 == witness(settings)["unseen"], word
    tell(settings.drained_file, Drained(realtime_ns=told_ns, file=position.file, offset=position.offset))
    wait_until(lambda: witness(settings).get("unseen") == 1, "the alarm is counted")
    end(settings, process)
