"""A turn of the daemon that is read in two parts: the end of a socket comes before what was said on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from capd.daemon.assembly import sessions as table
from capd.daemon.assembly.assembler import Assembler
from capd.probes.layouts import Role
from capd.recording.journal import Block
from capd.recording.record import Kind, Record
from tests.assembly.world import REQUEST, Daemon, assemble, assembler, closed, moved, of_kind, opened, verdicts

SOCKET = 9
UNIX = {"family": 1, "protocol": 0, "role": Role.UNKNOWN, "peer": ("", 0), "local": ("", 0)}
SAID = [moved(110, SOCKET, REQUEST, 0, b"said")]


def begun(daemon: Daemon) -> list[list[Block]]:
    """Give what comes before: a daemon of today, and a run."""
    return [daemon.started(form=2), daemon.run_started()]


def socket_told(at_ns: int, *, said_bytes: int = 4, socket: int = SOCKET) -> list[bytes]:
    """Give begin and end of a socket, as the control ring has them."""
    return [opened(at_ns, socket, **UNIX), closed(at_ns + 20, socket, said_bytes, 0)]  # type: ignore[arg-type]


def told(cycles: Sequence[list[Block]], *, remembered: bool) -> list[Record]:
    """Give the records of cycles; with `remembered`, each is read by a recorder that knows what the one before remembered."""
    if not remembered:
        return assemble(cycles)
    made: Assembler = assembler()
    records: list[Record] = []
    for blocks in cycles:
        records += [record for batch in made.process(blocks) for record in batch.records]
        made = assembler(made.snapshot())
    return [*records, *made.settle().records]


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize(
    ("said_bytes", "verdict"),
    [(4, ("complete", [])), (15, ("partial", ["not delivered: 11 bytes of the request missing"]))],
)
def test_what_was_told_of_a_socket_waits_for_what_it_said(
    said_bytes: int, verdict: tuple[str, list[str]], *, remembered: bool
) -> None:
    """The session knows what it is, ends where its socket did, and says how much is missing."""
    daemon = Daemon()
    cycles = [*begun(daemon), daemon.cycle(200, control=socket_told(100, said_bytes=said_bytes)), daemon.cycle(201, data=SAID)]
    records = told([*cycles, daemon.drained(202)], remembered=remembered)
    assert "unix" == of_kind(records, Kind.OPEN)[-1].body["transport"]
    (found,) = verdicts(records)
    assert verdict[0] == found[0]
    assert [words.partition(": ")[2] for words in verdict[1]] == [words.partition(": ")[2] for words in found[1]]


def test_a_socket_that_said_nothing_leaves_nothing() -> None:
    """Once all is drained nobody waits for it: neither its begin nor its end is kept."""
    daemon, made = Daemon(), assembler()
    records = assemble([*begun(daemon), daemon.cycle(200, control=socket_told(100))], into=made)
    assert (1, 1) == (len(made.table.sockets()), len(made.table.ends()))
    records += assemble([daemon.drained(202)], into=made)
    assert ([], []) == (made.table.sockets(), made.table.ends())
    assert [] == verdicts(records)


def test_what_is_forgotten_for_want_of_room_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more sockets ended than can be remembered, what the oldest said is known to be the rest of something."""
    monkeypatch.setattr(table, "SOCKETS_MAX", 1)
    daemon = Daemon()
    control = [*socket_told(100), *socket_told(130, socket=SOCKET + 1)]
    cycles = [*begun(daemon), daemon.cycle(200, control=control), daemon.cycle(201, data=SAID), daemon.drained(202)]
    ((verdict, reasons),) = verdicts(assemble([*cycles, daemon.note(203, note="run_ended", key=7), daemon.drained(204)]))
    assert ("partial", True) == (verdict, "started before capture" in reasons)


def test_a_session_of_a_socket_that_nobody_told_of_is_not_complete() -> None:
    """That its begin and its end are missing is a reason of its own."""
    daemon = Daemon()
    cycles = [*begun(daemon), daemon.cycle(201, data=SAID), daemon.note(203, note="run_ended", key=7), daemon.drained(204)]
    assert [("partial", ["nothing was told of its socket, nor how much it moved"])] == verdicts(assemble(cycles))
