"""One contract for every kind of bucket: objects are created once, whole, and read by ranges.

What lives here: what a caller of `Bucket` may rely on, tried against real servers. What must not: failures of the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import capd.recording.bucket as bucket_module
from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.errors import BucketError, BucketMissingError, BucketUrlError, ObjectMissingError
from tests.servers.ceph import Ceph
from tests.servers.kinds import KINDS, LOCKING, empty_bucket

Open = Callable[[], Bucket]
CREATE_TRIES = 5
"""Of one creator against a busy server."""


@pytest.fixture(params=[*KINDS, LOCKING])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Give what opens one empty bucket of each kind, any number of times."""
    url = empty_bucket(request.param, request, monkeypatch, tmp_path)
    return lambda: Bucket.open(url)


def test_an_object_is_created_once(opened: Open, tmp_path: Path) -> None:
    """A second creation tells whether the content is the same, and changes nothing."""
    bucket, key = opened(), "host=a/date=2026-11-21/000000000001.seg"
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    assert Outcome.CREATED is bucket.create(key, tmp_path / "file")
    assert Outcome.EXISTS_SAME is bucket.create(key, content)
    assert Outcome.EXISTS_DIFFERENT is bucket.create(key, content[:-1] + b"!")
    assert Outcome.EXISTS_DIFFERENT is bucket.create(key, content + b"!")
    assert content == bucket.read(key)
    assert bucket.counters.bytes_written == len(content)


def test_ranges_end_with_the_object(opened: Open) -> None:
    """A range gives what there is of it."""
    bucket = opened()
    bucket.create("a", bytes(range(100)))
    cases = {(0, 10): 10, (95, 10): 5, (100, 5): 0, (300, 5): 0, (0, 100): 100, (7, 0): 0}
    assert {case: bytes(range(100))[case[0] : sum(case)] for case in cases} == {case: bucket.read("a", *case) for case in cases}
    assert bytes(range(90, 100)) == bucket.read("a", 90)
    assert 100 == bucket.size("a")


def test_lists_are_sorted_and_go_by_the_beginning_of_keys(opened: Open) -> None:
    """A list has exactly the keys with a prefix, also one that ends within a name."""
    bucket = opened()
    keys = ["host=b/date=1/2.seg", "host=a/date=1/10.seg", "host=a/date=1/1.seg", "host=a/keys/x.pub", "host=ab/keys/x.pub"]
    for key in keys:
        bucket.create(key, key.encode())
    assert sorted(keys) == [entry.key for entry in bucket.list()]
    assert ["host=a/date=1/1.seg", "host=a/date=1/10.seg"] == [entry.key for entry in bucket.list("host=a/date=1/1")]
    assert ["host=a/keys/x.pub"] == [entry.key for entry in bucket.list("host=a/k")]
    assert [] == bucket.list("host=c/")
    assert ["date=1", "keys"] == bucket.folders("host=a/")
    assert ["host=a", "host=ab", "host=b"] == bucket.folders()
    assert [] == bucket.folders("host=c/")
    assert {key: len(key) for key in keys} == {entry.key: entry.size for entry in bucket.list()}


def test_what_is_not_there_has_its_own_error(opened: Open) -> None:
    """A missing object is told apart from a missing bucket, whatever numbers are in its name; deleting it is fine."""
    bucket = opened()
    bucket.create("there", b"")
    for ask in (bucket.size, bucket.read, lambda key: bucket.holds(key, 0, b"")):
        for key in ("not/there", "not/000000000416.seg"):
            with pytest.raises(ObjectMissingError):
                ask(key)
    bucket.delete("not/there")
    bucket.delete("there")
    assert [] == bucket.list()


def test_content_is_confirmed_by_its_checksum(opened: Open) -> None:
    """`holds` reads what is there; neither another content of the same length nor another length passes."""
    bucket, content = opened(), os.urandom(3_000_000)
    bucket.create("a", content)
    digest = hashlib.sha256(content).digest()
    assert bucket.holds("a", len(content), digest)
    assert not bucket.holds("a", len(content), hashlib.sha256(content + b"!").digest())
    assert not bucket.holds("a", len(content) - 1, digest)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000])
def test_content_of_any_length_is_confirmed(opened: Open, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """However an object's length lies to the length of the ranges that it is read by, one byte more or less is seen."""
    monkeypatch.setattr(bucket_module, "READ_BYTES", 1000)
    bucket, content = opened(), os.urandom(size)
    bucket.create("a", content)
    digest = hashlib.sha256(content).digest()
    assert bucket.holds("a", size, digest)
    assert not bucket.holds("a", size + 1, digest)
    assert not (size and bucket.holds("a", size - 1, hashlib.sha256(content[:-1]).digest()))


def test_of_many_creators_at_once_one_wins(opened: Open) -> None:
    """Eight threads that create one object with different contents: one has created it, seven know that it differs.

    A server may turn one of them away, or answer too late, when it is busy: it asks again, as a shipper does.
    """
    contents = [bytes([number]) * 50_000 for number in range(8)]
    outcomes: dict[int, Outcome] = {}

    def create(number: int) -> None:
        bucket = opened()
        for _try in range(CREATE_TRIES):
            with contextlib.suppress(BucketError):
                outcomes[number] = bucket.create("host=a/contested", contents[number])
                return

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, outcome in outcomes.items() if outcome is not Outcome.EXISTS_DIFFERENT]
    assert (8, 1) == (len(outcomes), len(winners))
    assert contents[winners[0]] == opened().read("host=a/contested")


def test_a_bucket_without_a_prefix(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are the bucket's own, and two prefixes do not see each other's."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{ceph.make('whole', lock=True)}"
    Bucket.open(url).create("a/b/c", b"1")
    assert ["c"] == [entry.key for entry in Bucket.open(f"{url}/a/b").list()]
    assert ([], Outcome.EXISTS_DIFFERENT) == (Bucket.open(f"{url}/a/c").list(), Bucket.open(f"{url}/a").create("b/c", b"2"))


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a\\b", "a\nb", "a" * 1025])
def test_keys_stay_in_the_bucket(key: str, tmp_path: Path) -> None:
    """No key leaves the bucket, and none is read differently by different servers."""
    with pytest.raises(BucketUrlError):
        Bucket.open(str(tmp_path)).create(key, b"")


def test_a_directory_that_is_missing_is_a_missing_bucket(tmp_path: Path) -> None:
    """Nothing makes a directory where a bucket should be: a mount that is missing must not be written below."""
    bucket = Bucket.open(str(tmp_path / "nothing"))
    for ask in (bucket.list, bucket.folders, lambda: bucket.create("a", b"")):
        with pytest.raises(BucketMissingError):
            ask()
    assert not (tmp_path / "nothing").exists()


def test_unnamed_files_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system has no O_TMPFILE, objects are as whole and as unique."""
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    bucket = Bucket.open(str(tmp_path))
    assert [Outcome.CREATED, Outcome.EXISTS_SAME] == [bucket.create("a/b", b"content") for _ in range(2)]
    assert ["a/b"] == [entry.key for entry in bucket.list()]
    assert ["b"] == [path.name for path in (tmp_path / "a").iterdir()]


def test_what_a_killed_one_was_making_goes_with_the_object(tmp_path: Path) -> None:
    """Where objects are made under a name, half of one is left by a death; removing the object leaves nothing that it said."""
    bucket = Bucket.open(str(tmp_path))
    bucket.create("a/b", b"content")
    for name in (".b.7.part", ".b.8.part", ".bc.7.part"):
        (tmp_path / "a" / name).write_bytes(b"cont")
    bucket.delete("a/b")
    assert [".bc.7.part"] == [path.name for path in (tmp_path / "a").iterdir()]
