"""The search in files finds values in each form, wherever they begin, and nothing else.

What lives here: that. What must not: files.
"""

from __future__ import annotations

import random
import struct

import pytest

from tests.enforcer.rows.mysql_maker import MysqlMaker
from tests.enforcer.rows.postgresql_maker import Maker
from tests.enforcer.rows.sought import PART_BYTES_MIN, WORD_BYTES, Sought


@pytest.mark.parametrize("maker", [Maker(1), MysqlMaker(1)])
def test_every_form_is_found(maker: Maker | MysqlMaker) -> None:
    """Each form of a word and more is found at each of the places where it may begin; so is a long part of it."""
    maker.content()
    sought = Sought(maker.needles.shapes)
    for name, shape in maker.needles.shapes[::7]:
        for before in range(WORD_BYTES if len(shape) >= WORD_BYTES else 0):
            assert name in sought.found_in(b"~" * before + shape + b"~"), (before, shape)
        if len(shape) >= PART_BYTES_MIN:
            assert name in sought.found_in(b"~" + shape[-PART_BYTES_MIN:]), shape
            assert name in sought.found_in(shape[:PART_BYTES_MIN] + b"~"), shape


def test_nothing_else_is_found() -> None:
    """Less than that, times, hashes, zeros and noise are no finds."""
    maker = Maker(1)
    maker.content()
    sought = Sought(maker.needles.shapes)
    chance = random.Random(2)
    times = b",".join(b"%d" % (1_790_000_000_000_000_000 + chance.randrange(10**17)) for _ in range(20_000))
    noise = chance.randbytes(1 << 20)
    packed = b"".join(struct.pack(">q", number) for number in range(10_000))
    assert set() == sought.found_in(times + noise + noise.hex().encode() + packed + bytes(10_000))
    for name, shape in maker.needles.shapes:
        if len(shape) > PART_BYTES_MIN and name == "ssn":
            assert name not in sought.found_in(b"~~~~" + shape[: PART_BYTES_MIN - 1] + b"~~~~")
