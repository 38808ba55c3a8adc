"""The evidence for some sessions: the segments that hold them, the keys that signed, and heads that name what came after.

What lives here: choosing it from a state directory and from a bucket, named as in a state directory.
What must not: where it goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.recording.durable import open_regular
from capd.recording.errors import on_disk
from capd.recording.evidence.shelf import is_key, name_of
from capd.recording.heads import Head, MalformedHeadError
from capd.recording.heads import number_of as head_number
from capd.recording.segment.layout import SEALED_SUFFIX, sealed_path
from capd.recording.segment.source import FileSource

if TYPE_CHECKING:
    from capd.recording.bucket import Bucket

READ_BYTES: Final = 4 << 20
SEGMENTS: Final = "segments"
KEYS: Final = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of evidence.

    Attributes:
        name: where it lies in a state directory.
        read: gives its content in parts.
    """

    name: str
    read: Callable[[], Iterator[bytes]]


@dataclass(slots=True, kw_only=True)
class Excerpt:
    """What was found.

    Attributes:
        segments: by number.
        others: keys and heads.
        missing: numbers of segments that are known and not there.
    """

    segments: dict[int, Piece] = field(default_factory=dict)
    others: list[Piece] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)


def from_directory(state_dir: Path, sequences: Sequence[int]) -> Excerpt:
    """Choose from a state directory what proves some segments of it.

    Raises:
        StateDirectoryError: it cannot be read.
    """
    found = Excerpt()
    segments = state_dir / SEGMENTS
    for sequence in sequences:
        path = sealed_path(segments, sequence)
        if path.exists():
            found.segments[sequence] = _file(f"{SEGMENTS}/{path.name}", path)
        else:
            found.missing.append(sequence)
    with on_disk("read", state_dir):
        keys = sorted(path for path in (state_dir / KEYS).glob("*") if is_key(path.name))
        heads = sorted(path for path in segments.iterdir() if head_number(path.name) is not None)
    found.others += [_file(f"{KEYS}/{path.name}", path) for path in keys]
    read = [(f"{SEGMENTS}/{path.name}", _content(path)) for path in heads]
    found.others += _chosen_heads(read, max(sequences, default=0))
    return found


def from_bucket(bucket: Bucket, keys: Sequence[str]) -> Excerpt:
    """Choose from a bucket what proves some segments of one host in it.

    Args:
        bucket: where they are.
        keys: of the segments.

    Raises:
        BucketError: it cannot be read.
    """
    from capd.recording.bucket.errors import ObjectMissingError  # noqa: PLC0415 - who reads a directory needs no bucket

    found = Excerpt()
    heads: list[tuple[str, bytes]] = []
    for key in keys:
        name = name_of(key)
        sequence = int(name.removesuffix(SEALED_SUFFIX))
        try:
            size = bucket.size(key)
        except ObjectMissingError:
            found.missing.append(sequence)
            continue
        found.segments[sequence] = Piece(name=f"{SEGMENTS}/{name}", read=_object(bucket, key, size))
    folders = sorted({key.partition("/")[0] + "/" for key in keys})
    first_day = min((key.split("/")[1] for key in keys), default="")
    for folder in folders:
        for name in bucket.folders(folder):
            if name == KEYS or (name.startswith("date=") and name >= first_day):
                for entry in bucket.list(f"{folder}{name}/"):
                    if is_key(name_of(entry.key)):
                        read = _object(bucket, entry.key, entry.size)
                        found.others.append(Piece(name=f"{KEYS}/{name_of(entry.key)}", read=read))
                    elif head_number(name_of(entry.key)) is not None:
                        heads.append((f"{SEGMENTS}/{name_of(entry.key)}", bucket.read(entry.key, 0, entry.size)))
    found.others += _chosen_heads(heads, max([*found.segments, *found.missing], default=0))
    return found


def _chosen_heads(heads: Sequence[tuple[str, bytes]], last: int) -> list[Piece]:
    """Give the newest head, and the first that names the last segment or a later one."""
    known: list[tuple[int, str, bytes]] = []
    for name, content in heads:
        try:
            known.append((Head.parse(content).sequence, name, content))
        except MalformedHeadError:
            continue  # `capd verify` of the recording names it
    known.sort(key=lambda head: head[1])
    after = next((head for head in known if head[0] >= last), None)
    chosen = {head[1]: head for head in (after, known[-1] if known else None) if head is not None}
    return [Piece(name=name, read=_whole(content)) for _, name, content in chosen.values()]


def _whole(content: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([content])


def _content(path: Path) -> bytes:
    source = FileSource(path)
    try:
        return source.read(0, source.size())
    finally:
        source.close()


def _file(name: str, path: Path) -> Piece:
    def read() -> Iterator[bytes]:
        with on_disk("read", path), os.fdopen(open_regular(path), "rb") as file:
            while part := file.read(READ_BYTES):
                yield part

    return Piece(name=name, read=read)


def _object(bucket: Bucket, key: str, size: int) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        for offset in range(0, size, READ_BYTES):
            yield bucket.read(key, offset, min(READ_BYTES, size - offset))

    return read
