"""Values that must never be seen, and looking for them in whatever form they could come.

What lives here: making them, and finding them. What must not: databases.
"""

from __future__ import annotations

import base64
import random
import struct
import uuid
from collections.abc import Iterable

GRAM_BYTES = 6
"""So much of a value is a part of it that nobody has by chance."""
LETTERS = "bcdfghjkmnpqrtvwxz"


def text(chance: random.Random, length: int = 14) -> str:
    """Give a text that is nowhere else, without vowels: no word is like it."""
    return "".join(chance.choice(LETTERS) for _ in range(length))


def digits(chance: random.Random, length: int) -> str:
    """Give a number of so many digits, no two of which are alike beside each other."""
    found = chance.choice("123456789")
    while len(found) < length:
        found += chance.choice([one for one in "0123456789" if one != found[-1]])
    return found


def forms(value: str) -> Iterable[bytes]:
    """Give the ways in which a text could be shown."""
    plain = value.encode()
    yield from (plain, plain[::-1], plain.upper(), plain.hex().encode(), plain.hex().upper().encode())
    yield from (base64.b64encode(b" " * before + plain)[4:-4] for before in range(3))
    yield from (value.encode("utf-16-le"), value.encode("utf-16-be"))


def number_forms(value: int) -> Iterable[bytes]:
    """Give the ways in which a number of PostgreSQL or MySQL could be shown."""
    yield from forms(str(value))
    # As the number of a lock it comes in two halves.
    yield str(value & 0xFFFFFFFF).encode()
    yield from (struct.pack(">q", value), struct.pack("<q", value), b"%x" % value)
    groups = []
    left = value
    while left:
        groups.append(left % 10_000)
        left //= 10_000
    yield b"".join(struct.pack(">h", one) for one in reversed(groups))
    yield struct.pack(f">{len(groups) + 4}h", len(groups), len(groups) - 1, 0, 0, *reversed(groups))


class Needles:
    """All of them.

    Attributes:
        shapes: what each is called, and how it could be shown.
    """

    def __init__(self) -> None:
        self.shapes: list[tuple[str, bytes]] = []
        self._grams: dict[bytes, str] = {}

    def add(self, name: str, shapes: Iterable[bytes]) -> None:
        """Note a value by what it is called; of each shape every part counts."""
        for shape in shapes:
            self.shapes.append((name, shape))
            for at in range(len(shape) - GRAM_BYTES + 1):
                part = shape[at : at + GRAM_BYTES]
                # Zeros are everywhere in binary.
                if len(set(part)) > 3:
                    self._grams.setdefault(part, name)

    def add_uuid(self, name: str, value: uuid.UUID) -> None:
        """Note a UUID."""
        self.add(name, [*forms(str(value)), *forms(value.hex), value.bytes])

    def add_date(self, name: str, value: str) -> None:
        """Note a date: of its year and month every part counts, since today's month and day are elsewhere."""
        month = value.rpartition("-")[0]
        self.add(name, [month.encode(), month[::-1].encode()])
        self.shapes += [(name, value.encode()), (name, value[::-1].encode())]

    def excuse(self, data: bytes) -> None:
        """Take out what stands in bytes that may be seen."""
        for at in range(len(data) - GRAM_BYTES + 1):
            self._grams.pop(data[at : at + GRAM_BYTES], None)

    def found_in(self, data: bytes) -> str | None:
        """Say which value shows in some bytes; None: none."""
        for at in range(len(data) - GRAM_BYTES + 1):
            name = self._grams.get(data[at : at + GRAM_BYTES])
            if name is not None:
                return f"{name}: {data[max(0, at - 20) : at + 30]!r}"
        return None
