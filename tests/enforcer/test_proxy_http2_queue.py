"""What waits of a body of HTTP/2: nothing is lost, all credit comes back, and small parts do not cost more than they are.

What lives here: the queue alone. What must not: streams (test_proxy_http2.py).
"""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.proxy.http2.stream import JOINED_BYTES, Queue

sizes = st.one_of(st.integers(0, 5), st.integers(JOINED_BYTES - 2, JOINED_BYTES + 2))
doings = st.lists(st.one_of(st.tuples(st.just("put"), sizes, st.integers(0, 9)), st.tuples(st.just("take"), sizes, st.just(0))))


@given(doings)
def test_what_goes_in_comes_out(doings: list[tuple[str, int, int]]) -> None:
    """Bytes come in their order, each once; credit comes back with the last of them, and all of it."""
    queue, put, taken, given_credit, back = Queue(), b"", b"", 0, 0
    for number, (what, size, credit) in enumerate(doings):
        if what == "put":
            data = bytes([number % 256]) * size
            queue.put(data, credit)
            put, given_credit = put + data, given_credit + credit
        elif queue:
            data, returned = queue.take(size)
            assert len(data) <= size
            taken, back = taken + data, back + returned
        assert (len(put) - len(taken), put) == (queue.count, taken + queue.content)
    back += queue.forgive()
    assert (given_credit, 0) == (back, queue.clear())
    assert 0 == queue.count


def test_small_parts_are_no_larger_together() -> None:
    """A body that comes byte by byte takes about as much memory as one that comes at once."""
    queue = Queue()
    tracemalloc.start()
    try:
        for _ in range(65_536):
            queue.put(bytes(2), 2)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * 2 * 65_536
