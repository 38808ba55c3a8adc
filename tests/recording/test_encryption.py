"""Encrypted segments: who has an identity reads them, nobody else does, and nothing else changes."""

from __future__ import annotations

import base64
import errno
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest
from pyrage import decrypt, x25519

from capd.recording import index_segments
from capd.recording.age import Identities, NoKeys, check_recipient, recipients_of, wrap
from capd.recording.archive import Archive
from capd.recording.errors import (
    CorruptSegmentError,
    EncryptedError,
    IdentityFileError,
    RecipientError,
    StorageFullError,
    WrongIdentityError,
)
from capd.recording.index import Index
from capd.recording.journal import Position
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import FileHeader, open_path, sealed_path
from capd.recording.segment.recovery import recover
from capd.recording.segment.writer import Sealing, SegmentWriter
from capd.recording.verify import verify_directory

HOST = UUID(int=1)
SECRET = b"the launch code is 4711-ZEBRA"
Conversation = Callable[..., list[Record]]


class Reader:
    """Somebody with an identity."""

    def __init__(self, directory: Path) -> None:
        identity = x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        self.file = directory / f"{self.recipient[:12]}.txt"
        self.file.write_text(f"# created: today\n# public key: {self.recipient}\n{identity}\n")
        self.identity = identity

    @property
    def keys(self) -> Identities:
        """Give what opens what is encrypted to this reader."""
        return Identities.load(self.file)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Give a reader."""
    return Reader(tmp_path)


def secrets(conversation: Conversation, number: int) -> list[Record]:
    """Give a conversation in which a secret is said."""
    records = conversation(number, 3)
    records[1].body = {**records[1].body, "payload": SECRET * 3}
    records[2].body = {**records[2].body, "summary": SECRET.decode(), "end": len(SECRET) * 3}
    records[4].body = {**records[4].body, "fields": {"body": SECRET.decode()}}
    return records


def writer(directory: Path, *recipients: str, previous: bytes | None = None) -> SegmentWriter:
    """Give a writer whose clock counts."""
    ticks = count(1)
    sealing = Sealing(recipients=recipients)
    return SegmentWriter(
        directory, host=HOST, clock=lambda: next(ticks), sealing=sealing, frame_raw_bytes=700, previous=previous
    )


def write(directory: Path, records: list[Record], *recipients: str) -> Path:
    """Write one sealed segment."""
    made = writer(directory, *recipients)
    made.append(records)
    made.flush(Position(0, 1))
    path = made.seal({})
    assert path is not None
    return path


def test_only_an_identity_reads(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """Each of several recipients reads all of it; without identity, or with another one, the error says what can be said."""
    second, stranger = Reader(tmp_path), Reader(tmp_path)
    records = secrets(conversation, 1)
    path = write(tmp_path / "segments", records, reader.recipient, second.recipient)
    for somebody in (reader, second):
        with SegmentReader(path, keys=somebody.keys) as opened:
            assert records == list(opened.records())
            assert records == list(opened.records(records[0].session))
    with SegmentReader(path) as opened:
        assert {records[0].session} == set(opened.sessions())
        with pytest.raises(EncryptedError, match="segment 1 is encrypted to 2 recipients"):
            next(opened.records())
    with SegmentReader(path, keys=stranger.keys) as opened, pytest.raises(WrongIdentityError) as caught:
        next(opened.records())
    assert f"segment 1 is encrypted to 2 recipients; the identity in {stranger.file} does not open it" == str(caught.value)
    assert 3 == caught.value.exit_status


@pytest.mark.parametrize("recipients", [0, 1])
def test_nothing_that_was_said_is_in_the_file(
    tmp_path: Path, reader: Reader, conversation: Conversation, recipients: int
) -> None:
    """Neither payload nor text, names or arguments are in an encrypted segment, in no usual spelling; without they are."""
    path = write(tmp_path / "segments", secrets(conversation, 1), *[reader.recipient][:recipients])
    data = path.read_bytes()
    if not recipients:
        with SegmentReader(path) as opened:
            data = b"".join(frame.raw for frame in opened.frames())
    said = (SECRET, base64.b64encode(SECRET)[:-4], SECRET.hex().encode(), b"nightly", b"api.example.org", b"agent.py")
    found = [word for word in said if word in data]
    assert ([] if recipients else [SECRET, b"nightly", b"api.example.org", b"agent.py"]) == found


def test_a_key_that_cannot_be_kept_leaves_nothing_in_clear(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """Where the recorder's copy of a segment's key finds no room, nothing is written; when it does, all of it is encrypted."""
    refusals = [StorageFullError("write", tmp_path, OSError(errno.ENOSPC, "no room"))]

    def keep(_header: FileHeader, _key: bytes) -> None:
        if refusals:
            raise refusals.pop()

    sealing = Sealing(recipients=[reader.recipient], keep=keep)
    made = SegmentWriter(tmp_path, host=UUID(int=1), clock=lambda: 1, sealing=sealing)
    records = secrets(conversation, 1)
    made.append(records)
    with pytest.raises(StorageFullError):
        made.flush(Position(0, 1))
    assert not list(tmp_path.glob("*.open"))
    made.flush(Position(0, 1))
    path = made.seal({})
    assert path is not None
    assert SECRET not in path.read_bytes()
    with SegmentReader(path, keys=reader.keys) as opened:
        assert records == list(opened.records())


def test_recipients_change_with_the_next_segment(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """Each segment is read by those who were recipients when it was begun, and has a key of its own."""
    later = Reader(tmp_path)
    segments = tmp_path / "segments"
    for number, somebody in enumerate((reader, later), 1):
        write(segments, conversation(number), somebody.recipient)
    both = tmp_path / "both.txt"
    both.write_text(reader.file.read_text() + later.file.read_text())
    for number, (right, wrong) in enumerate(((reader, later), (later, reader)), 1):
        for keys in (right.keys, Identities.load(both)):
            with SegmentReader(sealed_path(segments, number), keys=keys) as opened:
                assert conversation(number) == list(opened.records())
        with SegmentReader(sealed_path(segments, number), keys=wrong.keys) as opened, pytest.raises(WrongIdentityError):
            next(opened.records())
    headers = [FileHeader.parse(sealed_path(segments, number).read_bytes()) for number in (1, 2)]
    assert reader.keys.data_key(headers[0]) != later.keys.data_key(headers[1])


def test_a_key_block_is_what_age_opens(reader: Reader) -> None:
    """The key block is a plain age file: any age opens it, and tells how many may."""
    block = wrap(bytes(range(32)), [reader.recipient] * 3)
    assert (bytes(range(32)), 3) == (decrypt(block, [reader.identity]), recipients_of(block))


def test_a_frame_decrypts_only_in_its_place(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """A frame of another segment that has the same data key, or another place, does not decrypt, whatever its checksum says."""
    path = write(tmp_path / "a", conversation(1, 6), reader.recipient)
    data = path.read_bytes()
    header = FileHeader.parse(data)
    other = FileHeader(host=header.host, sequence=2, created_ns=header.created_ns, key_block=header.key_block).pack()
    moved = open_path(tmp_path, 2)
    moved.write_bytes(other + data[len(other) :])
    with SegmentReader(moved, keys=reader.keys) as opened, pytest.raises(CorruptSegmentError, match="does not decrypt"):
        next(opened.records())


def test_any_changed_byte_of_an_encrypted_segment_is_found(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """Whatever byte is changed, reading raises our error or gives what was written; it is found without the key."""
    records = conversation(1, 1)
    path = write(tmp_path / "segments", records, reader.recipient)
    whole = path.read_bytes()
    for offset in range(0, len(whole) - 88, 7):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        for keys in (reader.keys, None):
            reports = verify_directory(path.parent, keys) if keys else verify_directory(path.parent)
            assert any(finding.damage for report in reports for finding in report.findings)
        try:
            with SegmentReader(path, keys=reader.keys) as opened:
                assert records == list(opened.records())
        except (CorruptSegmentError, EncryptedError):
            pass


def test_recovery_needs_no_key(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """Cut at any byte, an encrypted open segment is sealed with its whole flushes by a recorder that lost the key."""
    made = writer(tmp_path / "segments", reader.recipient)
    flushes = [conversation(number) for number in range(3)]
    ends = []
    for number, records in enumerate(flushes):
        made.append(records)
        made.flush(Position(0, number))
        ends.append(made.file_bytes)
    made.close()
    path = open_path(tmp_path / "segments", 1)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 61), *ends]:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        path.write_bytes(whole[:size])
        recover(path.parent, clock=lambda: 1)
        expected = [record for end, records in zip(ends, flushes, strict=True) if end <= size for record in records]
        reports = list(verify_directory(path.parent, reader.keys))
        assert [] == [finding for report in reports for finding in report.findings]
        assert len(expected) == sum(report.records for report in reports)
        if expected:
            with SegmentReader(sealed_path(path.parent, 1), keys=reader.keys) as opened:
                assert expected == list(opened.records())


def test_an_index_beside_encrypted_segments_has_no_text(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """It has sessions and places of messages, not what was said; one made elsewhere with an identity has it all."""
    state = tmp_path / "state"
    records = secrets(conversation, 1)
    write(state / "segments", records, reader.recipient)
    session = records[0].session
    path = state / "index" / "capd.db"
    for said, keys, hits in ((False, reader.keys, 0), (True, reader.keys, 1)):
        index_segments.rebuild(path, state / "segments", keys, said=said)
        with Index.open(path, readonly=True) as index:
            assert (6, 2 * hits, not said) == (index.session(session).messages, len(index.search("ZEBRA")), index.withholds)
        assert said == any(SECRET in file.read_bytes() for file in path.parent.iterdir())
    index_segments.rebuild(path, state / "segments")
    with Index.open(path, readonly=True) as index:
        assert ([], [1], True) == (index.sessions(), index.segments_of(session), index.withholds)
    with Archive(state, reader.keys) as archive:
        assert records == list(archive.records(session))


def test_an_index_learns_of_an_end_that_it_cannot_read(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """A power cut takes the host's keys and the newest rows of its index: a session whose end is sealed is not open to it."""
    segments, records = tmp_path / "segments", secrets(conversation, 1)
    made = writer(segments, reader.recipient)
    with Index.open(tmp_path / "capd.db") as index:
        for part, keys in ((records[:-1], reader.keys), (records[-1:], NoKeys())):
            made.append(part)
            made.flush(Position(0, 1))
            assert made.seal({}) is not None
            index_segments.catch_up(index, segments, keys)
        row = index.session(records[0].session)
        assert (Kind.CLOSE, "closed", "complete") == (records[-1].kind, row.state, row.verdict)
        assert row.ended_ns == records[-1].time_ns


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "there is no line that starts with AGE-SECRET-KEY-1"),
        ("# nothing\n", "there is no line that starts with AGE-SECRET-KEY-1"),
        ("age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj\n", "line 1 is a recipient, which only encrypts"),
        ("# x\nAGE-SECRET-KEY-1NOTONE\n", "line 2 is no age X25519 identity"),
        ("\xff", "it is no text"),
    ],
)
def test_a_file_that_holds_no_identity_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """The error says which line is not one, and never quotes what may be secret."""
    path = tmp_path / "identity"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(IdentityFileError) as caught:
        Identities.load(path)
    assert f"{path} is no identity file: {words}" == str(caught.value)


def test_a_recipient_is_checked_and_a_secret_is_not_repeated(reader: Reader) -> None:
    """What cannot be encrypted to is refused; an identity in its place is not quoted."""
    assert reader.recipient == check_recipient(reader.recipient)
    for text in ("", "age1abc", "ssh-ed25519 AAAA"):
        with pytest.raises(RecipientError, match="no age X25519 recipient"):
            check_recipient(text)
    with pytest.raises(RecipientError) as caught:
        check_recipient(str(reader.identity))
    assert "AGE-SECRET" not in str(caught.value)


def test_a_session_that_closes_is_closed_in_the_footer(tmp_path: Path, reader: Reader, conversation: Conversation) -> None:
    """What a footer says of sessions is the same with and without encryption."""
    records = conversation(1, 4)
    footers = []
    for directory, recipients in (("plain", ()), ("closed", (reader.recipient,))):
        with SegmentReader(write(tmp_path / directory, records, *recipients)) as opened:
            assert opened.footer is not None
            footers.append((opened.footer.sessions, opened.footer.records, opened.footer.first_ns, opened.footer.last_ns))
    assert footers[0] == footers[1]
    assert Kind.CLOSE is records[-1].kind
