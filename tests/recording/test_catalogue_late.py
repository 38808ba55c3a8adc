"""The catalogue of segments that came into the bucket later than those after them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.layout import SegmentKey, day_folder
from capd.recording.catalogue.fleet import Fleet
from capd.recording.catalogue.schema import TABLES
from capd.recording.segment.layout import sealed_path
from tests.recording.test_catalogue import (
    AGE_MAX_NS,
    DAY_NS,
    HOST,
    NEVER,
    START_NS,
    TODAY,
    Conversation,
    catalogued,
    cataloguer,
    ship,
    write,
)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """Give an empty bucket in a directory."""
    (tmp_path / "bucket").mkdir()
    return Bucket.open(str(tmp_path / "bucket"))


@pytest.mark.parametrize("survivors", range(1, len(TABLES) + 1))
def test_what_was_shipped_later_than_its_successors_is_found(
    tmp_path: Path, bucket: Bucket, conversation: Conversation, survivors: int
) -> None:
    """A segment that could not be read for an hour comes when later ones are catalogued: it gets files of its own, once."""
    write(tmp_path, [conversation(number) for number in range(5)])
    ship(bucket, tmp_path, 1, 3, 5)
    assert cataloguer(bucket).extend(NEVER).through == 5
    folder = bucket.location.directory / day_folder(HOST, TODAY)
    for second, number in enumerate((1, 3, 5, 2, 4)):
        ship(bucket, tmp_path, number)
        os.utime(folder / f"{number:012d}.seg", (second, second))
    create, created = bucket.create, 0

    def dying(key: str, content: bytes | Path) -> Outcome:
        nonlocal created
        created += 1
        if created > survivors:
            raise KeyboardInterrupt
        return create(key, content)

    bucket.create = dying  # type: ignore[method-assign] # kill -9 at this moment
    with pytest.raises(KeyboardInterrupt):
        cataloguer(bucket).extend(NEVER)
    bucket.create = create  # type: ignore[method-assign]
    for _ in range(2):
        extent = cataloguer(bucket).extend(NEVER)
        assert (extent.through, extent.waiting) == (5, 0)
    assert catalogued(bucket) == dict.fromkeys(TABLES, 5)
    assert len(Fleet(bucket).search("message", limit=100)) == 5 * 4


def test_what_came_late_waits_for_others_too(tmp_path: Path, bucket: Bucket, conversation: Conversation) -> None:
    """It is told as waiting until it is due."""
    write(tmp_path, [conversation(number) for number in range(3)])
    ship(bucket, tmp_path, 1, 3)
    cataloguer(bucket).extend(NEVER)
    ship(bucket, tmp_path, 2)
    later = bucket.location.directory / day_folder(HOST, TODAY) / f"{2:012d}.seg"
    os.utime(later, ns=(2 * START_NS, 2 * START_NS))
    extent = cataloguer(bucket).extend(START_NS, age_max_ns=AGE_MAX_NS)
    assert (extent.through, extent.waiting) == (3, 1)


def test_a_session_that_began_while_the_clock_was_ahead_is_found_whole(
    tmp_path: Path, bucket: Bucket, conversation: Conversation
) -> None:
    """Its id is of a day to come; what was recorded once the clock was set right lies before that."""
    records = conversation(1)
    write(tmp_path / "ahead", [records[:3]], day=0)
    write(tmp_path / "right", [conversation(2), records[3:]], day=-400)
    ship(bucket, tmp_path / "ahead", 1)
    bucket.create(str(SegmentKey.of(HOST, 2, START_NS - 400 * DAY_NS)), sealed_path(tmp_path / "right", 2))
    cataloguer(bucket).extend(NEVER)
    fleet = Fleet(bucket, clock=lambda: START_NS - 400 * DAY_NS)
    session = records[0].session
    assert [1, 2] == [sequence for _, _, sequence in fleet.segments_of(session)]
    assert "closed" == fleet.session(session).state
