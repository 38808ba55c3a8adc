"""Evidence of which something is gone: what a bucket, its records of deletion, and earlier looks say of that."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.deletions import Deleted, Deletion
from capd.recording.evidence.host_report import HostReport, Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.pins import Pin
from capd.recording.evidence.seals import Fault
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.heads import head_name
from capd.recording.journal import Position
from capd.recording.keys import HostKey
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import open_path, sealed_path
from capd.recording.segment.writer import Sealing, SegmentWriter
from tests.recording.signed_host import HOST, START_NS, Host, cut_off_with_heads, damage, drop, pinned, verify

URL = "s3://recordings"


def bucket_of(host: Host, bucket: Path) -> Path:
    """Give a bucket with what a host recorded."""
    day = bucket / f"host={HOST}" / "date=2025-11-21"
    shutil.copytree(host.segments, day)
    shutil.copytree(host.directory / "keys", day.parent / "keys")
    return day


def test_a_bucket_whose_beginning_is_gone_says_so(host: Host, tmp_path: Path) -> None:
    """Nothing goes from a bucket but by policy: what is missing before its first segment is told, and damage if it was seen."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    whole = verify(bucket)
    assert [] == list(whole.all_findings())
    pin = whole.next_pin(1)
    assert pin is not None
    assert 1 == pin.first
    pins = {HOST: pin}
    for number in (1, 2):
        sealed_path(day, number).unlink()
    report = verify(bucket)
    assert [(Fault.MISSING, 1, False)] == [(one.fault, one.segment, one.damage) for one in report.all_findings()]
    assert "segments 1 to 2 are not here" in report.findings[0].message
    assert ([(Fault.MISSING, 1, None)], [(1, 2)]) == (damage(verify(bucket, pins=pins)), verify(bucket, pins=pins).missing)
    later = {HOST: replace(pin, first=2)}
    assert [(1, False), (2, True)] == [(one.segment, one.damage) for one in verify(bucket, pins=later).all_findings()]
    # What left the host is in the bucket, and a record of deletion accounts for the rest.
    drop(1, 2)(host)
    assert [] == damage(verify(host.directory, pins=pins))
    again = verify(host.directory, pins=pins).next_pin(2)
    assert again is not None
    assert 1 == again.first
    deletion = Deletion(
        host=HOST,
        written_ns=1,
        segments=[Deleted(sequence=number, digest=bytes(32), policy="ci") for number in (1, 2)],
    )
    with SegmentReader(host.path(3)) as reader:
        assert reader.footer is not None
        digest = reader.footer.previous
    assert digest is not None
    named = [deletion.segments[0], replace(deletion.segments[1], digest=digest)]
    signed = replace(deletion, segments=named).signed(host.key)
    (day.parent / "deletions").mkdir()
    (day.parent / "deletions" / signed.name).write_bytes(signed.pack())
    assert ([], [(1, 2)]) == (damage(verify(bucket, pins=pins)), verify(bucket, pins=pins).expired)


def test_a_segment_in_the_place_of_one_that_expired_is_named(host: Host, tmp_path: Path) -> None:
    """A record of deletion says what went: something else of that number is another one, signed or not."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    segments = [Deleted(sequence=number, digest=bytes([number]) * 32, policy="ci") for number in (5, 6)]
    signed = Deletion(host=HOST, written_ns=1, segments=segments).signed(host.key)
    (day.parent / "deletions").mkdir()
    (day.parent / "deletions" / signed.name).write_bytes(signed.pack())
    assert [(Fault.ORDER, 5, None), (Fault.ORDER, 6, None)] == damage(verify(bucket))


@pytest.mark.parametrize(
    "change",
    [
        {"host": 5},
        {"host": True},
        {"host": []},
        {"written_ns": float("inf")},
        {"segments": [{"sequence": float("inf"), "footer": "00", "policy": ""}]},
        {"segments": {}},
        {"version": []},
    ],
)
def test_a_record_of_deletion_that_somebody_made_up_is_named(host: Host, change: dict[str, object]) -> None:
    """Whatever JSON stands in its place, it is told, and the rest is verified."""
    deletion = Deletion(host=HOST, written_ns=1, segments=[Deleted(sequence=9, digest=bytes(32), policy="ci")]).signed(host.key)
    made_up = {**json.loads(deletion.pack()), **change}
    (host.segments / deletion.name).write_text(json.dumps(made_up))
    assert [(Fault.ALTERED, None, None)] == damage(verify(host.directory))


def test_numbers_that_somebody_made_up_cost_nothing(host: Host) -> None:
    """A file that calls itself the last segment there can be is told in no time, and so is the hole before it."""
    shutil.copy(host.path(6), host.path(10**12 - 1))
    report = verify(host.directory)
    assert [(7, 10**12 - 2)] == report.missing
    for number in range(1, 7):
        host.path(number).unlink()
    assert {Fault.ORDER} <= verify(host.directory).faults


def test_another_history_shows_by_its_heads_alone(host: Host) -> None:
    """Where local copies went, the head that was seen before tells that the host was put back meanwhile."""
    pins = pinned(host)
    cut_off_with_heads(host)
    host.ticks = count(START_NS + 10**9)
    host.record(4)
    host.say_head()
    host.say_head()
    drop(*range(1, 7))(host)
    assert [] == damage(verify(host.directory))
    assert [(Fault.ROLLED_BACK, None, None)] == damage(verify(host.directory, pins=pins))


def test_sizes_that_somebody_made_up_are_not_read(host: Host) -> None:
    """A head, a key, and a frame that would fill the memory are read no further than they can be."""
    head, key = host.segments / head_name(2), next((host.directory / "keys").glob("*.pub"))
    for path, faults in ((head, {Fault.ALTERED}), (key, set[Fault]())):  # of a key what stands behind it is no part
        shutil.copy(path, path.with_name("kept"))
        os.truncate(path, 1 << 40)
        assert faults == verify(host.directory).faults
        path.with_name("kept").rename(path)
    with SegmentReader(host.path(3)) as reader:
        footer = reader.footer
    assert footer is not None
    start = footer.header.size
    whole = replace(footer.frames[0], offset=start, length=1 << 40)
    os.truncate(host.path(3), start + whole.length)
    with host.path(3).open("ab") as file:
        file.write(replace(footer, frames=[whole], sessions={}).pack(host.key)[0])
    assert "frame 0 with 1099511627776 bytes" in str(verify(host.directory).segments[2].findings[0].message)


def in_bucket(bucket: Path, pins: Mapping[UUID, Pin] | None = None) -> list[HostReport]:
    """Check a directory that is known to be a bucket."""
    return list(verify_shelf(DirectoryShelf(bucket), Trust(pins=pins or {}, bucket=URL), workers=2))


def test_a_host_of_which_nothing_is_left_in_a_bucket_is_missed(host: Host, tmp_path: Path) -> None:
    """A verifier that saw a host in a bucket says when all of it is gone from there, and misses it nowhere else."""
    bucket = tmp_path / "bucket"
    folder = bucket_of(host, bucket).parent
    (report,) = in_bucket(bucket)
    assert [] == damage(report)
    pin = report.next_pin(1, URL)
    assert pin is not None
    pins = {HOST: pin}
    assert (URL,) == pin.buckets
    shutil.rmtree(folder)
    (report,) = in_bucket(bucket, pins)
    assert (HOST, [(Fault.MISSING, None, None)]) == (report.host, damage(report))
    assert report.next_pin(2, URL) is None
    other = Trust(pins=pins, bucket="s3://another")
    assert (
        [] == list(verify_shelf(DirectoryShelf(bucket), other)) == list(verify_shelf(DirectoryShelf(bucket), Trust(pins=pins)))
    )
    # What is seen elsewhere meanwhile makes nobody forget where it was seen.
    again = verify(host.directory, pins=pins).next_pin(2)
    assert again is not None
    assert (URL,) == again.buckets


@pytest.mark.parametrize("folder", ["date=2020-01-01", "aside", "../old/host=" + str(HOST) + "/date=2025-11-21", ".."])
def test_a_segment_where_no_reader_looks_is_named(host: Host, tmp_path: Path, folder: str) -> None:
    """What is all there, but not in its place, is not found by those that read, so it is not whole."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    target = (day.parent / folder).resolve()
    target.mkdir(parents=True, exist_ok=True)
    sealed_path(day, 3).rename(sealed_path(target, 3))
    assert Fault.ORDER in {fault for report in in_bucket(bucket) for fault, _, _ in damage(report)}


def test_a_bucket_without_its_folders_cannot_hide_that_its_beginning_is_gone(host: Host, tmp_path: Path) -> None:
    """Laid out as on a host, from which the oldest segments go, a bucket is still a bucket."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    (report,) = in_bucket(bucket)
    pin = report.next_pin(1, URL)
    assert pin is not None
    flat = tmp_path / "flat"
    shutil.copytree(day, flat)
    shutil.copytree(day.parent / "keys", flat / "keys")
    for number in (1, 2):
        sealed_path(flat, number).unlink()
    found = {fault for one in in_bucket(flat, {HOST: pin}) for fault, _, _ in damage(one)}
    assert {Fault.ORDER, Fault.MISSING} <= found


def test_an_open_segment_has_no_place_in_a_bucket(host: Host, tmp_path: Path) -> None:
    """Renamed to what recovery may cut, a sealed segment would be nobody's loss."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    sealed_path(day, 6).rename(open_path(day, 6))
    (day / head_name(2)).unlink()
    (report,) = in_bucket(bucket)
    assert [(Fault.ORDER, None, None)] == damage(report)


def record_with(host: Host, key: HostKey, segments: int = 1) -> None:
    """Record on as who has this key."""
    replace(host, key=key).record(segments)


def replaced(directory: Path, pins: Mapping[UUID, Pin] | None = None) -> list[str]:
    """Give what is said of keys that were replaced, and demand that nothing else is wrong."""
    found = list(verify(directory, pins=pins or {}).all_findings())
    assert {Fault.REPLACED_KEY} >= {one.fault for one in found if one.damage}
    return [f"{one.segment}: {one.message}" for one in found if one.damage]


def test_a_key_that_was_rotated_out_signs_nothing_any_more(host: Host) -> None:
    """Once the new key signed a segment, what the old one signs is named: segments, heads, and what they are about."""
    old = host.key
    host.rotate()
    record_with(host, old)  # the recorder was not restarted yet
    assert [] == replaced(host.directory)
    host.record(1)
    host.say_head()
    assert [] == replaced(host.directory)
    pins = pinned(host)
    assert host.key.key_id == pins[HOST].signer
    record_with(host, old)
    replace(host, key=old).say_head()
    found = replaced(host.directory)
    assert 2 == len(found)
    assert found[1].startswith("9: signed with key " + old.key_id.hex())
    assert f"head 4: signed with key {old.key_id.hex()}" in found[0]
    # Without the segment that tells, its head does, and who saw it before needs neither.
    drop(8)(host)
    assert [(Fault.MISSING, 8, None), (Fault.REPLACED_KEY, None, None)] == damage(verify(host.directory))
    drop(*range(1, 8))(host)
    for number in range(1, 4):
        (host.segments / head_name(number)).unlink()
    assert [] == replaced(host.directory)
    assert 2 == len(replaced(host.directory, pins))


def test_a_successor_that_a_thief_made_is_named(host: Host) -> None:
    """Who stole the old key can make a key that follows it: once the host's own successor signed, that one comes too late."""
    stolen = host.key
    host.rotate()
    host.record(1)
    thief = HostKey.new(HOST, stolen)
    (host.directory / "keys" / f"{thief.key_id.hex()}.pub").write_bytes(thief.public.to_text())
    assert [] == replaced(host.directory)
    record_with(host, thief)
    assert ["8"] == [words.partition(":")[0] for words in replaced(host.directory)]


def test_a_record_of_deletion_by_an_old_key_is_named(host: Host, tmp_path: Path) -> None:
    """A segment that the new key signed is not the old one's to let go."""
    old = host.key
    host.rotate()
    host.record(2)
    host.say_head()
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    with SegmentReader(host.path(8)) as reader:
        digest = reader.footer_digest
    assert digest is not None
    sealed_path(day, 8).unlink()
    (day.parent / "deletions").mkdir()
    for key, expected in ((old, 1), (host.key, 0)):
        signed = Deletion(host=HOST, written_ns=1, segments=[Deleted(sequence=8, digest=digest, policy="ci")]).signed(key)
        (day.parent / "deletions" / signed.name).write_bytes(signed.pack())
        assert expected == len(replaced(bucket))


def test_a_key_that_was_lost_may_be_followed_by_one_that_was_given(host: Host) -> None:
    """A key for which nobody vouches is trusted when it is given by hand; going back from it is named as well."""
    lost, new = host.key, HostKey.new()
    (host.directory / "keys" / f"{new.key_id.hex()}.pub").write_bytes(new.public.to_text())
    record_with(host, new)
    given = [lost.public, new.public]
    assert [] == damage(verify(host.directory, keys=given))
    record_with(host, lost)
    assert [(Fault.REPLACED_KEY, 8, None)] == damage(verify(host.directory, keys=given))


def test_a_key_that_signs_for_two_hosts_is_told(host: Host, tmp_path: Path) -> None:
    """Given the keys of several hosts by hand, a verifier cannot tell whose is whose, but that one speaks for another."""
    bucket = tmp_path / "bucket"
    day = bucket_of(host, bucket)
    other = UUID(int=2)
    ours, theirs = day, bucket / f"host={other}" / day.name
    theirs.mkdir(parents=True)
    writer = SegmentWriter(theirs, host=other, clock=lambda: START_NS, sealing=Sealing(signer=host.key))
    writer.append(host.conversation(1))
    writer.flush(Position(0, 1))
    writer.seal({})
    first, second = verify_shelf(DirectoryShelf(bucket), Trust(keys=[host.key.public]), workers=2)
    assert ([], [], []) == (damage(first), damage(second), list(first.all_findings()))
    assert f"signed for host {HOST} as well" in [one.message for one in second.findings][-1]
    shutil.rmtree(theirs.parent)
    assert [] == list(verify(ours.parent.parent).all_findings())
