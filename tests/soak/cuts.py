"""Conversations with a database behind the proxy that are cut: either side, at the edges of messages and inside them.

However it is cut: everything ends, nothing of ours fails, no statement that was not allowed has run and none twice, and what
the client was told is the beginning of what it would have been told.

How many cuts of each conversation: CAPD_SOAK_CUTS; `make soak` asks for many, `make test` for few. Which: CAPD_SOAK_SEED.

What lives here: cutting one after the other, and judging what is left. What must not: a protocol, a server.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from tests.enforcer.proxied import ADDRESS, Proxied
from tests.soak.cutting import SECONDS_MAX, Client, Cut, Heard, Place, Relay, Step

CUTS = int(os.environ.get("CAPD_SOAK_CUTS", "40"))
SEED = int(os.environ.get("CAPD_SOAK_SEED", "1"))


class Sequences(Protocol):
    """Numbers in a server: each statement of a conversation moves one of its own, and nothing takes that back."""

    def connected(self) -> int:
        """Tell how many sessions of the client's the server has."""

    def reset(self) -> None:
        """Put all of them back."""

    def counts(self) -> dict[int, int]:
        """Tell how often each was moved."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """How messages are told apart.

    Attributes:
        edges: where messages begin, and the last one ends, in what went through a place.
        taken_apart: gives messages to a client, as far as they are the same each time, and what is left.
        seen: tells how many messages of a code there are.
        ends_it: whether a message says that the session is over.
        differs: whether a message is not the same each time.
    """

    edges: Callable[[bytes, Place], list[int]]
    taken_apart: Callable[[bytes], tuple[list[bytes], bytes]]
    seen: Callable[[bytes, str], int]
    ends_it: Callable[[bytes], bool]
    differs: Callable[[bytes], bool]


@dataclass(frozen=True, kw_only=True)
class Yard:
    """A server, and the relay before it."""

    relay: Relay
    sequences: Sequences
    language: Language


def cut_many(yard: Yard, proxy: Proxied, steps: Sequence[Step], most: Mapping[int, int], share: int = 1) -> bytes:
    """Have a conversation, then again with cuts, and judge each; gives what the client is told when nothing is cut.

    Args:
        yard: the server.
        proxy: before it.
        steps: what the client says.
        most: how often each sequence is moved when nothing is cut.
        share: of CUTS, one in so many: where a conversation takes longer to begin.
    """
    whole = _talk(yard, proxy, steps, None)
    counts = yard.sequences.counts()
    assert most == counts, f"nothing was cut, and they were moved {counts}"
    cuts = _cuts(yard.language, whole, random.Random(SEED))
    for cut in random.Random(SEED).sample(cuts, min(CUTS // share, len(cuts))):
        try:
            heard, counts = _talk(yard, proxy, steps, cut), yard.sequences.counts()
            more = {number: count for number, count in counts.items() if count > most[number]}
            assert not more, f"moved too often: {more}"
            _check(yard.language, *(bytes(one.passed[Place.TOLD]) for one in (heard, whole)))
        except Exception as error:
            error.add_note(f"CAPD_SOAK_SEED={SEED} {cut}")
            raise
    return bytes(whole.passed[Place.TOLD])


def _cuts(language: Language, heard: Heard, chance: random.Random) -> list[Cut]:
    """Give all of a conversation: at each edge of each side, just behind it, in a header and somewhere in a body."""
    found = []
    for place, data in heard.passed.items():
        edges = language.edges(bytes(data), place)
        assert edges[-1] == len(data)
        for begin, end in pairwise(edges):
            inside = {begin, begin + 1, begin + 3, chance.randint(begin, end - 1), end - 1}
            found += [Cut(place=place, at=at, reset=reset) for at in sorted(inside) if at for reset in (False, True)]
    return found


def _talk(yard: Yard, proxy: Proxied, steps: Sequence[Step], cut: Cut | None) -> Heard:
    """Have a conversation, and wait until all of it is over."""
    yard.sequences.reset()
    heard = Heard()
    yard.relay.cut, yard.relay.heard = cut, heard
    proxy.log.entries.clear()
    Client((ADDRESS, proxy.port), cut, heard).run(steps, yard.language.seen)
    _wait(lambda: "close" in [entry["kind"] for entry in list(proxy.log.entries)], "the proxy still has the connection")
    yard.relay.settle()
    _wait(lambda: not yard.sequences.connected(), "the server still has the session")
    assert [] == yard.relay.mistakes, yard.relay.mistakes
    assert [] == proxy.mistakes, proxy.mistakes
    assert 0 == proxy.counters.defects, "a mistake of ours"
    return heard


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.001)


def _check(language: Language, heard: bytes, whole: bytes) -> None:
    """Judge what the client was told before a cut: the beginning of the whole, and perhaps that it is over."""
    told, rest = language.taken_apart(heard)
    expected, _ = language.taken_apart(whole)
    if told and told[-1] not in expected and language.ends_it(told[-1]):
        told.pop()
        assert b"" == rest, rest
    odd = next((pair for pair in zip(expected, told, strict=False) if pair[0] != pair[1]), None)
    assert odd is None, odd
    assert len(told) <= len(expected), told[len(expected) :]
    following = expected[len(told)] if len(told) < len(expected) else b""
    assert following.startswith(rest) or language.differs(following), (following, rest)
