"""Programs outside of all runs that are spoken to over unix sockets: an alarm, once, and not what runs say to each other."""

from __future__ import annotations

import pytest

from capd.daemon.witness import outside
from capd.daemon.witness.witness import Witness
from capd.recording.record import Kind, Record, Value
from tests.witness.world import START, Connection, findings, later, seen, witness

ONE, TWO = Connection(number=1), Connection(number=2)
DOCKER = "/run/docker.sock"


def opened(one: Connection, name: str | None, **more: Value) -> Record:
    """Give the beginning of a session over a unix socket with a name."""
    target: Value = None if name is None else {"host": name, "port": None}
    return one.opened(**{"transport": "unix", "socket": 1 << 62 | one.number, "local": None, "target": target, **more})


def served(one: Connection, name: str) -> Record:
    """Give the beginning of one that a run accepted."""
    return opened(one, name, role="server")


LOST = Record(Kind.GAP, ONE.session, START, None, {"position": 0, "length": 9, "layer": "application", "reason": "ring full"})
CASES: dict[str, tuple[list[Record], list[str]]] = {
    "a container runtime": ([opened(ONE, DOCKER), ONE.data()], ["helper"]),
    "an abstract name": ([opened(ONE, "@relay"), ONE.data(), ONE.closed()], ["helper"]),
    "two of them": ([opened(ONE, DOCKER), ONE.data(), opened(TWO, DOCKER), TWO.data()], ["helper", "helper"]),
    "passed on, so that nobody knows who opened it": ([opened(ONE, DOCKER, role="unknown"), ONE.data()], ["helper"]),
    "nothing was said": ([opened(ONE, DOCKER), ONE.closed()], []),
    "another run listens": ([opened(ONE, "/tmp/a"), ONE.data(), served(TWO, "/tmp/a"), TWO.data()], []),
    "it listened before": ([served(TWO, "/tmp/a"), TWO.closed(), opened(ONE, "/tmp/a"), ONE.data()], []),
    "a run's own server": ([served(ONE, "/tmp/a"), ONE.data()], []),
    "no name": ([opened(ONE, None), ONE.data()], []),
    "no run": ([opened(ONE, DOCKER, run=None), ONE.data()], []),
    "it began before capture": ([opened(ONE, DOCKER, mid_stream=True, role="unknown"), ONE.data()], []),
    "its beginning was lost, and not its connect": ([opened(ONE, DOCKER, mid_stream=True), ONE.data()], ["helper"]),
    "what was said was lost": ([opened(ONE, DOCKER), LOST], ["helper"]),
    "whose it is is known later": ([opened(ONE, DOCKER, run=None), ONE.data(), opened(ONE, DOCKER)], ["helper"]),
    "its name is known later": ([opened(ONE, None), ONE.data(), opened(ONE, DOCKER)], ["helper"]),
    "a name that is allowed": ([opened(ONE, "/run/log/lines"), ONE.data()], []),
    "a name like one": ([opened(ONE, "@/run/log/lines"), ONE.data()], ["helper"]),
}


def looking(*, enforced: bool = True) -> Witness:
    """Give a witness of a host on which lines may be logged."""
    return witness(helpers=("/run/log/*",), enforced=enforced)


@pytest.mark.parametrize("name", CASES)
def test_what_is_an_alarm(name: str) -> None:
    """Who listens decides, as far as its name tells; the finding is told once, and the session stays what it is."""
    records, expected = CASES[name]
    made = looking()
    out = [*seen(made, records), *later(made), *later(made)]
    assert (expected, len(expected)) == (findings(out), made.books.counts.helpers)


def test_it_is_not_told_before_a_run_had_time_to_answer() -> None:
    """Who listens may be told of later than who speaks."""
    made = looking()
    assert [] == findings([*seen(made, [opened(ONE, "/tmp/a"), ONE.data()]), *later(made, 2)])
    assert [] == findings([*seen(made, [served(TWO, "/tmp/a")]), *later(made, 20)])


def test_without_enforcement_it_is_none() -> None:
    """Nothing is forced then, by whatever way it goes out."""
    made = looking(enforced=False)
    assert ([], {}) == (findings([*seen(made, CASES["two of them"][0]), *later(made)]), made.books.helped)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than can wait the oldest are judged at once; names that were listened at are forgotten, the oldest first."""
    for name in ("HELPED_MAX", "SERVED_MAX"):
        monkeypatch.setattr(outside, name, 3)
    made = looking()
    many = [Connection(number=number) for number in range(10, 20)]
    records = [record for one in many for record in (opened(one, DOCKER), one.data())]
    out = [*seen(made, [*(served(one, f"/tmp/{one.number}") for one in many), *records]), *later(made, 1)]
    assert ([*["helper"] * 7], 3, 3) == (findings(out), len(made.books.helped), len(made.books.served))
