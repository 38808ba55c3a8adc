"""What a worker remembers of a database's functions, and what tells it that this is of another time."""

from __future__ import annotations

import os

from capd.enforcer.proxy.postgresql.known_functions import KNOWN_SECONDS, KnownFunctions, Stamps


def test_stamps_are_of_all_workers() -> None:
    """A worker is told that another one's session may have defined something; of other databases nothing is asked anew."""
    stamps, here, elsewhere = Stamps(), ("192.0.2.1", 5432, "shop"), ("192.0.2.1", 5432, "other")
    mine, others = KnownFunctions(stamps), KnownFunctions(stamps)
    for place in (here, elsewhere):
        assert mine.at(place).of(0.0) is None
    first = mine.at(here)
    stamp = first.stamp
    first.learn(1.0, stamp, frozenset({"lower"}))
    assert (stamp, frozenset({"lower"})) == mine.at(here).of(2.0)
    assert mine.at(here).of(1.0 + KNOWN_SECONDS) is None
    child = os.fork()
    if child == 0:
        others.at(("2001:db8::1", 5432, "shop")).defines(0.0)  # the same server by another of its addresses
        os._exit(0)
    os.waitpid(child, 0)
    assert stamp != mine.at(here).stamp
    assert mine.at(here).of(2.0) is None
    assert not mine.at(elsewhere).stamp


def test_while_a_message_is_under_way_nothing_is_remembered() -> None:
    """However long a message takes that may define something: other sessions of all workers ask each time, its own does not."""
    stamps, place = Stamps(), ("192.0.2.1", 5432, "shop")
    mine, others = KnownFunctions(stamps, 0), KnownFunctions(stamps, 1)
    definer, beside, elsewhere = mine.at(place), mine.at(place), others.at(place)
    definer.begins(1.0)
    for _ in range(2):
        for one in (beside, elsewhere):
            one.learn(1_000.0, one.stamp, frozenset())
            assert one.of(1_001.0) is None
        definer.learn(1_000.0, definer.stamp, frozenset())
        assert (definer.stamp, frozenset()) == definer.of(1_001.0)
        definer.ends()
        for one in (beside, elsewhere):
            assert (one.stamp, frozenset()) == one.of(1_002.0)
        definer.begins(900.0)
    definer.ends(1_500.0)  # its client has left
    for at, known in ((1_499.0, False), (1_501.0, True)):
        for one in (beside, elsewhere):
            one.learn(at, one.stamp, frozenset())
            assert known == (one.of(at) is not None)


def test_within_seconds_of_a_definition_nothing_is_remembered() -> None:
    """When the server comes to what was said nobody knows: so long each session asks for itself."""
    here = KnownFunctions().at(("192.0.2.1", 5432, "shop"))
    here.defines(100.0)
    here.learn(101.0, here.stamp, frozenset())
    assert here.of(102.0) is None
    here.learn(101.0 + KNOWN_SECONDS, here.stamp, frozenset())
    assert (here.stamp, frozenset()) == here.of(102.0 + KNOWN_SECONDS)
