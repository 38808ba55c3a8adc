"""Entries of the decision log that are alike: packed once, but for some values.

What lives here: the form, and packing what goes into it, to the byte as msgpack packs the whole. What must not: what entries
say (proxy/entry.py), files (decision_log.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from struct import Struct
from typing import Final

import msgpack

SEQUENCE: Final = "sequence"
"""The first of every entry."""
HASH_BYTES: Final = 32
_SMALL_MAX: Final = 0x7F
_SMALL: Final = tuple(bytes((number,)) for number in range(_SMALL_MAX + 1))
"""Numbers that are one byte (msgpack's positive fixint)."""
_INTEGERS: Final = (
    (1 << 8, Struct(">BB"), 0xCC),
    (1 << 16, Struct(">BH"), 0xCD),
    (1 << 32, Struct(">BI"), 0xCE),
    (1 << 64, Struct(">BQ"), 0xCF),
)
_, _TIME, _TIME_CODE = _INTEGERS[-1]
_TIME_BITS: Final = 32
_HASH: Final = b"\xc4" + bytes((HASH_BYTES,))
_NIL: Final = b"\xc0"


def packed_number(number: int) -> bytes:
    """Pack a number that is not below 0.

    Raises:
        OverflowError: it has more than 64 bits.
    """
    if number <= _SMALL_MAX:
        return _SMALL[number]
    for above, form, code in _INTEGERS:
        if number < above:
            return form.pack(code, number)
    raise OverflowError(number)


def packed_time(at_ns: int) -> bytes:
    """Pack nanoseconds since 1970, which have more than 32 bits since 4.3 s after that."""
    return _TIME.pack(_TIME_CODE, at_ns) if at_ns >> _TIME_BITS else packed_number(at_ns)


def packed_hash(value: bytes | None) -> bytes:
    """Pack a hash, or that there is none."""
    return _NIL if value is None else _HASH + value


class Form:
    """What entries have in common."""

    __slots__ = ("_template",)

    def __init__(self, entry: Mapping[str, object], left_open: Collection[str]) -> None:
        """Pack one of them.

        Args:
            entry: with any values for what is left open.
            left_open: keys whose values are given for each entry, in the order in which they stand in it.
        """
        pack = msgpack.Packer().pack
        pieces = [msgpack.Packer().pack_map_header(len(entry) + 1) + pack(SEQUENCE), b""]
        for key, value in entry.items():
            pieces[-1] += pack(key)
            if key in left_open:
                pieces.append(b"")
            else:
                pieces[-1] += pack(value)
        self._template = b"%b".join(piece.replace(b"%", b"%%") for piece in pieces)

    def filled(self, sequence: int, values: Sequence[bytes]) -> bytes:
        """Give an entry, packed.

        Args:
            sequence: its number.
            values: packed, for what was left open.
        """
        return self._template % (packed_number(sequence), *values)
