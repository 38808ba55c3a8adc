"""BPF instructions put together by hand, for programs so small that a compiler would be the largest part of them.

What lives here: the encoding (Documentation/bpf/standardization/instruction-set.rst), jumps by name, counting in a map.
What must not: what a program decides.
"""

from __future__ import annotations

import struct
from typing import Final

_INSTRUCTION: Final = struct.Struct("<BBhi")

CONTEXT, RESULT, FRAME = 1, 0, 10
"""Registers: the argument of the program and of a call, what it gives back, the end of its stack."""

BYTE, HALF, WORD, DOUBLE = 0x10, 0x08, 0x00, 0x18
"""Widths of a load, in bits 3 and 4 of its code: 1, 2, 4, 8 bytes."""
_LOAD: Final = 0x61
_STORE_WORD: Final = 0x62
_LOAD_CONSTANT: Final = 0x18
_MOVE, _MOVE_CONSTANT, _ADD_CONSTANT, _AND_CONSTANT = 0xBF, 0xB7, 0x07, 0x57
_JUMP, _JUMP_EQUAL, _JUMP_DIFFERENT, _JUMP_DIFFERENT_REGISTER = 0x05, 0x15, 0x55, 0x5D
_CALL, _EXIT, _ATOMIC_ADD = 0x85, 0x95, 0xDB
_MAP_DESCRIPTOR: Final = 1
_HELPER_MAP_LOOKUP: Final = 1
_HELPER_LOAD_BYTES: Final = 26
_COUNT_KEY: Final = -4
"""Where on the stack the number of a counter is put."""


class Assembly:
    """A program that grows by its methods' calls, in order."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}

    def label(self, name: str) -> None:
        """Name the next instruction."""
        assert name not in self._labels
        self._labels[name] = len(self._code)

    def load(self, width: int, target: int, source: int, offset: int) -> None:
        """Load from where `source` points, plus `offset` bytes."""
        self._add(_LOAD | width, target, source, offset)

    def move(self, target: int, source: int) -> None:
        """Copy a register."""
        self._add(_MOVE, target, source)

    def set(self, target: int, value: int) -> None:
        """Set a register to a signed 32 bit number."""
        self._add(_MOVE_CONSTANT, target, immediate=value)

    def set_double(self, target: int, value: int) -> None:
        """Set a register to an unsigned 64 bit number."""
        self._add(_LOAD_CONSTANT, target, immediate=_signed(value & 0xFFFFFFFF))
        self._add(0, immediate=_signed(value >> 32))

    def add(self, target: int, value: int) -> None:
        """Add a number to a register."""
        self._add(_ADD_CONSTANT, target, immediate=value)

    def keep_bits(self, target: int, mask: int) -> None:
        """Clear all bits of a register but these."""
        self._add(_AND_CONSTANT, target, immediate=mask)

    def jump(self, label: str) -> None:
        """Go on at a label."""
        self._jump(_JUMP, label)

    def jump_equal(self, register: int, value: int, label: str) -> None:
        """Go on at a label if the register holds the value, an unsigned number below 2^31."""
        self._jump(_JUMP_EQUAL, label, register, immediate=value)

    def jump_unless(self, register: int, value: int, label: str) -> None:
        """Go on at a label unless the register holds the value, an unsigned number below 2^31."""
        self._jump(_JUMP_DIFFERENT, label, register, immediate=value)

    def jump_unless_same(self, register: int, other: int, label: str) -> None:
        """Go on at a label unless two registers hold the same."""
        self._jump(_JUMP_DIFFERENT_REGISTER, label, register, other)

    def load_packet(self, packet: int, start: int | None, stack: int, length: int, failed: str, *, register: int = 0) -> None:
        """Copy bytes of a packet to the stack, by the helper skb_load_bytes.

        Args:
            packet: register that holds the packet.
            start: where in the packet; None: `register` holds it.
            stack: offset from the end of the stack, negative.
            length: how many bytes.
            failed: where to go on if the packet is shorter.
            register: see `start`.
        """
        if start is None:
            self.move(2, register)
        else:
            self.set(2, start)
        self.move(CONTEXT, packet)
        self.move(3, FRAME)
        self.add(3, stack)
        self.set(4, length)
        self._add(_CALL, immediate=_HELPER_LOAD_BYTES)
        self.jump_unless(RESULT, 0, failed)

    def count(self, counters: int, number: int) -> None:
        """Add one to an entry of an array map of 64 bit numbers. Spoils registers 0 to 5.

        Args:
            counters: descriptor of the map.
            number: which entry.
        """
        done = f"counted {len(self._code)}"
        self._add(_STORE_WORD, FRAME, offset=_COUNT_KEY, immediate=number)
        self.move(2, FRAME)
        self.add(2, _COUNT_KEY)
        self._add(_LOAD_CONSTANT, CONTEXT, _MAP_DESCRIPTOR, immediate=counters)
        self._add(0)
        self._add(_CALL, immediate=_HELPER_MAP_LOOKUP)
        self.jump_equal(RESULT, 0, done)
        self.set(1, 1)
        self._add(_ATOMIC_ADD, RESULT, 1)
        self.label(done)

    def give(self, value: int) -> None:
        """End the program with a result."""
        self.set(RESULT, value)
        self._add(_EXIT)

    def encode(self) -> bytes:
        """Give the instructions."""
        return b"".join(
            _INSTRUCTION.pack(code, target | source << 4, self._offset(place, offset), immediate)
            for place, (code, target, source, offset, immediate) in enumerate(self._code)
        )

    def _offset(self, place: int, offset: int) -> int:
        label = self._jumps.get(place)
        return offset if label is None else self._labels[label] - place - 1

    def _jump(self, code: int, label: str, target: int = 0, source: int = 0, immediate: int = 0) -> None:
        self._jumps[len(self._code)] = label
        self._add(code, target, source, immediate=immediate)

    def _add(self, code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> None:
        self._code.append((code, target, source, offset, immediate))


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
