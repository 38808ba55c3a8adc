"""Digests of what was said: the same however it came in pieces."""

from __future__ import annotations

from random import Random

import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.stream_digest import DIGESTED_BYTES, KEY_BYTES, StreamDigest

KEY = bytes(range(KEY_BYTES))
SIZES = st.lists(st.sampled_from([0, 1, 60, DIGESTED_BYTES - 61, DIGESTED_BYTES - 1, DIGESTED_BYTES, 5_000]), max_size=12)


@given(SIZES, st.randoms(use_true_random=False))
def test_pieces(sizes: list[int], random: Random) -> None:
    """Whatever its pieces, the digest and the count are those of the whole, in its order."""
    pieces = [random.randbytes(size) for size in sizes]
    digest = StreamDigest(KEY)
    for piece in pieces:
        digest.take(piece)
    whole = b"".join(pieces)
    assert (len(whole), Poly1305.generate_tag(KEY, whole)) == (digest.count, digest.end())


def test_the_end() -> None:
    """Nothing can be taken behind the end: it would be in no digest."""
    digest = StreamDigest(KEY)
    digest.take(b"a")
    digest.end()
    with pytest.raises(AttributeError):
        digest.take(b"b")
