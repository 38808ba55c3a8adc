"""Connections by their ends: an agent may begin and end as many between two ends as it likes."""

from __future__ import annotations

import time
from uuid import UUID

from capd.daemon.witness.ends import NEWEST_MAX, EndsIndex
from capd.daemon.witness.state import Seen
from tests.witness.world import START

CLIENT, TARGET = ("10.0.0.1", 4000), ("192.0.2.1", 443)


def connection(number: int) -> Seen:
    """Give one between the same two ends."""
    at_ns = START + number
    return Seen(session=UUID(int=number), run=None, cookie=None, local=CLIENT, target=TARGET, started_ns=at_ns, last_ns=at_ns)


def test_the_newest_are_found() -> None:
    """Of one that was told of again the last word counts; nobody is found whose ends are others, or who is gone."""
    index, (first, second) = EndsIndex(), (connection(1), connection(2))
    for seen in (first, second):
        index.add(seen)
    assert [second.session, first.session] == index.between(CLIENT, TARGET)
    index.remove(first)
    index.add(first)
    assert [first.session, second.session] == index.between(CLIENT, TARGET)
    assert [[], []] == [index.between(CLIENT, None), index.between(TARGET, CLIENT)]
    for seen in (first, second):
        index.remove(seen)
    assert ([], {}) == (index.between(CLIENT, TARGET), index._sessions)


def test_one_port_used_without_end_takes_no_more_time() -> None:
    """Letting go of one of thousands with the same ends, and finding what a line of the log is about, look at few of them."""
    index, many = EndsIndex(), [connection(number) for number in range(20_000)]
    began = time.process_time()
    for seen in many:
        index.add(seen)
    assert NEWEST_MAX == len(index.between(CLIENT, TARGET))
    for seen in many:
        index.remove(seen)
    assert 2 > time.process_time() - began
