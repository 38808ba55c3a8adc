"""Bytes that generators of tests rarely give: long, random, half like a text.

What lives here: making them by chance, or from a seed that shrinks. What must not: any protocol.

Hypothesis' own binaries are short, of mostly small numbers: what goes wrong once in a thousand pieces of ciphertext they do not
meet.
"""

from __future__ import annotations

import random
from typing import Final

from hypothesis import strategies as st

_SIGNS: Final = b" \r\n\t:;=,'\"\\{}[]()*$+-_%&@/0123456789abcxyzAZ\0\1\x7f\x80\xff"


def odd_bytes(chance: random.Random, most: int = 1_024) -> bytes:
    """Give up to so many bytes: random, beyond ASCII, controls, signs that protocols use, or one again and again."""
    size = int(2 ** chance.uniform(0, most.bit_length()))
    size = min(size, most)
    data = chance.randbytes(size)
    kind = chance.randrange(5)
    if kind == 1:
        return bytes(byte | 0x80 for byte in data)
    if kind == 2:
        return bytes(byte & 0x1F for byte in data)
    if kind == 3:
        return bytes(chance.choices(_SIGNS, k=size))
    return data if kind == 0 else data[:1] * size


def odd(most: int = 1_024) -> st.SearchStrategy[bytes]:
    """Give the same as a strategy."""
    return st.integers(0, 2**32).map(lambda seed: odd_bytes(random.Random(seed), most))
