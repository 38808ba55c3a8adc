"""A segment that cannot come into the bucket: what has to go on all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from capd.daemon.catalogue_status import wanted
from capd.daemon.shipper_local import Memory
from capd.daemon.shipper_pace import DiskTrend
from capd.daemon.shipper_status import describe
from capd.daemon.shipping import Shipping
from capd.recording.bucket import Bucket
from capd.recording.heads import HeadLog, head_name
from capd.recording.keys import HostKey
from tests.daemon.recorded_segments import HOST
from tests.daemon.test_shipping import NOON_NS, Desk, key


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Give a host with a directory for a bucket, in which something else has the name of segment 2."""
    (tmp_path / "bucket").mkdir()
    made = Desk(tmp_path, str(tmp_path / "bucket"))
    Bucket.open(made.url).create(key(2), b"something else")
    return made


def test_heads_come_when_later_segments_are_there(desk: Desk) -> None:
    """A head that names a segment in whose place something else is comes once later ones are there, with those after it."""
    signer = HostKey.new()
    signer.save(desk.directory / "keys")
    desk.seal(count=2, signer=signer)
    log = HeadLog(desk.segments, host=HOST, signer=signer)
    for number in (1, 2):
        log.write(NOON_NS, number, b"%d" % number * 32)
    shipping = desk.shipping()
    shipping.turn()
    assert [1] == heads(desk), "it may only be late"
    desk.seal(first=3, count=1, signer=signer)
    log.write(NOON_NS, 3, b"3" * 32)
    shipping.turn()
    assert [1, 2, 3] == heads(desk)


def heads(desk: Desk) -> list[int]:
    """Give the numbers of the heads in the bucket."""
    return [number for number in range(1, 9) if any(name.endswith(head_name(number)) for name in desk.shipped())]


def status(desk: Desk, shipping: Shipping, memory: Memory) -> dict[str, object]:
    """Give what the shipper says of itself."""
    bucket = Bucket.open(desk.url)
    return describe(
        shipping.progress, bucket=bucket, memory=memory, trend=DiskTrend(), reserve_bytes=0, object_lock=None, now=desk.now
    )


def test_the_catalogue_goes_on(desk: Desk) -> None:
    """What is shipped after it is to be catalogued, and so is it, when it comes."""
    desk.seal(count=3)
    shipping = desk.shipping()
    shipping.turn()
    first = status(desk, shipping, shipping._memory)
    assert (1, 2, True) == (first["through"], first["settled"], wanted(first, {}))
    done = {"through": 3, "waiting": 0, "settled": first["settled"]}
    assert not wanted(first, done)
    desk.seal(first=4, count=1)
    shipping.turn()
    assert wanted(status(desk, shipping, shipping._memory), done)
    done = {"through": 4, "waiting": 0, "settled": 3}
    assert not wanted(status(desk, shipping, shipping._memory), done)
    Bucket.open(desk.url).delete(key(2))
    later = desk.shipping()
    later.turn()
    assert wanted(status(desk, later, later._memory), done)
