"""Hostile bytes, many of them: a decoder either decodes them or raises ProtocolError, and nothing else.

How many cases: CAPD_SOAK_CASES, for each decoder half of them; `make soak` asks for a million, `make test` runs a few
thousand. Where they begin: CAPD_SOAK_SEED. A failure names the seed of its case; CAPD_SOAK_SEED=that CAPD_SOAK_CASES=2 runs
it again.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.decoders.conversations import DECODERS, noise, spoil
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, check_spans, feed, normal, size, split_at

CASES = int(os.environ.get("CAPD_SOAK_CASES", "4000"))
SEED = int(os.environ.get("CAPD_SOAK_SEED", "1"))
SPLIT_EVERY = 4
"""Each fourth case is cut in another way too and must give the same."""
NOISE_EVERY = 3
"""Each third case is random from the start, the others are valid conversations that were spoiled."""
CASE_SECONDS_MAX = 2.0
"""A case is a few kilobytes; a decoder that takes longer for it does not grow linearly."""


def case(protocol: str, seed: int) -> list[Arrival]:
    """The arrivals of a case; both directions end."""
    chance = random.Random(seed)
    arrivals = noise(protocol, chance) if seed % NOISE_EVERY == 0 else spoil(protocol, chance)
    return [*arrivals, (REQUEST, b""), (RESPONSE, b"")]


def check(protocol: str, seed: int) -> None:
    """Decode a case and judge what came out."""
    arrivals = case(protocol, seed)
    begin = time.process_time()
    seen = feed(DECODERS[protocol](), arrivals)
    assert time.process_time() - begin < CASE_SECONDS_MAX
    check_spans(arrivals, seen)
    if seed % SPLIT_EVERY == 0:
        chance = random.Random(-seed)
        cuts = chance.choices(range(size(arrivals) + 1), k=chance.randint(1, 20))
        assert normal(seen) == normal(feed(DECODERS[protocol](), split_at(arrivals, cuts)))


@pytest.mark.parametrize("protocol", sorted(DECODERS))
def test_hostile_bytes(protocol: str) -> None:
    """Nothing but ProtocolError is raised, no byte is left out of the events, and cutting elsewhere changes nothing."""
    for seed in range(SEED, SEED + CASES // len(DECODERS)):
        try:
            check(protocol, seed)
        except Exception as error:
            error.add_note(f"CAPD_SOAK_SEED={seed} protocol={protocol}")
            raise
