"""What holds for every decoder and any bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.decoders.message import Gap
from tests.decoders.conversations import DECODERS, VALID, noise, spoil
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, byte_by_byte, check_spans, feed, normal, size, split_at
from tests.odd_bytes import odd

PROTOCOLS = sorted(DECODERS)
GAPS = st.builds(Gap, length=st.none() | st.integers(0, 100), reason=st.just("x"))
ARRIVALS = st.lists(st.tuples(st.sampled_from([REQUEST, RESPONSE]), st.binary(max_size=80) | odd() | GAPS), max_size=12)


def spoiled(protocol: str) -> st.SearchStrategy[list[Arrival]]:
    """Conversations with something wrong."""
    return st.integers(0, 2**32).map(lambda seed: spoil(protocol, random.Random(seed)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_any_split_of_valid_bytes(protocol: str, data: st.DataObject) -> None:
    """However a valid conversation is cut, it gives the same messages."""
    arrivals = data.draw(st.sampled_from(VALID[protocol]))
    cuts = data.draw(st.lists(st.integers(0, max(1, size(arrivals)))))
    assert normal(feed(DECODERS[protocol](), arrivals)) == normal(feed(DECODERS[protocol](), split_at(arrivals, cuts)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_any_split_of_spoiled_bytes(protocol: str, data: st.DataObject) -> None:
    """However a spoiled conversation is cut, it gives the same messages and the same errors."""
    arrivals = data.draw(spoiled(protocol))
    cuts = data.draw(st.lists(st.integers(0, max(1, size(arrivals)))))
    whole = normal(feed(DECODERS[protocol](), arrivals))
    assert whole == normal(feed(DECODERS[protocol](), split_at(arrivals, cuts)))
    assert whole == normal(feed(DECODERS[protocol](), byte_by_byte(arrivals)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_any_bytes(protocol: str, data: st.DataObject) -> None:
    """Whatever arrives, nothing but ProtocolError is raised, and spans are in order and leave no byte out."""
    arrivals = data.draw(
        ARRIVALS | spoiled(protocol) | st.integers(0, 2**32).map(lambda seed: noise(protocol, random.Random(seed)))
    )
    seen = feed(DECODERS[protocol](), arrivals)
    check_spans(arrivals, seen, ended=False)
    ended: list[Arrival] = [*arrivals, (REQUEST, b""), (RESPONSE, b"")]
    check_spans(ended, feed(DECODERS[protocol](), ended))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_lazy_reader(protocol: str, data: st.DataObject) -> None:
    """Whether events are taken after each arrival or all at the end changes nothing, not even their order."""
    arrivals = data.draw(spoiled(protocol))
    eager, lazy = DECODERS[protocol](), DECODERS[protocol]()
    expected = feed(eager, arrivals)
    for direction, item in arrivals[:-1]:
        lazy.receive(direction, item)
    assert [repr(event) for event in expected] == [repr(event) for event in feed(lazy, arrivals[-1:])]
