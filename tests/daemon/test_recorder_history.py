"""What a decoder that is built anew is fed: what is recorded and what waits in masking, each gap once."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.daemon.masking.policy import stage
from capd.daemon.masking.policy_levels import Policy
from capd.daemon.recorder_history import history
from capd.daemon.recording_policy import MaskingSection, RecordingSection
from capd.recording.age import NoKeys
from capd.recording.position import Position
from capd.recording.record import Kind
from capd.recording.segment.writer import SegmentWriter
from tests.assembly.world import HOST, REQUEST, RESPONSE
from tests.masking.test_stage import cycles, passed


@pytest.mark.parametrize("gaps_stored", [0, 1, 2])
def test_a_gap_that_waited_and_is_stored_since_is_given_once(tmp_path: Path, gaps_stored: int) -> None:
    """Where a recorder died after it had stored what masking held at the snapshot, the next one does not count gaps twice."""
    talk = [(REQUEST, b"POST /a HTTP/1.1\r\nAuthoriz"), (RESPONSE, b"1234567"), (RESPONSE, b"HTTP/1."), (RESPONSE, b"1 200 O")]
    made = stage(MaskingSection(), RecordingSection(), Policy())
    shown = passed(made, cycles(talk, 80, 100, 100, lost={2, 4})[:-2])
    (session,) = {record.session for record in shown if record.kind is Kind.OPEN}
    held = made.held(session)
    gaps = [at for at, record in enumerate(held) if record.kind is Kind.GAP]
    assert 2 == len(gaps), "both wait behind a request that may become anything"
    since = held[: gaps[gaps_stored - 1] + 1] if gaps_stored else []
    writer = SegmentWriter(tmp_path, host=HOST, clock=lambda: 1, sequence=1)
    writer.append([*shown, *since])
    writer.flush(Position(0, 1))
    writer.seal({})
    writer.close()
    given = [record for record in history(session, tmp_path, [1], NoKeys(), made) if record.kind is Kind.GAP]
    assert [held[at] for at in gaps] == given
