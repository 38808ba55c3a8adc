"""Records: what is packed comes back, and nothing that an agent says can make packing fail."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.recording.record import (
    NESTING_MAX,
    Direction,
    Kind,
    MalformedRecordError,
    Record,
    from_fields,
    pack,
    unpack_arrays,
)

SESSION = UUID("0191a000-0000-7000-8000-000000000001")


def unpacked(raw: bytes) -> list[Record]:
    """Give the records that lie one after the other in the bytes."""
    return [from_fields(fields) for fields in unpack_arrays(raw)]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("direction", [None, *Direction])
def test_every_kind_and_direction_comes_back(kind: Kind, direction: Direction | None) -> None:
    """A record of any kind and direction is the same after packing and unpacking."""
    record = Record(kind, SESSION, 1_700_000_000_123_456_789, direction, {"payload": b"\x00\xff", "n": 1, "list": [None, 1.5]})
    assert [record] == unpacked(pack(record))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(body=st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_any_value_can_be_packed_and_read(body: dict[str, None]) -> None:
    """Packing never fails for a Value, and what was packed can be read and packed again to the same bytes."""
    raw = pack(Record(Kind.MESSAGE, SESSION, 0, None, body))
    (record,) = unpacked(raw)
    assert raw == pack(record)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("caf\udce9", "caf\udce9"),
        ("\ud83d", "\\ud83d"),
        (1 << 64, "18446744073709551616"),
        ((1 << 64) - 1, (1 << 64) - 1),
        (-(1 << 63) - 1, "-9223372036854775809"),
        (memoryview(b"abc"), b"abc"),
        (bytearray(b"abc"), b"abc"),
        ((1, 2), [1, 2]),
    ],
)
def test_values_that_msgpack_cannot_hold_are_written_as_the_nearest_it_can(value: object, expected: object) -> None:
    """Lone surrogates, large integers and buffers are kept in the nearest form instead of failing."""
    (record,) = unpacked(pack(Record(Kind.MARKER, SESSION, 0, None, {"value": value})))  # type: ignore[dict-item]
    assert {"value": expected} == record.body


def test_deep_nesting_becomes_text() -> None:
    """A body nested too deeply to be written is cut there, with words in place of what was deeper."""
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    (record,) = unpacked(pack(Record(Kind.MARKER, SESSION, 0, None, {"value": value})))  # type: ignore[dict-item]
    inner: object = record.body["value"]
    depth = 1
    while isinstance(inner, list):
        inner = inner[0]
        depth += 1
    assert ("nested too deeply", NESTING_MAX) == (inner, depth)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [1, b"\0" * 16, 0, None],
        [77, b"\0" * 16, 0, None, {}],
        [1, b"\0" * 15, 0, None, {}],
        [1, "x" * 16, 0, None, {}],
        [1, b"\0" * 16, "0", None, {}],
        [1, b"\0" * 16, 0, 2, {}],
        [1, b"\0" * 16, 0, [], {}],
        [[], b"\0" * 16, 0, None, {}],
        [1, b"\0" * 16, 0, None, []],
    ],
)
def test_what_is_no_record_is_refused(fields: object) -> None:
    """An array that no version writes raises the one error for it."""
    with pytest.raises(MalformedRecordError):
        from_fields(fields)


@given(raw=st.binary(max_size=200))
def test_random_bytes_are_records_or_refused(raw: bytes) -> None:
    """Random bytes either give arrays or raise MalformedRecordError, never anything else."""
    try:
        for fields in unpack_arrays(raw):
            from_fields(fields)
    except MalformedRecordError:
        pass


def test_a_cut_at_any_byte_is_noticed() -> None:
    """Records cut anywhere but between two of them raise after the whole ones were given."""
    packed = [pack(Record(Kind.DATA, SESSION, n, Direction.REQUEST, {"payload": b"x" * n})) for n in range(3)]
    raw = b"".join(packed)
    ends = [0, len(packed[0]), len(packed[0] + packed[1]), len(raw)]
    for cut in range(len(raw) + 1):
        whole: list[list[object]] = []
        try:
            whole.extend(unpack_arrays(raw[:cut]))
            assert cut in ends
        except MalformedRecordError:
            assert cut not in ends
        assert sum(cut >= end for end in ends) - 1 == len(whole)
