"""Completeness: no session is called complete of which something may be missing, however the daemon or the host ended."""

from __future__ import annotations

import pytest

from capd.daemon.assembly.assembler import Assembler
from capd.recording.journal import Block
from capd.recording.record import Kind, Record, Value
from tests.assembly.world import (
    HOST,
    MS,
    REQUEST,
    RESPONSE,
    RUN,
    RUN_ID,
    Daemon,
    assemble,
    assembler,
    closed,
    executed,
    exited,
    gaps,
    moved,
    of_kind,
    opened,
    stream,
    tls_closed,
    tls_opened,
    verdicts,
)

HELLO = bytes.fromhex("16030100050100000100")
SOCKET, TLS, CONTROL = 0, 1, 2
SECOND = 1_000 * MS
RESTART = "capture restarted: an unknown number of bytes missing"


def begin(daemon: Daemon) -> list[list[Block]]:
    """Give the cycles that every story begins with."""
    return [daemon.started(form=2), daemon.run_started()]


def told(into: Assembler, *cycles: list[Block]) -> list[Record]:
    """Give the records of cycles; nothing is settled."""
    return [record for blocks in cycles for batch in into.process(blocks) for record in batch.records]


def secret(daemon: Daemon) -> list[Block]:
    """Give a cycle in which TLS begins on socket 9 with stream 77, and says twelve bytes."""
    data = [moved(2 * MS, 9, REQUEST, 0, HELLO), moved(3 * MS, 77, REQUEST, 0, b"GET / HTTP/1", tls=True, socket=9)]
    return daemon.cycle(4 * MS, control=[opened(MS, 9), tls_opened(3 * MS, 77, 9)], data=data)


def run_losses(records: list[Record]) -> list[dict[str, Value]]:
    """Give what was told of the run."""
    found = [record for record in of_kind(records, Kind.MARKER) if record.body["name"] == "run_losses"]
    assert {RUN_ID} >= {record.session for record in found}
    return [{name: value for name, value in record.body.items() if name != "name"} for record in found]


def test_an_end_is_judged_with_what_was_lost_before_it() -> None:
    """The last plaintext is lost and the process is gone at once, without SSL_free: the note before the end tells it."""
    daemon = Daemon()
    note = daemon.lost(10 * MS, (77, TLS, REQUEST, 30), ring_full_bytes=30)
    end = daemon.cycle(10 * MS, control=[closed(5 * MS, 9, len(HELLO), 0), exited(6 * MS)])
    story = [*begin(daemon), secret(daemon), [*note, *end], daemon.drained(10 * MS)]
    records = assemble(story)
    assert [(REQUEST, 12, 30, "ring full")] == gaps(records)
    assert [("partial", ["ring full: 30 bytes of the request missing"])] == verdicts(records)


def test_what_all_was_lost_of_tls_is_missing_once() -> None:
    """Of a connection whose every byte was lost, what was said is missing once: what its socket lost is the TLS around it."""
    daemon = Daemon()
    story = [daemon.started(form=2), daemon.run_started()]
    story.append(daemon.cycle(1 * MS, control=[opened(1 * MS, 9), tls_opened(2 * MS, 4, 9)]))
    story.append(daemon.lost(3 * MS, (9, 0, REQUEST, 8022), (4, 1, REQUEST, 8000), ring_full=2))
    story.append(daemon.cycle(4 * MS, control=[closed(4 * MS, 9, 8022, 0)]))
    records = of_kind(assemble([*story, daemon.drained(5 * MS)]), Kind.GAP)
    missing = [(record.body["length"], record.body["layer"]) for record in records]
    assert [(8022, "wire"), (8000, "application")] == missing


def test_growth_of_losses_adds_up() -> None:
    """Each note of form 2 tells what came to the losses since the one before."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon)]
    story += [
        daemon.lost(10 * MS, (77, TLS, REQUEST, 30)),
        daemon.lost(20 * MS, (77, TLS, REQUEST, 12), (9, SOCKET, RESPONSE, 1)),
    ]
    story += [daemon.cycle(30 * MS, control=[closed(25 * MS, 9, len(HELLO), 0)]), daemon.drained(30 * MS)]
    assert {(REQUEST, 12, 42, "ring full"), (RESPONSE, 0, 1, "ring full")} == set(gaps(assemble(story)))


def test_an_end_waits_for_data_that_the_daemon_has_not_written_yet() -> None:
    """However long the journal takes nothing: what was not drained is not lost, and nothing is concluded from its absence."""
    daemon = Daemon()
    made = assembler()
    told(made, *begin(daemon), daemon.cycle(10 * MS, control=[opened(500, 9), closed(9 * MS, 9, 6, 0)]))
    quiet = [daemon.cycle((10 + turn) * SECOND, control=[executed(SECOND, b"/bin/true", pid=5)]) for turn in range(20)]
    records = told(made, *quiet)
    assert not made.unsettled
    records += made.settle().records
    assert [] == of_kind(records, Kind.CLOSE) == gaps(records)  # type: ignore[comparison-overlap]
    records = told(made, daemon.cycle(40 * SECOND, data=[moved(1_000, 9, REQUEST, 0, b"abcdef")]), daemon.drained(10 * MS))
    assert b"abcdef" == stream(records, REQUEST)
    assert [("complete", [])] == verdicts(records)


def test_a_drained_end_waits_for_nothing() -> None:
    """When the daemon says that all was drained, what is missing is lost, and the session ends in that cycle."""
    daemon = Daemon()
    made = assembler()
    told(made, *begin(daemon), daemon.cycle(10 * MS, control=[opened(500, 9), closed(9 * MS, 9, 6, 0)]))
    records = told(made, daemon.drained(10 * MS))
    assert [("partial", ["ring full: 6 bytes of the request missing"])] == verdicts(records)


@pytest.mark.parametrize("drained", [True, False])
def test_a_daemon_killed_between_an_end_and_its_data(drained: bool) -> None:
    """What was in the data ring went with the daemon: unless it had said that all was drained, the session is partial."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.cycle(10 * MS, control=[closed(5 * MS, 9, len(HELLO), 0)])]
    story += [daemon.drained(10 * MS)] if drained else []
    story += [daemon.started(20 * MS, epoch=HOST, form=2)]
    assert [("complete", []) if drained else ("partial", [RESTART])] == verdicts(assemble(story))


def test_a_daemon_killed_between_an_end_and_its_data_of_known_length() -> None:
    """Without TLS the end says how much there was."""
    daemon = Daemon()
    story = [*begin(daemon), daemon.cycle(10 * MS, control=[opened(500, 9), closed(5 * MS, 9, 6, 0)])]
    story += [daemon.started(20 * MS, epoch=HOST, form=2)]
    assert [("partial", ["capture restarted: 6 bytes of the request missing"])] == verdicts(assemble(story))


def test_losses_before_a_restart_belong_to_the_sessions_before_it() -> None:
    """A session that had ended, and waited for its TLS library's farewell, is judged with what the former daemon noted."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.lost(9 * MS, (77, TLS, REQUEST, 30))]
    story += [daemon.cycle(10 * MS, control=[closed(5 * MS, 9, len(HELLO), 0)]), daemon.drained(10 * MS)]
    story += [daemon.started(20 * MS, epoch=HOST, form=2)]
    assert [("partial", ["ring full: 30 bytes of the request missing"])] == verdicts(assemble(story))


def test_a_late_farewell_is_waited_for() -> None:
    """Python frees the library's object after it closed the socket; what that tells is heard."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.cycle(10 * MS, control=[closed(5 * MS, 9, len(HELLO), 0)])]
    story += [
        daemon.drained(10 * MS),
        daemon.cycle(20 * MS, control=[tls_closed(15 * MS, 77, 9, 20, 0)]),
        daemon.drained(20 * MS),
    ]
    assert [("partial", ["ring full: 8 bytes of the request missing"])] == verdicts(assemble(story))


def test_a_reboot_cuts_off_what_was_open() -> None:
    """What a session said after the last block on disk is not known."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.started(5, epoch=HOST, boot=HOST, form=2)]
    assert [("partial", ["the host was started anew"])] == verdicts(assemble(story))


@pytest.mark.parametrize(
    ("counter", "reason"),
    [
        ("map_full", "a table of the probes was full"),
        ("programs_skipped", "the kernel did not run a probe"),
        ("losses_untold", "more connections lost bytes than the kernel's table has room for"),
    ],
)
def test_a_loss_that_nobody_can_place_concerns_all_that_were_there(counter: str, reason: str) -> None:
    """Plaintext may be missing without a trace; sessions that began later are not touched."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.lost(8 * MS, **{counter: 1})]
    story += [daemon.cycle(10 * MS, control=[closed(9 * MS, 9, len(HELLO), 0)]), daemon.drained(10 * MS)]
    story += [daemon.cycle(SECOND, control=[executed(SECOND, b"/bin/true", pid=5)])]
    later = [opened(2 * SECOND, 10), closed(2 * SECOND + 2, 10, 3, 0)]
    story += [daemon.lost(2 * SECOND, **{counter: 1})]
    story += [daemon.cycle(3 * SECOND, control=later, data=[moved(2 * SECOND + 1, 10, REQUEST, 0, b"abc")])]
    story += [daemon.drained(3 * SECOND)]
    assert [("partial", [reason]), ("complete", [])] == verdicts(assemble(story))


def test_a_connection_of_which_nothing_was_recorded_is_told_of_its_run() -> None:
    """All events of a connection were lost: it is no session, and its run says so, at the latest when it ends."""
    daemon = Daemon()
    story = [*begin(daemon), daemon.lost(10 * MS, (55, SOCKET, REQUEST, 10), (55, SOCKET, RESPONSE, 5), (RUN, CONTROL, 0, 2))]
    story += [daemon.note(20 * MS, note="run_ended", key=RUN)]
    told_of = run_losses(assemble(story))
    assert {"control_events": 2, "streams": 0, "bytes": 0} == told_of[0]
    assert {"control_events": 2, "streams": 1, "bytes": 15} == told_of[-1]


def test_a_connection_of_which_nothing_was_recorded_is_told_of_a_run_that_goes_on() -> None:
    """A service never ends; five seconds after a loss its stream has a session, or none."""
    daemon = Daemon()
    made = assembler()
    begun = [*begin(daemon), secret(daemon), daemon.lost(10 * MS, (55, SOCKET, REQUEST, 10), (9, SOCKET, REQUEST, 4))]
    assert [] == run_losses(told(made, *begun))
    records = told(made, daemon.cycle(6 * SECOND, control=[executed(SECOND, b"/bin/true", pid=5)]))
    assert [{"control_events": 0, "streams": 1, "bytes": 10}] == run_losses(records)


def test_the_end_of_a_run_concerns_its_own_connections() -> None:
    """What another run lost may belong to data that is still on its way."""
    daemon = Daemon()
    story = [*begin(daemon), secret(daemon), daemon.lost(8 * MS, (55, SOCKET, REQUEST, 3), run=RUN + 1)]
    story += [daemon.note(20 * MS, note="run_ended", key=RUN)]
    story += [daemon.cycle(30 * MS, control=[opened(25 * MS, 55)], data=[moved(7 * MS, 55, REQUEST, 0, b"abc")])]
    story += [daemon.cycle(40 * MS, control=[closed(35 * MS, 55, 6, 0)]), daemon.drained(40 * MS)]
    records = assemble(story)
    assert [] == run_losses(records)
    assert [(REQUEST, 3, 3, "ring full")] == gaps(records)


def test_lost_control_events_of_another_run_do_not_touch_a_session() -> None:
    """Whose lifecycle events were lost is known: a session whose end nobody told is partial for losses of its own run only."""
    daemon = Daemon()
    for run, verdict in ((RUN + 1, ("complete", [])), (RUN, ("partial", ["its beginning or end was lost"]))):
        story = [*begin(daemon), daemon.cycle(10 * MS, control=[opened(500, 9)], data=[moved(1_000, 9, REQUEST, 0, b"abc")])]
        story += [daemon.lost(20 * MS, (run, CONTROL, 0, 1), run=run, control_lost=1)]
        story += [daemon.note(30 * MS, note="run_ended", key=RUN)]
        assert [verdict] == verdicts(assemble(story))
