"""Evidence: whatever is done to a signed recording is named by what was done, from public keys alone."""

from __future__ import annotations

import shutil
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from capd.recording.errors import HostKeyError, PinsError
from capd.recording.evidence import pins as memory
from capd.recording.evidence.host_report import Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.seals import Fault
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.heads import GROWING_NS, IDLE_NS, Head, HeadLog, MalformedHeadError, head_name
from capd.recording.journal import Position
from capd.recording.keys import HostKey, PublicKey, ensure, present, public_keys, read_public, succession
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import FILE_HEADER, open_path
from capd.recording.segment.recovery import recover
from capd.recording.segment.trailer import TRAILER, seal_message
from capd.recording.segment.writer import SegmentWriter
from tests.recording.signed_host import (
    HOST,
    SEGMENTS,
    START_NS,
    Conversation,
    Host,
    cut_off_with_heads,
    damage,
    drop,
    pinned,
    verify,
)

GOLDEN = Path(__file__).parent / "golden"


def test_a_whole_recording_is_whole(host: Host) -> None:
    """Nothing is found; who signed, how far it goes and its newest head are told; it goes on over a restart of the recorder."""
    report = verify(host.directory)
    assert [] == list(report.all_findings())
    assert (HOST, list(range(1, SEGMENTS + 1)), 2, 0) == (
        report.host,
        [seal.sequence for seal in report.segments],
        report.heads,
        report.unsigned,
    )
    assert report.root is not None
    assert report.head is not None
    assert (host.key.public, SEGMENTS) == (report.root, report.head.sequence)
    assert [] == damage(verify(host.directory, pins=pinned(host), keys=[host.key.public]))


def test_a_bucket_layout_is_whole_and_hosts_are_kept_apart(host: Host, tmp_path: Path) -> None:
    """The same files in a bucket's folders verify; a file of one host in the folder of another is named."""
    bucket = tmp_path / "bucket"
    for identity in (HOST, UUID(int=2)):
        day = bucket / f"host={identity}" / "date=2026-11-21"
        shutil.copytree(host.segments, day)
        shutil.copytree(host.directory / "keys", day.parent / "keys")
    first, second = verify_shelf(DirectoryShelf(bucket), Trust())
    assert [] == damage(first)
    assert {Fault.ORDER, Fault.UNKNOWN_KEY} >= {fault for fault, _, _ in damage(second)} != set()


def _flip(offset: int) -> Callable[[Host], None]:
    def change(host: Host) -> None:
        data = bytearray(host.path(3).read_bytes())
        data[offset] ^= 1
        host.path(3).write_bytes(data)

    return change


def _swap(host: Host) -> None:
    aside = host.path(3).rename(host.segments / "aside")
    host.path(4).rename(host.path(3))
    aside.rename(host.path(4))


def _truncate(host: Host) -> None:
    host.path(3).write_bytes(host.path(3).read_bytes()[:-40])


def _other_frame(host: Host) -> None:
    """Write a whole frame of segment 4, of the same number, over that of segment 3."""
    data = bytearray(host.path(3).read_bytes())
    with SegmentReader(host.path(3)) as mine, SegmentReader(host.path(4)) as other:
        offset, stranger = mine.entries()[1].offset, other.stored(1)
    data[offset : offset + len(stranger)] = stranger
    host.path(3).write_bytes(data)


def _frames_exchanged(host: Host) -> None:
    """Exchange two frames of one segment."""
    data = host.path(3).read_bytes()
    with SegmentReader(host.path(3)) as reader:
        first, second = reader.entries()[:2]
        frames = reader.stored(0), reader.stored(1)
    host.path(3).write_bytes(data[: first.offset] + frames[1] + frames[0] + data[second.offset + second.length :])


def _sign_again(host: Host) -> None:
    """Write segment 3 anew with another key, and put that key beside the host's own."""
    other = HostKey.new()
    (host.directory / "keys" / f"{other.key_id.hex()}.pub").write_bytes(other.public.to_text())
    with SegmentReader(host.path(3)) as reader:
        footer = reader.footer
    assert footer is not None
    data = host.path(3).read_bytes()
    host.path(3).write_bytes(data[: footer.frames[-1].offset + footer.frames[-1].length] + footer.pack(other)[0])


def _sign_again_with_the_same_key(host: Host) -> None:
    """What an intruder can do who has the host's key: write segment 3 anew, rightly signed, with other losses."""
    with SegmentReader(host.path(3)) as reader:
        footer = reader.footer
    assert footer is not None
    data = host.path(3).read_bytes()
    end = footer.frames[-1].offset + footer.frames[-1].length
    host.path(3).write_bytes(data[:end] + replace(footer, losses={"ring full": 1}).pack(host.key)[0])


def _replay_version_1(host: Host) -> None:
    """Put an unsigned segment of version 1 in the place of a signed one, as an older capd would have written it."""
    data = bytearray((GOLDEN / "version-1" / "000000000007.seg").read_bytes())
    host.path(3).write_bytes(data)


def _strip_signature(host: Host) -> None:
    data = host.path(3).read_bytes()
    host.path(3).write_bytes(data[:-88] + bytes(80) + data[-8:])


def _other_reserved_bytes(host: Host) -> None:
    """Change what no reader looks at in the file header, with a right checksum."""
    data = bytearray(host.path(3).read_bytes())
    data[52] = 1
    data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
    host.path(3).write_bytes(data)


TAMPERING: list[tuple[str, Callable[[Host], None], set[tuple[Fault, int | None]]]] = [
    ("a changed byte in a frame", _flip(FILE_HEADER.size + 100), {(Fault.ALTERED, 3)}),
    ("a changed byte in the footer", _flip(-200), {(Fault.ALTERED, 3)}),
    ("a changed byte in the signature", _flip(-20), {(Fault.ALTERED, 3)}),
    ("another host in the file header", _flip(20), {(Fault.ALTERED, 3)}),
    ("a file header with a right checksum", _other_reserved_bytes, {(Fault.ALTERED, 3)}),
    ("a dropped segment", drop(3), {(Fault.MISSING, 3)}),
    ("several dropped segments", drop(2, 3), {(Fault.MISSING, 2)}),
    ("a missing end", drop(5, 6), {(Fault.MISSING, 5)}),
    ("two segments exchanged", _swap, {(Fault.ORDER, 3), (Fault.ORDER, 4), (Fault.ORDER, 5)}),
    ("a cut segment", _truncate, {(Fault.CUT, 3)}),
    ("a frame of another segment", _other_frame, {(Fault.ALTERED, 3)}),
    ("two frames exchanged", _frames_exchanged, {(Fault.ALTERED, 3)}),
    ("signed again with another key", _sign_again, {(Fault.UNKNOWN_KEY, 3)}),
    ("written anew with the same key", _sign_again_with_the_same_key, {(Fault.ORDER, 4)}),
    ("an unsigned segment of version 1 instead", _replay_version_1, {(Fault.ORDER, 3), (Fault.UNSIGNED, 3), (Fault.ORDER, 4)}),
    ("a signature taken away", _strip_signature, {(Fault.UNSIGNED, 3)}),
]


@pytest.mark.parametrize(("tamper", "expected"), [case[1:] for case in TAMPERING], ids=[case[0] for case in TAMPERING])
def test_tampering_is_named(host: Host, tamper: Callable[[Host], None], expected: set[tuple[Fault, int | None]]) -> None:
    """Whatever is done is named by its kind and the segment that it was done to; what is whole is not accused."""
    tamper(host)
    found = damage(verify(host.directory))
    assert expected <= {(fault, segment) for fault, segment, _ in found}
    assert {segment for _, segment in expected} == {segment for _, segment, _ in found}
    assert verify(host.directory).next_pin(1) is None


def test_altered_frames_are_named_by_number(host: Host) -> None:
    """Damage in a frame names it, and says whether another frame stands there."""
    _frames_exchanged(host)
    report = verify(host.directory)
    assert [(Fault.ALTERED, 3, 0), (Fault.ALTERED, 3, 1)] == damage(report)
    assert "another frame, whole and numbered 1, stands in its place" == next(report.all_findings()).message


def test_a_change_of_any_byte_is_found(host: Host) -> None:
    """Whichever byte of a signed segment is changed, verification finds damage."""
    whole = host.path(2).read_bytes()
    shelf = DirectoryShelf(host.directory)
    for offset in range(0, len(whole), 3):
        host.path(2).write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :])
        (report,) = verify_shelf(shelf, Trust())
        assert damage(report), f"byte {offset}"


def test_going_back_to_an_older_head_is_found_by_who_saw_the_newer(host: Host) -> None:
    """A recording without its end and the heads that tell of it looks whole, except to a verifier that saw more."""
    pins = pinned(host)
    cut_off_with_heads(host)
    assert [] == damage(verify(host.directory))
    assert [Fault.ROLLED_BACK] * 2 == [fault for fault, _, _ in damage(verify(host.directory, pins=pins))]


def test_another_history_with_the_same_key_is_found_by_who_saw_the_first(host: Host) -> None:
    """A host put back to an earlier state that recorded something else meanwhile contradicts what was pinned."""
    pins = pinned(host)
    cut_off_with_heads(host)
    host.ticks = count(START_NS + 10**9)
    host.record(4)
    host.say_head()
    assert [] == damage(verify(host.directory))
    found = damage(verify(host.directory, pins=pins))
    assert [(Fault.ROLLED_BACK, None, None), (Fault.ROLLED_BACK, 6, None)] == found


def test_a_recording_signed_anew_as_a_whole_is_found_by_who_knows_the_key(host: Host) -> None:
    """With every segment and head signed by a stranger's key nothing contradicts itself; a pin, or the key itself, tells."""
    pins, own = pinned(host), host.key.public
    shutil.rmtree(host.directory)
    stranger = replace(host, key=ensure(host.directory / "keys"), ticks=count(START_NS))
    stranger.record(SEGMENTS)
    stranger.say_head()
    assert [] == damage(verify(host.directory))
    for trust in ({"pins": pins}, {"keys": [own]}):
        found = damage(verify(host.directory, **trust))
        assert {(Fault.UNKNOWN_KEY, number) for number in range(1, SEGMENTS + 1)} <= {found[:2] for found in found}


def test_a_rotated_key_is_trusted_through_the_old_one(host: Host) -> None:
    """A key signed by the one before is trusted by who pinned the first; without its succession nobody trusts it."""
    pins = pinned(host)
    for _ in range(2):
        host.rotate()
        host.record(1)
        host.say_head()
    report = verify(host.directory, pins=pins)
    assert ([], 3, pins[HOST].key) == (damage(report), len(report.keys), report.root.raw if report.root else None)
    listed = succession(reversed(public_keys(host.directory / "keys")))
    assert ([b"", *(key.id for key in listed[:2])], present(host.directory / "keys")) == (
        [key.predecessor for key in listed],
        listed[2].id,
    )
    assert [] == damage(verify(host.directory))
    path = host.directory / "keys" / f"{host.key.key_id.hex()}.pub"
    path.write_bytes(replace(host.key.public, signature=bytes(64)).to_text())
    assert (Fault.UNKNOWN_KEY, SEGMENTS + 2, None) in damage(verify(host.directory))
    path.unlink()
    assert (Fault.UNKNOWN_KEY, SEGMENTS + 2, None) in damage(verify(host.directory))


def test_what_was_written_before_signing_is_told_and_is_no_damage(tmp_path: Path, host: Host) -> None:
    """Unsigned segments before the first signed one are worth knowing; a recording of only such is called unsigned."""
    directory = tmp_path / "upgraded"
    upgraded = replace(host, directory=directory, key=ensure(directory / "keys"), ticks=count(START_NS))
    upgraded.record(2, signed=False)
    assert [(Fault.UNSIGNED, None, None)] == damage(verify(directory))
    upgraded.record(2)
    upgraded.say_head()
    report = verify(directory)
    assert ([], 2, 3) == (damage(report), report.unsigned, report.signed_from)
    pins = {HOST: replace(pinned(upgraded)[HOST], signed_from=1)}
    assert [(Fault.UNSIGNED, 1, None), (Fault.UNSIGNED, 2, None)] == damage(verify(directory, pins=pins))


def test_segments_let_go_from_the_beginning_are_not_missed(host: Host) -> None:
    """What retention took from the old end is no hole: not in the chain, not for heads, not for pins."""
    pins = pinned(host)
    drop(1, 2)(host)
    (host.segments / head_name(1)).unlink()
    assert [] == damage(verify(host.directory, pins=pins))


def test_a_changed_byte_of_a_head_is_found(host: Host) -> None:
    """Whichever byte of a head is changed, it is named, and no segment is accused."""
    path = host.segments / head_name(2)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :])
        report = verify(host.directory)
        assert damage(report), f"byte {offset}"
        assert any("head 2" in found.message for found in report.all_findings())
        assert [] == [found for found in report.all_findings() if found.segment is not None]


def test_a_missing_head_is_found(host: Host) -> None:
    """Heads are numbered and chained: one taken from the middle shows."""
    host.say_head()
    (host.segments / head_name(2)).unlink()
    assert [(Fault.MISSING, None, None)] == damage(verify(host.directory))


SILENCE = [(False, IDLE_NS, False), (False, 4 * IDLE_NS, True), (True, 4 * IDLE_NS, False)]


@pytest.mark.parametrize(("final", "age_ns", "silent"), SILENCE)
def test_silence_shows(host: Host, final: bool, age_ns: int, silent: bool) -> None:
    """A newest head that is older than a running capd leaves it is told, unless capd was stopped; it is no damage."""
    head = host.say_head(final=final)
    report = verify(host.directory, now_ns=head.written_ns + age_ns)
    assert ([], [Fault.SILENT] * silent) == (damage(report), [found.fault for found in report.all_findings()])


def test_heads_are_due_by_growth_and_by_time(tmp_path: Path) -> None:
    """The first of a start is due at once, later ones after five minutes of growth or an hour of nothing."""
    log = HeadLog(tmp_path, host=HOST, signer=HostKey.new())
    assert log.due(0, 0)
    log.write(0, 7, bytes(32))
    due = [(GROWING_NS - 1, 8), (GROWING_NS, 7), (GROWING_NS, 8), (IDLE_NS, 7), (-IDLE_NS, 7)]
    assert [False, False, True, True, True] == [log.due(*when) for when in due]
    again = HeadLog(tmp_path, host=HOST, signer=HostKey.new())
    assert again.due(1, 7)
    assert again.write(1, 7, bytes(32)).previous == Head.parse((tmp_path / head_name(1)).read_bytes()).own_digest
    with pytest.raises(MalformedHeadError):
        Head.parse(b"")


def test_recovery_keeps_the_chain_whatever_was_cut(host: Host, tmp_path: Path, conversation: Conversation) -> None:
    """Cut at any byte, an open segment is sealed, signed and chained, and what is written next goes on from there."""
    writer = SegmentWriter(
        tmp_path / "open",
        host=HOST,
        clock=lambda: next(host.ticks),
        sequence=SEGMENTS + 1,
        previous=recover(host.segments, clock=lambda: 0).previous,
        frame_raw_bytes=900,
    )
    for number in range(3):
        writer.append(conversation(100 + number))
        writer.flush(Position(0, 100 + number))
    writer.close()
    whole = open_path(tmp_path / "open", SEGMENTS + 1).read_bytes()
    for size in [*range(0, len(whole), 149), len(whole)]:
        place = tmp_path / f"cut-{size}"
        shutil.copytree(host.directory, place)
        open_path(place / "segments", SEGMENTS + 1).write_bytes(whole[:size])
        replace(host, directory=place).record(2)
        report = verify(place)
        assert [] == damage(report)
        assert 0 == report.unsigned


def test_pins_are_kept_and_nothing_else_is_taken_for_them(tmp_path: Path, host: Host) -> None:
    """What is remembered comes back; other content is refused, and a missing file is a first time."""
    path = tmp_path / "deep" / "pins.json"
    assert {} == memory.load(path)
    pins = pinned(host)
    memory.save(path, pins)
    assert pins == memory.load(path)
    for text in ("", "[]", '{"version": 2, "hosts": {}}', '{"version": 1, "hosts": {"x": {}}}'):
        path.write_text(text)
        with pytest.raises(PinsError):
            memory.load(path)


def test_keys_survive_and_other_files_are_refused(tmp_path: Path) -> None:
    """The first start makes a key and later ones give the same; a damaged one is not replaced."""
    key = ensure(tmp_path)
    assert key.public == ensure(tmp_path).public == read_public(tmp_path / f"{key.key_id.hex()}.pub")
    assert 0o640 == (tmp_path / "host.key").stat().st_mode & 0o777
    following = HostKey.new(HOST, key)
    assert following.public == PublicKey.from_text(following.public.to_text(), "")
    signature = following.sign(seal_message(HOST, 1, bytes(32)))
    assert [True, False] == [
        key.verifies(signature, seal_message(HOST, 1, bytes(32))) for key in (following.public, key.public)
    ]
    (tmp_path / f"{key.key_id.hex()}.pub").write_bytes(following.public.to_text())
    with pytest.raises(HostKeyError, match="another key than its name says"):
        ensure(tmp_path)
    (tmp_path / "host.key").write_bytes(b"nothing")
    with pytest.raises(HostKeyError, match="it is no private key"):
        ensure(tmp_path)


def test_a_key_whose_kind_is_unknown_is_refused(tmp_path: Path) -> None:
    """A flipped bit may turn the kind of a key into one that nobody knows: it is refused like any file that holds no key."""
    key = ensure(tmp_path)
    for name in ("host.key", f"{key.key_id.hex()}.pub"):
        path = tmp_path / name
        before = path.read_bytes()
        head, label, body = before.partition(b"-----\n")
        der = bytearray(b64decode(body.partition(b"-----")[0]))
        at = der.index(bytes.fromhex("2b6570"))
        der[at + 2] ^= 0x40
        path.write_bytes(head + label + b64encode(der) + b"\n" + b"-----" + body.partition(b"-----")[2])
        with pytest.raises(HostKeyError, match="it is no p"):
            HostKey.load(tmp_path)
        path.write_bytes(before)


def test_sizes_are_those_of_the_format() -> None:
    """Trailer and head have the lengths that tamperers above count with."""
    assert (128, 200) == (TRAILER.size, len(Head(host=HOST, number=1, written_ns=0, sequence=0, digest=bytes(32)).pack()))
