"""The archive: a session's records over all segments, each once, while they are written and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording import index_segments
from capd.recording.archive import Archive, GapRecord
from capd.recording.errors import CorruptSegmentError, NothingRecordedError
from capd.recording.index import Index
from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment.layout import open_path, sealed_path
from capd.recording.segment.recovery import recover
from capd.recording.segment.writer import SegmentWriter

Conversation = Callable[..., list[Record]]
HOST = UUID(int=1)


class Recorder:
    """Writes segments and the index of a state directory as the recorder does."""

    def __init__(self, state_dir: Path) -> None:
        self.ticks = count(1)
        self.state_dir = state_dir
        self.segments = state_dir / "segments"
        self.writer = SegmentWriter(self.segments, host=HOST, clock=lambda: next(self.ticks))
        self.index_path = state_dir / "index" / "capd.db"

    def write(self, *records: Record) -> None:
        """Append and flush."""
        self.writer.append(records)
        self.writer.flush(Position(0, next(self.ticks)))

    def seal(self, *, indexed: bool = True) -> None:
        """Seal, and tell the index."""
        self.writer.seal({})
        if indexed:
            with Index.open(self.index_path) as index:
                index_segments.catch_up(index, self.segments)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Give a recorder of an empty state directory."""
    return Recorder(tmp_path)


@pytest.mark.parametrize("indexed", [0, 1, 2, 3])
@pytest.mark.parametrize("seals", [(), (3,), (2, 5), (1, 4, 6)])
def test_a_session_is_read_over_all_segments(
    recorder: Recorder, conversation: Conversation, seals: tuple[int, ...], indexed: int
) -> None:
    """However a session is spread over sealed and open segments, indexed or not, its records come in order and once."""
    mine, other = conversation(1), conversation(2)
    for number, pair in enumerate(zip(mine, other, strict=True)):
        recorder.write(*pair)
        if number in seals:
            recorder.seal(indexed=seals.index(number) < indexed)
    with Archive(recorder.state_dir) as archive:
        assert mine == list(archive.records(mine[0].session))
        assert other == list(archive.records(other[0].session))
        assert [] == list(archive.records(UUID(int=99)))


def test_following_sees_every_record_once_whatever_happens_between_two_looks(
    recorder: Recorder, conversation: Conversation
) -> None:
    """A follower goes on over flushes, seals, a crash with recovery, and silence, without gap or repetition, until CLOSE."""
    mine, other = conversation(1, 6), conversation(2, 6)

    def crash() -> None:
        recorder.writer.close()
        with open_path(recorder.segments, recorder.writer.sequence).open("ab") as file:
            file.write(b"CFRM torn")
        found = recover(recorder.segments, clock=lambda: 1)
        recorder.writer = SegmentWriter(recorder.segments, host=HOST, clock=lambda: 1, sequence=found.next_sequence)

    def steps() -> Iterator[None]:
        happenings: list[Callable[[], None]] = [
            lambda: None,
            recorder.seal,
            crash,
            lambda: recorder.seal(indexed=False),
            lambda: recorder.write(*other[:3]),
        ]
        for number, record in enumerate(mine):
            recorder.write(record)
            happening = happenings[number % len(happenings)]
            if happening is not crash or number % 2:
                happening()
            yield
        while True:
            yield

    story = steps()
    next(story)
    with Archive(recorder.state_dir) as archive:
        seen = []
        for record in archive.records(mine[0].session, follow=True, poll=lambda: (next(story), True)[1]):
            seen.append(record)
            if len(seen) % 3 == 0:
                next(story)
    assert mine == seen


def test_following_starts_before_anything_was_written(tmp_path: Path, conversation: Conversation) -> None:
    """A follower of a directory that is still empty gets the records when they come."""
    (tmp_path / "segments").mkdir()
    records = conversation(1)
    recorder = Recorder(tmp_path)
    waits = iter([lambda: None, (recorder.segments / "000000000001.open").touch, None])

    def poll() -> bool:
        step = next(waits)
        if step is None:
            (recorder.segments / "000000000001.open").unlink()
            recorder.write(*records)
        else:
            step()
        return True

    with Archive(tmp_path) as archive:
        assert records == list(archive.records(records[0].session, follow=True, poll=poll))


def test_following_ends_when_polling_says_so(recorder: Recorder, conversation: Conversation) -> None:
    """A session that is still open is followed only as long as the caller wishes."""
    records = conversation(1)[:3]
    recorder.write(*records)
    answers = iter([True, True, False])
    with Archive(recorder.state_dir) as archive:
        assert records == list(archive.records(records[0].session, follow=True, poll=lambda: next(answers)))
    assert [] == list(answers)


def test_a_time_range_is_exact(recorder: Recorder, conversation: Conversation) -> None:
    """Records are given from a time on and up to, without, another, over all segments."""
    records = conversation(1, 5)
    for number, record in enumerate(records):
        recorder.write(record)
        if number % 4 == 3:
            recorder.seal()
    first, last = records[4].time_ns, records[-3].time_ns
    with Archive(recorder.state_dir) as archive:
        for follow in (False, True):
            assert [record for record in records if first <= record.time_ns < last] == list(
                archive.records(records[0].session, from_ns=first, until_ns=last, follow=follow)
            )


def test_a_stream_is_the_application_bytes_with_gaps_in_their_places(recorder: Recorder, conversation: Conversation) -> None:
    """Of a direction only application payload and gaps come, in order; wire evidence and the other direction do not."""
    opening = conversation(1)[0]
    session, at = opening.session, opening.time_ns

    def data(direction: Direction, position: int, payload: bytes, **body: str) -> Record:
        return Record(Kind.DATA, session, at, direction, {"position": position, "payload": payload, **body})

    gap: dict[str, Value] = {"position": 3, "length": 2, "layer": "application", "reason": "ring full"}
    recorder.write(
        opening,
        data(Direction.REQUEST, 0, b"hello", layer="wire"),
        data(Direction.REQUEST, 0, b"abc"),
        data(Direction.RESPONSE, 0, b"no"),
        Record(Kind.GAP, session, at + 1, Direction.REQUEST, gap),
        Record(Kind.GAP, session, at + 1, Direction.REQUEST, {**gap, "layer": "wire"}),
        data(Direction.REQUEST, 5, b"fg", layer="application"),
    )
    expected = [b"abc", GapRecord(time_ns=at + 1, position=3, length=2, reason="ring full"), b"fg"]
    with Archive(recorder.state_dir) as archive:
        assert expected == list(archive.stream(session, Direction.REQUEST))


def test_a_segment_that_is_gone_is_a_gap(recorder: Recorder, conversation: Conversation) -> None:
    """A segment that the index knows and the disk has not is told in its place, in records and in streams."""
    records = conversation(1)
    for part in (records[:4], records[4:6], records[6:]):
        recorder.write(*part)
        recorder.seal()
    sealed_path(recorder.segments, 2).unlink()
    reason = "segment 2 is missing"
    with Archive(recorder.state_dir) as archive:
        read = list(archive.records(records[0].session))
        assert (records[:4], reason, records[6:]) == (read[:4], read[4].body["reason"], read[5:])
        stream = list(archive.stream(records[0].session, Direction.REQUEST))
    assert [reason] == [piece.reason for piece in stream if isinstance(piece, GapRecord)]


def test_damage_is_told_after_what_is_before_it(recorder: Recorder, conversation: Conversation) -> None:
    """A damaged segment raises where it is met; the records before it were given."""
    records = conversation(1)
    for part in (records[:4], records[4:]):
        recorder.write(*part)
        recorder.seal()
    path = sealed_path(recorder.segments, 2)
    data = bytearray(path.read_bytes())
    data[120] ^= 1
    path.write_bytes(data)
    with Archive(recorder.state_dir) as archive:
        reading = archive.records(records[0].session)
        assert records[:4] == [next(reading) for _ in range(4)]
        with pytest.raises(CorruptSegmentError, match=r"000000000002\.seg: frame 0, byte 64"):
            next(reading)


def test_only_what_is_asked_for_is_read(recorder: Recorder, conversation: Conversation) -> None:
    """The first record comes without reading segments after the first: they may even be damaged."""
    records = conversation(1)
    for part in (records[:4], records[4:]):
        recorder.write(*part)
        recorder.seal()
    sealed_path(recorder.segments, 2).write_bytes(b"damaged")
    with Archive(recorder.state_dir) as archive:
        assert records[0] == next(archive.records(records[0].session))


def test_segments_alone_are_enough(tmp_path: Path, recorder: Recorder, conversation: Conversation) -> None:
    """Without an index, and with older segments removed, a session is still read whole from what is there."""
    old, new = conversation(1), conversation(2)
    for records in (old, new[:5], new[5:]):
        recorder.write(*records)
        recorder.seal(indexed=False)
    sealed_path(recorder.segments, 1).unlink()
    with Archive(tmp_path) as archive:
        assert new == list(archive.records(new[0].session))


def test_a_place_without_recordings_says_so(tmp_path: Path) -> None:
    """An empty directory, or none, is no archive."""
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NothingRecordedError, match="no recording in"):
            Archive(place)
