"""Binary values are shown as PostgreSQL itself would write them, or as what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.cli.binary_values import _READERS, readable
from capd.cli.rows import cell_span


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("bool", "01", "t"),
        ("int2", "0003", "3"),
        ("int4", "fffffffe", "-2"),
        ("int8", "00000000499602d2", "1234567890"),
        ("oid", "ffffffff", "4294967295"),
        ("float8", "3ff8000000000000", "1.5"),
        ("text", "41646120c3b6", "Ada ö"),
        ("jsonb", "017b7d", "{}"),
        ("uuid", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"),
        ("date", "000025d0", "2026-07-03"),
        ("timestamp", "0002fcdfa7a73100", "2026-08-25 15:37:54.08"),
        ("timestamptz", "0000000000000000", "2000-01-01 00:00:00+00"),
        ("numeric", "00020000000000020063 2328".replace(" ", ""), "99.90"),
        ("numeric", "0001fffe4000000800 01".replace(" ", ""), "-0.00000001"),
        ("numeric", "0001000100000000 0001".replace(" ", ""), "10000"),
        ("numeric", "0000000000000000", "0"),
    ],
)
def test_known_types_are_text(kind: str, raw: str, expected: str) -> None:
    """Each known type reads as in PostgreSQL's text format."""
    assert expected == readable(kind, bytes.fromhex(raw))


@pytest.mark.parametrize(("kind", "raw"), [("point", "00"), ("int4", "0003"), ("text", "ff"), ("jsonb", "02"), ("bool", "07")])
def test_what_does_not_fit_stays_binary(kind: str, raw: str) -> None:
    """An unknown type, a wrong length or a wrong version is shown as bytes."""
    assert readable(kind, bytes.fromhex(raw)) is None
    assert f"\\x{raw}" == cell_span({"binary": raw}, kind).text


@given(st.sampled_from(sorted(_READERS)), st.binary(max_size=40))
def test_any_bytes_are_text_or_nothing(kind: str, raw: bytes) -> None:
    """No value raises."""
    assert isinstance(readable(kind, raw), str | None)
