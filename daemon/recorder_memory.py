"""What the recorder remembers over its own end, besides the recording.

What lives here: the snapshot file, the position file that lets the daemon free journal, and finding out in which steps the
recorder went from the snapshot to the end of the recording. What must not: the snapshot's content (assembly/snapshot.py).

The assembler is deterministic: from the same snapshot, the same blocks, cut and settled at the same places, it gives the same
records. So after a crash the way from the snapshot to the end of the recording is gone again with the records thrown away, and
what comes then continues as if nothing had happened. The journal is kept from the snapshot on; that is what `position` says.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgpack

from capd.daemon.assembly import snapshot as snapshots
from capd.daemon.assembly.sessions import NO_BOOT
from capd.daemon.assembly.snapshot import Snapshot, UnreadableSnapshotError
from capd.daemon.needed import say_needed
from capd.daemon.witness.verdicts import WITNESSED
from capd.recording.durable import open_regular, read_regular, replace_content
from capd.recording.errors import CorruptSegmentError, EncryptedError, on_disk
from capd.recording.journal import JournalKeys, Position
from capd.recording.journal.cipher import AlteredError, UnknownKeyError
from capd.recording.record import Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.layout import SEALED_SUFFIX, sequence_of

BOOT: Final = "boot"
"""File in the runtime directory: the boot of what was taken last. A reboot takes it, as it takes what is open."""
ENCRYPTED: Final = b"CAPS"
"""How an encrypted snapshot starts; msgpack of an array of three never does."""
PLAIN: Final = b"CAPP"
"""How one starts that is not; its CRC-32 follows."""
_KEY_ID: Final = struct.Struct("<I")
BEGUN: Final = "begun"
"""Name of the marker that says: the first that the recorder ever found in the journal was at `at`, not in the first file."""
BEGUN_ANEW: Final = "begun_anew"
"""Name of the marker that says: the recorder did not know any more how it had come to `at`, and went on from there as if it had
known nothing but the `boot`."""
DAMAGED: Final = "journal_damaged"
"""Name of the marker that says: from `at` to `next` the journal could not be read."""
LET_GO: Final = "let_go"
"""Name of the marker that says: here the recorder was ended, and what masking had held back was stored as it was."""
PARTED: Final = "parted"
"""Name of the marker that says: what follows is more of a drain turn of which a part was taken before, up to `at`."""
POLICY: Final = "policy"
"""Name of the marker that says: from here on this policy says how much is recorded. A snapshot was taken there."""
SETTLED: Final = "settled"
"""Name of the marker that says: here nothing more had come, and all waiting was ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How the recorder went from one position to another.

    Attributes:
        cuts: positions at which records were stored, or a part of a drain turn was taken.
        settled: those of them at which waiting had been ended before.
        let_go: those of them at which masking had let go of what it held.
        damages: from where to where the journal could not be read then. What cannot be read now and is not among them was lost
            after it was recorded.
        begun: where the first was that was ever found in the journal; None: in the first file.
        begun_anew: the last position at which the recorder went on without knowing anything, and the boot that it took what
            follows to be of: the way begins there.
        hidden: whether some are in segments whose keys are gone.
        witnessed: keys of what the second witness had written.
    """

    cuts: frozenset[Position]
    settled: frozenset[Position]
    let_go: frozenset[Position]
    damages: frozenset[tuple[Position, Position]]
    begun: Position | None = None
    begun_anew: tuple[Position, UUID] | None = None
    hidden: bool = False
    witnessed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A snapshot and when it was taken.

    Attributes:
        snapshot: the assembler's state.
        masking: the state of what stands between it and the disk.
        witness: what the second witness knows, and how far it read the decision log.
        position: everything that the journal holds before it was in sealed segments.
        sequence: number of the first segment that was written afterwards.
        block: sequence of the journal's block before the position; None when that could not be read.
    """

    snapshot: Snapshot
    masking: bytes
    witness: bytes = b""
    position: Position
    sequence: int
    block: int | None = None


class Memory:
    """The recorder's own files."""

    def __init__(self, directory: Path, position_file: Path, keys: JournalKeys) -> None:
        """Take the places, and the journal's keys: a snapshot holds pieces of what the journal holds."""
        self._keys = keys
        self._state_file = directory / "state"
        self._position_file = position_file

    @property
    def released(self) -> bool:
        """Whether journal was ever let go."""
        return self._position_file.exists()

    def load(self) -> Remembered | None:
        """Give what was remembered last; None when there is nothing that can be read.

        Raises:
            StateDirectoryError: the file cannot be read.
        """
        with on_disk("read", self._state_file):
            try:
                with os.fdopen(open_regular(self._state_file), "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                return None
        try:
            sequence, position, packed, masking, *later = msgpack.unpackb(self._opened(data))
            block, witness = (*later, None, None)[:2]  # earlier ones have neither
            return Remembered(
                snapshot=snapshots.unpack(packed),
                masking=bytes(masking),
                witness=bytes(witness or b""),
                position=Position.from_fields(position),
                sequence=int(sequence),
                block=None if block is None else int(block),
            )
        except (UnreadableSnapshotError, UnknownKeyError, AlteredError, ValueError, TypeError, msgpack.UnpackException):
            return None

    def _opened(self, data: bytes) -> bytes:
        if data.startswith(PLAIN):
            start = len(PLAIN) + _KEY_ID.size
            if data[len(PLAIN) : start] != _KEY_ID.pack(zlib.crc32(data[start:])):
                raise AlteredError
            return data[start:]
        if not data.startswith(ENCRYPTED):
            return data  # as an earlier capd wrote it
        if len(data) < len(ENCRYPTED) + _KEY_ID.size:
            raise AlteredError
        (identity,) = _KEY_ID.unpack_from(data, len(ENCRYPTED))
        start = len(ENCRYPTED) + _KEY_ID.size
        return self._keys.key(identity).decrypt(memoryview(data)[start:], data[:start])

    def _closed(self, data: bytes) -> bytes:
        key = self._keys.newest()
        if key is None:
            return PLAIN + _KEY_ID.pack(zlib.crc32(data)) + data
        start = ENCRYPTED + _KEY_ID.pack(key.id)
        return start + key.encrypt(data, start)

    def save(self, remembered: Remembered) -> None:
        """Remember, and so let the journal before it go.

        Raises:
            StateDirectoryError: it cannot be written; what was remembered before still is.
        """
        position = remembered.position
        with on_disk("write", self._state_file):
            packed = snapshots.pack(remembered.snapshot)
            fields = (
                remembered.sequence,
                position.to_fields(),
                packed,
                remembered.masking,
                remembered.block,
                remembered.witness,
            )
            replace_content(self._state_file, self._closed(msgpack.packb(fields)))
        with on_disk("write", self._position_file):
            replace_content(self._position_file, position.to_bytes(), mode=0o644)
            say_needed(self._position_file.parent, remembered.sequence)


def steps_since(segments: Path, sequence: int, host: UUID, keys: Keys) -> Steps:
    """Find the steps that the recorder took in the segments from a number on. Damaged segments are passed over."""
    cuts: set[Position] = set()
    damages: set[tuple[Position, Position]] = set()
    marked: dict[str, set[Position]] = {SETTLED: set(), LET_GO: set()}
    begun: set[Position] = set()
    begun_anew: set[tuple[Position, UUID]] = set()
    witnessed: set[str] = set()
    hidden = False
    with on_disk("read", segments):
        paths = [path for path in segments.iterdir() if path.suffix == SEALED_SUFFIX and (sequence_of(path) or 0) >= sequence]
    for path in paths:
        try:
            with SegmentReader(path, keys=keys) as reader:
                for number in range(len(reader.entries())):
                    header, index = reader.index(number)
                    if not header.continued:
                        cuts.add(index.preamble.position)
                    if host in index.sessions:
                        markers = list(_markers(reader.frame(number).records(host)))
                        cuts.update(at for (at,) in _positions(markers, PARTED, "at"))
                        begun.update(at for (at,) in _positions(markers, BEGUN, "at"))
                        begun_anew.update(_begun_anew(markers))
                        damages.update((at, end) for at, end in _positions(markers, DAMAGED, "at", "next"))
                        for name in marked.keys() & {body.get("name") for body in markers}:
                            marked[name].add(index.preamble.position)
                        for body in markers:
                            if body.get("name") == WITNESSED:
                                witnessed.update(_texts(body.get("keys")))
        except CorruptSegmentError:
            continue
        except EncryptedError:
            hidden = True
    return Steps(
        cuts=frozenset(cuts),
        settled=frozenset(marked[SETTLED]),
        let_go=frozenset(marked[LET_GO]),
        damages=frozenset(damages),
        begun=min(begun, default=None),
        begun_anew=max(begun_anew, default=None),
        hidden=hidden,
        witnessed=frozenset(witnessed),
    )


def _markers(records: Iterable[Record]) -> Iterator[Mapping[str, Value]]:
    return (record.body for record in records if record.kind is Kind.MARKER)


def _texts(value: Value) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list | tuple) else []


def _begun_anew(markers: Iterable[Mapping[str, Value]]) -> Iterator[tuple[Position, UUID]]:
    for body in markers:
        boot = body.get("boot")
        for (at,) in _positions([body], BEGUN_ANEW, "at"):
            yield at, UUID(bytes=boot) if isinstance(boot, bytes) and len(boot) == len(NO_BOOT.bytes) else NO_BOOT


def say_boot(directory: Path, boot: UUID) -> None:
    """Write down of which boot is what was taken last, in the runtime directory.

    Raises:
        StateDirectoryError: it cannot be written; then it is not known.
    """
    with on_disk("write", directory / BOOT):
        replace_content(directory / BOOT, boot.bytes, sync=False)


def said_boot(directory: Path) -> UUID:
    """Give of which boot is what was taken last; `NO_BOOT` where nothing says it."""
    try:
        return UUID(bytes=read_regular(directory / BOOT, len(NO_BOOT.bytes)))
    except (OSError, ValueError):
        return NO_BOOT


def _positions(markers: Iterable[Mapping[str, Value]], name: str, *facts: str) -> Iterator[list[Position]]:
    """Give the journal positions in the markers of a name."""
    for body in markers:
        if body.get("name") == name:
            with suppress(ValueError):
                yield [Position.from_fields(body.get(fact)) for fact in facts]
