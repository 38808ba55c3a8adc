"""Header compression (RFC 7541) as an observer reads it: blocks in, fields out, and whether the table is still known.

What lives here: the representations of a block, the dynamic table's bounds. What must not: frames, what fields mean.

The tables and the Huffman code are `hpack`'s. Its own decoder is not used: it copies the rest of the block for each field,
which is quadratic, and does not say where in the block something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

BLOCK_BYTES_MAX: Final = 262_144
"""A header block as sent, with the heads of its frames: servers in use stop between 8 and 64 KiB, some at a megabyte."""
LIST_BYTES_MAX: Final = 1_048_576
"""What it becomes, counted as RFC 9113 section 6.5.2 does: a byte of a block may stand for an entry of 4 KiB."""
FIELDS_MAX: Final = 1_000
"""Fields in one block; as in HTTP/1."""
TABLE_BYTES_MAX: Final = 262_144
"""Four times what browsers ask for. Whoever uses more is not followed."""
TABLE_BYTES: Final = 4_096
"""Before anybody asked for another size (RFC 9113 section 6.5.2)."""
ENTRY_BYTES: Final = 32
"""What an entry counts beside its texts (RFC 7541 section 4.1)."""
_INTEGER_BYTES_MAX: Final = 5
_EMPTY_TABLE: Final = 0x20
"""A size update to 0: the table is empty, whatever was in it (RFC 7541 section 6.3)."""

Pairs = list[tuple[bytes, bytes]]


class BlockError(Exception):
    """A block breaks RFC 7541, or a limit. Never leaves this package."""


class HeaderBlocks:
    """One direction's blocks, in order.

    Attributes:
        lost: None, or why the dynamic table is not known; then no block can be decoded, until one empties the table.
    """

    def __init__(self) -> None:
        self._table = _table(TABLE_BYTES)
        self.lost: str | None = None

    def lose(self, reason: str) -> None:
        """A block, or a part of one, was not seen: whatever it added to the table is missing."""
        self.lost = self.lost or reason
        self._table = _table(0)

    def decode(self, block: bytes) -> Pairs | None:
        """Give the fields of a block; None: the table is not known.

        Raises:
            BlockError: the block is wrong, or beyond the limits.
        """
        if self.lost is not None:
            if block[:1] != bytes([_EMPTY_TABLE]):
                return None
            self.lost = None
        try:
            return self._fields(block)
        except HPACKError as error:
            raise BlockError(str(error)) from error
        except IndexError as error:
            raise BlockError("header block ends inside a field") from error

    def save(self) -> list[object]:
        """Give its state as plain values."""
        entries = [[bytes(name), bytes(value)] for name, value in self._table.dynamic_entries]
        return [self.lost, self._table.maxsize, entries]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        self.lost, size, entries = cast("tuple[str | None, int, Sequence[tuple[bytes, bytes]]]", tuple(saved))
        self._table = _table(size)
        for name, value in reversed(entries):
            self._table.add(name, value)

    def _fields(self, block: bytes) -> Pairs:
        fields: Pairs = []
        room = LIST_BYTES_MAX
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0xE0 == _EMPTY_TABLE:
                at = self._resize(block, at, early=not fields)
                continue
            if first & 0x80:
                index, at = _integer(block, at, 7)
                name, value = self._table.get_by_index(index)
            else:
                name, value, at = self._literal(block, at)
            fields.append((name, value))
            room -= len(name) + len(value) + ENTRY_BYTES
            if room < 0 or len(fields) > FIELDS_MAX:
                raise BlockError(f"header list of more than {LIST_BYTES_MAX} bytes or {FIELDS_MAX} fields")
        return fields

    def _literal(self, block: bytes, at: int) -> tuple[bytes, bytes, int]:
        added = block[at] & 0x40
        index, at = _integer(block, at, 6 if added else 4)
        if index:
            name = self._table.get_by_index(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        if added:
            self._table.add(name, value)
        return name, value, at

    def _resize(self, block: bytes, at: int, *, early: bool) -> int:
        size, at = _integer(block, at, 5)
        if not early:
            raise BlockError("size of the header table changed in the middle of a block")
        if size > TABLE_BYTES_MAX:
            raise BlockError(f"header table of {size} bytes")
        self._table.maxsize = size
        return at


def _table(size: int) -> HeaderTable:
    table = HeaderTable()
    table.maxsize = size
    return table


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read an integer (RFC 7541 section 5.1); gives it and where it ends."""
    mask = (1 << bits) - 1
    number = block[at] & mask
    at += 1
    if number < mask:
        return number, at
    for shift in range(0, 7 * _INTEGER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follows
            return number, at
    raise BlockError("integer of too many bytes")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a text (RFC 7541 section 5.2); gives it and where it ends."""
    packed = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise BlockError("header block ends inside a field")
    text = block[at:end]
    return (bytes(decode_huffman(text)) if packed else text), end
