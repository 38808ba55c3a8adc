"""Ids: time-ordered, and the same whenever they are made from the same facts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon.assembly.lineage import Lineage
from capd.daemon.assembly.processes import ProcessTable, RunTable
from capd.recording.identity import session_id, unix_ms_of, uuid7_from

HOST = UUID(int=1)
BOOT = UUID(int=2)


@given(unix_ms=st.integers(0, (1 << 48) - 1), seed=st.binary(max_size=64))
def test_an_id_is_a_uuid7_of_its_time(unix_ms: int, seed: bytes) -> None:
    """Any time and seed give a UUID of version 7 and the RFC's variant that holds the time, always the same."""
    identity = uuid7_from(unix_ms, seed)
    assert (7, "specified in RFC 4122", unix_ms) == (identity.version, identity.variant, unix_ms_of(identity))
    assert identity == uuid7_from(unix_ms, seed)


def test_the_bits_are_where_the_rfc_has_them() -> None:
    """RFC 9562 section A.6's time lands in the first 48 bits, and the id written down here never changes."""
    assert "017f22e2-79b0-7f00-9bcd-77896f39059a" == str(uuid7_from(0x017F22E279B0, b"seed"))


@pytest.mark.parametrize("unix_ms", [-1, 1 << 48])
def test_a_time_outside_of_48_bits_is_refused(unix_ms: int) -> None:
    """A time that an id cannot hold raises instead of wrapping."""
    with pytest.raises(ValueError, match="no time"):
        uuid7_from(unix_ms, b"")


def test_each_fact_of_a_session_changes_its_id() -> None:
    """Host, boot, socket, time and layer each make a different session of the same millisecond."""
    facts: dict[str, Any] = {"host": HOST, "boot": BOOT, "socket": 5, "boottime_ns": 7, "unix_ns": 1_000_000}
    variants: list[dict[str, Any]] = [
        {},
        {"host": BOOT},
        {"boot": HOST},
        {"socket": 6},
        {"boottime_ns": 8},
        {"layer": 1},
        {"unix_ns": 2_000_000},
    ]
    ids = {session_id(**{**facts, **variant}) for variant in variants}
    assert len(variants) == len(ids)


def test_what_was_before_1970_is_of_no_time() -> None:
    """A clock that is set to 1970 puts what the journal holds of the time before even earlier; that stops nobody."""
    assert 0 == unix_ms_of(session_id(host=HOST, boot=BOOT, socket=3, boottime_ns=4, unix_ns=-5))
    assert 0 == unix_ms_of(Lineage(ProcessTable(), RunTable()).run(1, -5, HOST, BOOT).id)
