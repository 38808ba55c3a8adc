"""What an agent looks at and leaves where it is: it was heard, so what nobody took is missing."""

from __future__ import annotations

import pytest

from capd.probes.layouts import Absence, Tie
from tests.assembly.world import (
    MS,
    REQUEST,
    RESPONSE,
    Daemon,
    assemble,
    closed,
    moved,
    opened,
    tls_closed,
    tls_opened,
    verdicts,
)

SOCKET, STREAM = 41, 42
ASKED, ANSWER, OVER = moved(4 * MS, SOCKET, REQUEST, 0, b"ask"), moved(6 * MS, SOCKET, RESPONSE, 0, b"answer"), 9 * MS
LOOK = moved(5 * MS, SOCKET, RESPONSE, 0, b"", length=6, absence=Absence.PEEKED)
HEADER = moved(8 * MS, SOCKET, RESPONSE, 30, b"", length=5, absence=Absence.PEEKED)
CLEAR = [opened(3 * MS, SOCKET)]
MISSING = ("partial", ["looked at and not taken: 6 bytes of the response missing"])
COMPLETE: tuple[str, list[str]] = ("complete", [])


@pytest.mark.parametrize(
    ("data", "heard", "expected"),
    [
        pytest.param([ASKED, LOOK, ANSWER], 6, COMPLETE, id="taken afterwards"),
        pytest.param([ASKED, LOOK], 6, MISSING, id="not taken"),
        pytest.param([ASKED, LOOK], 0, MISSING, id="not taken, and its end tells nothing of it"),
        pytest.param([LOOK, ASKED], 6, MISSING, id="before anything else"),
    ],
)
def test_of_what_was_looked_at(data: list[bytes], heard: int, expected: tuple[str, list[str]]) -> None:
    """Who took it has it in the record; who did not has heard what the record does not have."""
    daemon = Daemon()
    end = closed(OVER, SOCKET, 3, heard, (3, heard))
    records = assemble(
        [
            daemon.started(),
            daemon.run_started(),
            daemon.cycle(OVER, control=[*CLEAR, end], data=data),
            daemon.drained(OVER + 9_000 * MS),
        ]
    )
    assert [expected] == verdicts(records)


def test_a_look_that_is_told_after_the_end() -> None:
    """The end says how far was looked, so that the session waits for what comes in a later cycle."""
    daemon = Daemon()
    first = daemon.cycle(OVER, control=[*CLEAR, closed(OVER, SOCKET, 3, 6, (3, 0))], data=[ASKED])
    records = assemble(
        [daemon.started(), daemon.run_started(), first, daemon.cycle(OVER + MS, data=[LOOK]), daemon.drained(OVER + 9_000 * MS)]
    )
    assert [MISSING] == verdicts(records)


@pytest.mark.parametrize(("length", "expected"), [(6, MISSING[1]), (4, [])])
def test_looks_inside_tls_count_as_plaintext(length: int, expected: list[str]) -> None:
    """Of a TLS stream more was looked at than read; a header of ciphertext on its socket says nothing."""
    daemon = Daemon()
    wire = [
        moved(at, SOCKET, direction, 0, b"", length=30, absence=Absence.CIPHERTEXT, tie=Tie.NESTED)
        for at, direction in ((4 * MS, 0), (5 * MS, 1))
    ]
    said = [
        moved(4 * MS, STREAM, REQUEST, 0, b"ask", tls=True, socket=SOCKET),
        moved(6 * MS, STREAM, RESPONSE, 0, b"answ", tls=True, socket=SOCKET),
    ]
    look = moved(
        5 * MS, STREAM, RESPONSE, 4 if length == 6 else 0, b"", tls=True, socket=SOCKET, length=length, absence=Absence.PEEKED
    )
    control = [*CLEAR, tls_opened(4 * MS, STREAM, SOCKET), tls_closed(OVER, STREAM, SOCKET, 3, 10 if length == 6 else 4)]
    cycle = daemon.cycle(OVER, control=[*control, closed(OVER, SOCKET, 30, 30, (30, 30))], data=[*wire, *said, look, HEADER])
    records = assemble([daemon.started(), daemon.run_started(), cycle, daemon.drained(OVER + 9_000 * MS)])
    assert [("partial" if expected else "complete", expected)] == verdicts(records)
