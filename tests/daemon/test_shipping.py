"""The work of the shipper, turn by turn, against a directory and against a real S3 server."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon import needed
from capd.daemon import shipping as shipping_module
from capd.daemon.companions import Companions
from capd.daemon.shipper_local import Copy, Limits, Memory, to_release
from capd.daemon.shipper_pace import Throttle
from capd.daemon.shipping import RECHECK_SECONDS, RELEASE_SECONDS, Shipping
from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.errors import BucketMissingError
from capd.recording.bucket.layout import SegmentKey
from capd.recording.heads import HeadLog
from capd.recording.keys import HostKey, PublicKey
from tests.daemon.recorded_segments import HOST, seal
from tests.servers.kinds import LOCKING, empty_bucket

KEEP = Limits(age_ns_max=None, bytes_max=None, free_bytes_min=0)
NOON_NS = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 10**9


class Desk:
    """A host's directories, a bucket, and time that the test moves."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        self.segments = directory / "segments"
        self.segments.mkdir()
        self.now = 0.0
        self.slept: list[float] = []

    def shipping(self, limits: Limits = KEEP, *, name: str = "shipped.json", bytes_per_second: int = 0) -> Shipping:
        """Start a new shipper, which remembers what an earlier one of that name wrote down."""
        memory = Memory(self.directory / name, self.url, HOST)
        memory.load()
        bucket = Bucket.open(self.url)
        return Shipping(
            bucket=bucket,
            segments=self.segments,
            memory=memory,
            companions=Companions(bucket, memory, host=HOST, keys=self.directory / "keys", heads=self.segments),
            limits=limits,
            throttle=Throttle(bytes_per_second),
            pause=self._pause,
            monotonic=lambda: self.now,
            clock=lambda: NOON_NS / 1e9 + self.now,
        )

    def _pause(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return True

    def seal(self, *, first: int = 1, count: int = 1, size: int = 2000, signer: HostKey | None = None) -> list[Path]:
        """Seal segments at noon."""
        made = seal(self.segments, clock=lambda: NOON_NS, first=first, count=count, size=size, signer=signer)
        for path in made:  # the test's time, not the machine's
            os.utime(path, ns=(NOON_NS - 1, NOON_NS - 1))
        return made

    def shipped(self) -> dict[str, bytes]:
        """Give what is in the bucket."""
        bucket = Bucket.open(self.url)
        return {entry.key: bucket.read(entry.key) for entry in bucket.list()}


@pytest.fixture(params=["directory", "azure", LOCKING])
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Give a host with a bucket of each kind."""
    return Desk(tmp_path, empty_bucket(request.param, request, monkeypatch, tmp_path))


def key(sequence: int) -> str:
    """Give the key that a segment sealed at noon must have."""
    return f"host={HOST}/date=2026-11-21/{sequence:012d}.seg"


def test_every_segment_arrives_once_in_order(desk: Desk) -> None:
    """The bucket holds exactly the files, byte for byte; a second turn and a second shipper add nothing and send nothing."""
    made = desk.seal(count=5)
    assert desk.shipping().turn()
    expected = {key(number): path.read_bytes() for number, path in enumerate(made, 1)}
    assert expected == desk.shipped()
    again = desk.shipping()
    assert not again.turn()
    assert 0 == again._bucket.counters.requests
    assert expected == desk.shipped()
    assert all(path.exists() for path in made)


def test_without_memory_the_bucket_tells_what_it_has(desk: Desk) -> None:
    """A shipper that lost its memory compares instead of sending, and brings what is missing in the middle."""
    made = desk.seal(count=5)
    desk.shipping().turn()
    Bucket.open(desk.url).delete(key(3))
    other = desk.shipping(name="other.json")
    assert other.turn()
    assert (1, 4) == (other.progress.segments, other.progress.found)
    assert {key(number): path.read_bytes() for number, path in enumerate(made, 1)} == desk.shipped()


def test_something_else_under_a_key_is_an_alarm_and_stays(desk: Desk) -> None:
    """Neither another length nor another byte is overwritten; it is told, the rest is shipped, the local copy never goes."""
    made = desk.seal(count=4)
    foreign = {key(2): b"something else", key(3): made[2].read_bytes()[:-1] + b"!"}
    bucket = Bucket.open(desk.url)
    for name, content in foreign.items():
        bucket.create(name, content)
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0))
    contents = {key(1): made[0].read_bytes(), key(4): made[3].read_bytes()}
    shipping.turn()
    assert {2: key(2), 3: key(3)} == shipping.progress.conflicts
    assert contents | foreign == desk.shipped()
    assert [False, True, True, True] == [path.exists() for path in made], "only what comes before the trouble may go"
    desk.now += RECHECK_SECONDS - 1
    assert not shipping.turn(), "it is not compared every second"
    bucket.delete(key(2))
    bucket.delete(key(3))
    desk.now += 2
    assert desk.shipping().turn(), "who starts afresh finds that the names are free"
    assert {key(number) for number in range(1, 5)} == set(desk.shipped())
    shipping._listed.clear()
    assert shipping.turn(), "after an hour the other one looks again"
    desk.now += RELEASE_SECONDS
    assert not shipping.turn()
    assert ({}, [False] * 3 + [True]) == (shipping.progress.conflicts, [path.exists() for path in made])


def test_what_came_after_the_list_is_compared_too(desk: Desk) -> None:
    """Something else that takes a segment's key after the day was listed is an alarm as well; the same content is not."""
    desk.seal(count=3)
    shipping = desk.shipping()
    shipping.turn()
    made = desk.seal(first=4, count=2)
    bucket = Bucket.open(desk.url)
    bucket.create(key(4), b"something else")
    bucket.create(key(5), made[1])
    shipping.turn()
    assert ({4: key(4)}, 1) == (shipping.progress.conflicts, shipping.progress.found)
    assert [False, True] == [shipping._memory.has(number) for number in (4, 5)]
    assert b"something else" == bucket.read(key(4))


def test_files_that_are_no_segments_stop_nothing(desk: Desk) -> None:
    """A file with a segment's name and another content, and one with another number, are told; the others are shipped."""
    made = desk.seal(count=4)
    made[1].write_bytes(b"no segment")
    made[2].write_bytes(made[3].read_bytes())
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0))
    shipping.turn()
    assert {2, 3} == set(shipping.progress.unshippable)
    assert {key(1), key(4)} == set(desk.shipped())
    assert made[1].exists()
    assert made[2].exists()


def test_a_file_that_cannot_be_read_holds_up_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives a segment's beginning and fails in its middle, or fails at once, costs that segment only."""
    made = desk.seal(count=4)
    real = shipping_module._sha256

    def failing(path: Path) -> bytes:
        if path == made[1]:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(shipping_module, "_sha256", failing)
    made[2].unlink()
    made[2].mkdir()
    shipping = desk.shipping()
    shipping.turn()
    assert {key(1), key(4)} == set(desk.shipped())
    assert {2, 3} == set(shipping.progress.unshippable)
    shipping.turn()
    assert {2, 3} == set(shipping.progress.unshippable)
    monkeypatch.setattr(shipping_module, "_sha256", real)
    desk.now += RECHECK_SECONDS
    shipping.turn()
    assert ({key(1), key(2), key(4)}, {3}) == (set(desk.shipped()), set(shipping.progress.unshippable))


def test_local_copies_go_when_the_bucket_is_seen_to_have_them(desk: Desk) -> None:
    """With no time to stay, every copy but the newest goes after it was shipped; the object is looked for once more before."""
    made = desk.seal(count=3)
    contents = {key(number): path.read_bytes() for number, path in enumerate(made, 1)}
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=None, free_bytes_min=0))
    shipping.turn()
    assert made[-1:] == [path for path in made if path.exists()]
    assert contents == desk.shipped()
    gone = sum(len(content) for name, content in contents.items() if name != key(3))
    assert (2, gone) == (shipping._memory.released, shipping._memory.released_bytes)


@pytest.mark.parametrize(("said", "kept"), [(b"2\n", 2), (b"1\n", 3), (b"nothing", 3), (None, 3)])
def test_what_the_recorder_would_read_again_stays(tmp_path: Path, said: bytes | None, kept: int) -> None:
    """Copies from the recorder's snapshot on stay, whatever the limits say; where nothing tells of one, all stay."""
    (tmp_path / "bucket").mkdir()
    desk = Desk(tmp_path, str(tmp_path / "bucket"))
    made = desk.seal(count=3)
    if said is not None:
        (tmp_path / needed.NAME).write_bytes(said)
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=None, free_bytes_min=0))
    shipping._needed = lambda: needed.needed_from(tmp_path)
    shipping.turn()
    assert kept == sum(path.exists() for path in made)


def test_names_are_durable_before_anything_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a power cut could take back, and a recorder use again, does not get into the bucket."""
    (tmp_path / "bucket").mkdir()
    desk = Desk(tmp_path, str(tmp_path / "bucket"))
    desk.seal()
    shipped_then: list[int] = []
    monkeypatch.setattr(shipping_module, "sync_directory", lambda _path: shipped_then.append(len(desk.shipped())))
    desk.shipping().turn()
    assert ([0], 1) == (shipped_then, len(desk.shipped()))


def test_a_memory_that_is_wrong_loses_nothing(desk: Desk) -> None:
    """A local copy whose object is gone from the bucket is not removed but shipped again."""
    made = desk.seal(count=3)
    contents = {key(number): path.read_bytes() for number, path in enumerate(made, 1)}
    desk.shipping().turn()
    Bucket.open(desk.url).delete(key(2))
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=None, free_bytes_min=0))
    shipping.turn()
    assert [False, True, True] == [path.exists() for path in made]
    shipping.turn()
    desk.now += RELEASE_SECONDS
    shipping.turn()
    assert made[-1:] == [path for path in made if path.exists()]
    assert contents == desk.shipped()


def test_copies_that_a_killed_one_left_go(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second version that a shipper made, and was killed before it looked, goes with the next look; other content is told."""
    desk = Desk(tmp_path, empty_bucket(LOCKING, request, monkeypatch, tmp_path))
    made = desk.seal(count=4)
    desk.shipping().turn()
    signed = Bucket.open(desk.url).signed
    assert signed is not None

    def put(number: int, content: bytes) -> None:
        assert 200 == signed.request("PUT", key(number), {}, content).status

    def versions() -> list[int]:
        return [len(signed.versions(key(number))) for number in range(1, 5)]

    first = signed.versions(key(1))
    put(1, made[0].read_bytes())
    put(3, b"something else")
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0), name="other.json")
    put(4, made[3].read_bytes())
    assert [2, 1, 2, 2] == versions()
    shipping._release = lambda: None  # type: ignore[method-assign] # later
    shipping.turn()
    assert [1, 1, 2, 1] == versions()
    assert (first, {3: key(3)}) == (signed.versions(key(1)), shipping.progress.conflicts)
    put(2, made[1].read_bytes())
    desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0), name="other.json").turn()
    assert [1, 1, 2, 1] == versions(), "what is only carried out after that goes at the latest before the local copy does"
    assert [False, False, True, True] == [path.exists() for path in made]


def test_another_bucket_starts_from_nothing(desk: Desk, tmp_path: Path) -> None:
    """What was shipped to one bucket counts for nothing with another, and nothing is removed because of it."""
    made = desk.seal(count=2)
    desk.shipping().turn()
    (tmp_path / "second").mkdir()
    desk.url = str(tmp_path / "second")
    desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0)).turn()
    assert 2 == len(desk.shipped())
    assert made[-1:] == [path for path in made if path.exists()]


def test_a_limit_on_bytes_holds(desk: Desk) -> None:
    """At 10,000 bytes a second ten segments of 5 kB, sent and read back, take ten seconds but for the last."""
    desk.seal(count=10, size=5000)
    desk.shipping(bytes_per_second=10_000).turn()
    moved = sum(len(content) for content in desk.shipped().values())
    assert pytest.approx(2 * moved / 10_000 * 0.9, rel=0.02) == desk.now


def test_a_missing_bucket_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    """A directory that is not there is not made: a file system may be missing under it. Everything goes on waiting."""
    desk = Desk(tmp_path, str(tmp_path / "nothing"))
    made = desk.seal(count=2)
    shipping = desk.shipping(Limits(age_ns_max=0, bytes_max=0, free_bytes_min=0))
    with pytest.raises(BucketMissingError):
        shipping.turn()
    assert not (tmp_path / "nothing").exists()
    assert all(path.exists() for path in made)
    assert 2 == len(shipping.progress.waiting)


def test_damaged_memories_are_as_good_as_none(tmp_path: Path) -> None:
    """Whatever a memory's file holds, the shipper starts."""
    for content in (
        b"",
        b"[]",
        b"{}",
        b'{"bucket": 1}',
        b"\xff",
        b'{"bucket":"b","host":"%s","through":"x"}' % str(HOST).encode(),
    ):
        (tmp_path / "memory").write_bytes(content)
        memory = Memory(tmp_path / "memory", "b", HOST)
        memory.load()
        assert (0, set()) == (memory.through, memory.above)


def test_memory_is_short() -> None:
    """Settling keeps one number and the exceptions above it."""
    memory = Memory(Path(), "b", HOST, through=3, above={5, 6, 9})
    assert [4, 7, 8] == memory.settle([2, 4, 5, 6, 7, 8, 9])
    assert (3, {5, 6, 9}) == (memory.through, memory.above)
    assert [8] == memory.settle([5, 6, 8, 9])
    assert (7, {9}) == (memory.through, memory.above)
    assert [] == memory.settle([9, 12] if memory.has(12) else [9])
    assert (9, set()) == (memory.through, memory.above)
    memory.doubt(8)
    assert [8, 9] == memory.settle([6, 7, 8, 9])


def test_a_memory_of_later_segments_is_of_another_recording() -> None:
    """Where the newest segment is behind what was shipped, numbers are used anew: nothing of them is in the bucket."""
    memory = Memory(Path(), "b", HOST, through=9, above={11})
    assert [1, 2] == memory.settle([1, 2])
    memory = Memory(Path(), "b", HOST, through=9)
    assert [] == memory.settle([8, 9])
    assert [] == memory.settle([])
    assert 9 == memory.through


COPIES = [Copy(sequence=number, size=10, sealed_ns=number * 100) for number in range(1, 6)]
ANY: Callable[[int], bool] = lambda _sequence: True  # noqa: E731 - a table's value


@pytest.mark.parametrize(
    ("limits", "shipped", "free", "expected"),
    [
        (KEEP, ANY, 0, []),
        (Limits(age_ns_max=700, bytes_max=None, free_bytes_min=0), ANY, 0, [1, 2]),
        (Limits(age_ns_max=None, bytes_max=25, free_bytes_min=0), ANY, 0, [1, 2, 3]),
        (Limits(age_ns_max=None, bytes_max=None, free_bytes_min=120), ANY, 105, [1, 2]),
        (Limits(age_ns_max=0, bytes_max=0, free_bytes_min=10**9), lambda sequence: sequence != 3, 0, [1, 2]),
        (Limits(age_ns_max=0, bytes_max=0, free_bytes_min=10**9), lambda _sequence: False, 0, []),
        (Limits(age_ns_max=0, bytes_max=0, free_bytes_min=10**9), ANY, 0, [1, 2, 3, 4]),
    ],
)
def test_copies_to_release(limits: Limits, shipped: Callable[[int], bool], free: int, expected: list[int]) -> None:
    """The oldest go first, as many as the limits ask for, up to the first that is not in the bucket; never the newest."""
    found = to_release(COPIES, limits, shipped=shipped, now_ns=1000, free_bytes=free)
    assert expected == [copy.sequence for copy in found]


def test_keys_are_functions_of_segments() -> None:
    """A key is made of host, day in UTC and number, and is understood again; nothing else is a segment's key."""
    made = SegmentKey.of(HOST, 7, NOON_NS)
    assert (key(7), made) == (str(made), SegmentKey.parse(str(made)))
    night = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp()) * 10**9
    assert ("2026-11-21", "2026-11-22") == tuple(SegmentKey.of(HOST, 1, night + ns).day.isoformat() for ns in (-1, 0))
    wrong = (key(7) + "x", "a/" + key(7), key(7).replace("11-21", "13-45"), key(7).replace(str(HOST), "-" * 36), "keys/x", "")
    assert [None] * 6 == [SegmentKey.parse(text) for text in wrong]


def test_keys_come_before_segments_and_heads_after_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket never holds a segment without its key, nor a head without its segment; `verify` finds it whole at any time."""
    signer = HostKey.new()
    signer.save(desk.directory / "keys")
    desk.seal(count=3, signer=signer)
    log = HeadLog(desk.segments, host=HOST, signer=signer)
    log.write(NOON_NS, 0, None)
    log.write(NOON_NS, 2, b"2" * 32)
    log.write(NOON_NS, 4, b"4" * 32)
    order: list[str] = []
    shipping = desk.shipping()
    create = shipping._bucket.create

    def noting(key: str, content: bytes | Path) -> Outcome:
        order.append(key)
        return create(key, content)

    monkeypatch.setattr(shipping._bucket, "create", noting)
    shipping.turn()
    expected = [f"host={HOST}/keys/{signer.key_id.hex()}.pub", key(1), key(2), key(3)]
    expected += [key(1).replace("000000000001.seg", f"head-{number:012d}.head") for number in (1, 2)]
    assert expected == order, "the third head names a segment that is not there yet"
    desk.seal(first=4, signer=signer)
    shipping.turn()
    assert [*expected, key(4), key(1).replace("000000000001.seg", "head-000000000003.head")] == order
    shipping.turn()
    assert 8 == len(order) == len(desk.shipped()), "nothing is created twice"
    assert signer.public == PublicKey.from_text(desk.shipped()[expected[0]], "bucket")
    again = desk.shipping(name="fresh.json")
    again.turn()
    assert (8, 0) == (len(desk.shipped()), again.progress.segments)


def test_another_key_under_the_hosts_name_is_an_alarm(desk: Desk) -> None:
    """Who puts a key of his own where the host's belongs is told."""
    signer = HostKey.new()
    signer.save(desk.directory / "keys")
    name = f"host={HOST}/keys/{signer.key_id.hex()}.pub"
    Bucket.open(desk.url).create(name, HostKey.new().public.to_text())
    shipping = desk.shipping()
    shipping.turn()
    assert {name} == shipping.progress.companions


def test_a_foreign_host_keeps_its_name(desk: Desk) -> None:
    """A segment goes under the host that recorded it, whoever ships it."""
    other = UUID(int=7)
    path = seal(desk.segments, host=other, clock=lambda: NOON_NS)[0]
    desk.shipping().turn()
    bucket = Bucket.open(desk.url)
    assert Outcome.EXISTS_SAME is bucket.create(key(1).replace(str(HOST), str(other)), path)
