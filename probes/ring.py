"""A ring buffer map, read in spans instead of record by record.

What lives here: mapping the ring's pages and moving its consumer position (kernel/bpf/ringbuf.c, Linux 5.8). What must not:
what the records mean. The kernel maps the data pages twice in a row, so a span that wraps around still is one piece of
memory.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from capd.probes.layouts import RING_BUSY, RING_DISCARD, RING_HEADER_BYTES

PAGE_BYTES: Final = mmap.PAGESIZE
_LENGTH_MASK: Final = ~(RING_BUSY | RING_DISCARD) & 0xFFFFFFFF


class Ring:
    """The reading end.

    Args:
        descriptor: of the map; becomes the ring's own.
        size: of the data area in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.count = 0
        """Records in the span that `drain` gave last, discarded ones included."""
        self._consumer_page = mmap.mmap(descriptor, PAGE_BYTES, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped = PAGE_BYTES + 2 * size
        self._pages = mmap.mmap(descriptor, mapped, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=PAGE_BYTES)
        whole = memoryview(self._pages)
        self._consumer = memoryview(self._consumer_page)[:8].cast("Q")
        self._producer = whole[:8].cast("Q")
        self._data = whole[PAGE_BYTES:]
        self._words = self._data.cast("I")
        self._next: int | None = None

    def fileno(self) -> int:
        """Give the descriptor, which polls readable when records wait."""
        return self.descriptor

    @property
    def position(self) -> int:
        """Give where the next span begins: bytes since the ring was made."""
        return int(self._consumer[0])

    def skip_to(self, position: int) -> None:
        """Give room back up to a position: what is there was read by an earlier process."""
        self._consumer[0] = position

    def used(self) -> int:
        """Give the bytes that wait, records not yet finished included."""
        return int(self._producer[0] - self._consumer[0])

    def drain(self, limit_bytes: int | None = None) -> memoryview | None:
        """Give a span of whole records that wait, or None. It is valid until `release`.

        Args:
            limit_bytes: stop after the record that passes this; None for all there is.
        """
        start = position = self._consumer[0]
        end = self._producer[0]
        if limit_bytes is not None:
            end = min(end, start + limit_bytes)
        words, mask, count = self._words, self.size - 1, 0
        while position < end:
            length = words[(position & mask) >> 2]
            if length & RING_BUSY:
                break
            count += 1
            position += (length & _LENGTH_MASK) + RING_HEADER_BYTES + 7 & ~7
        self.count = count
        if position == start:
            return None
        self._next = position
        first = start & mask
        return self._data[first : first + position - start]

    def release(self) -> None:
        """Give the last span's room back to the kernel."""
        if self._next is not None:
            self._consumer[0] = self._next
            self._next = None

    def close(self) -> None:
        """Unmap the ring and close its descriptor. A span that is still held keeps the pages mapped until it is gone."""
        for view in (self._words, self._data, self._producer, self._consumer):
            view.release()
        os.close(self.descriptor)
