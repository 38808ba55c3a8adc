"""Heads: signed words of a host about how far its recording has come, so that a missing end shows, and silence too.

What lives here: the form of a head (docs/formats/heads.md), writing them. What must not: segments, judging what a host said.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import on_disk
from capd.recording.segment.trailer import Signer

VERSION: Final = 1
MAGIC: Final = b"\x89CAPDHED"
HEAD: Final = struct.Struct("<8sHHI16sQQQ32s32s16s64s")
"""magic, version, flags, reserved, host, number, written, sequence, footer hash, hash of the head before, key id, signature."""
SIGNED_BYTES: Final = HEAD.size - 64
DOMAIN: Final = b"capd head 1\0"
FLAG_FINAL: Final = 1
NOTHING: Final = bytes(32)
FIRST_NUMBER: Final = 1
SUFFIX: Final = ".head"
_NAME: Final = re.compile(r"head-(\d{12})\.head")

NS: Final = 1_000_000_000
GROWING_NS: Final = 300 * NS
"""How often a head is written while segments are: the end that can be cut off unseen is no longer than this."""
IDLE_NS: Final = 3600 * NS
"""How often one is written when there is nothing to say: a host whose newest head is older is silent, not idle."""
KEPT: Final = 2_000
"""On the host: a week at the highest rate. The bucket keeps all."""


class MalformedHeadError(Exception):
    """The bytes are no head, or one of a version that this capd does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a host said of its recording at one time.

    Attributes:
        host: whose it is.
        number: of the head on that host, from 1 without holes.
        written_ns: wall time, ns since 1970 UTC.
        sequence: number of the newest sealed segment; 0 before the first.
        digest: SHA-256 of that segment's footer; zeros before the first.
        previous: SHA-256 of the head before; zeros in the first.
        final: capd was stopped as it should be: silence after this is no sign of anything.
        key_id, signature: who signed, and of what `message` gives; empty before it is signed.
    """

    host: UUID
    number: int
    written_ns: int
    sequence: int
    digest: bytes
    previous: bytes = NOTHING
    final: bool = False
    key_id: bytes = b""
    signature: bytes = field(default=b"", repr=False)

    @property
    def message(self) -> bytes:
        """What is signed."""
        return DOMAIN + self.pack()[:SIGNED_BYTES]

    @property
    def own_digest(self) -> bytes:
        """SHA-256 of its bytes, which the next head names."""
        return sha256(self.pack()).digest()

    def signed(self, signer: Signer) -> Head:
        """Give it with the signature of a key."""
        unsigned = replace(self, key_id=signer.key_id)
        return replace(unsigned, signature=signer.sign(unsigned.message))

    def pack(self) -> bytes:
        """Give the bytes on disk."""
        return HEAD.pack(
            MAGIC,
            VERSION,
            FLAG_FINAL if self.final else 0,
            0,
            self.host.bytes,
            self.number,
            self.written_ns,
            self.sequence,
            self.digest,
            self.previous,
            self.key_id,
            self.signature,
        )

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Read the bytes on disk; whether the signature is right is another question.

        Raises:
            MalformedHeadError: they are no head.
        """
        if len(data) != HEAD.size:
            raise MalformedHeadError(f"a head has {HEAD.size} bytes, not {len(data)}")
        magic, version, flags, reserved, host, number, written_ns, sequence, digest, previous, key_id, signature = HEAD.unpack(
            data
        )
        if magic != MAGIC:
            raise MalformedHeadError("this is no head")
        if version != VERSION:
            raise MalformedHeadError(f"a head of version {version}; this capd reads version {VERSION}")
        if reserved or flags & ~FLAG_FINAL:
            raise MalformedHeadError("flags or reserved bytes are not as they must be")
        return cls(
            host=UUID(bytes=host),
            number=number,
            written_ns=written_ns,
            sequence=sequence,
            digest=digest,
            previous=previous,
            final=bool(flags & FLAG_FINAL),
            key_id=key_id,
            signature=signature,
        )


class HeadLog:
    """Writes the heads of one host, each a file of its own that never changes."""

    def __init__(self, directory: Path, *, host: UUID, signer: Signer) -> None:
        """Go on after the newest head in a directory.

        Raises:
            StateDirectoryError: the directory cannot be read.
        """
        self._directory = directory
        self._host = host
        self._signer = signer
        self._fresh = True
        self._numbers = numbers = numbers_in(directory)
        self.newest = newest_head(directory)
        self._next = numbers[-1] + 1 if numbers else FIRST_NUMBER

    def due(self, now_ns: int, sequence: int) -> bool:
        """Tell whether it is time for one: the first of this start, after new segments, or after a long time of nothing."""
        if self._fresh or self.newest is None:
            return True
        age_ns = abs(now_ns - self.newest.written_ns)  # a clock that was set back says nothing about age
        return age_ns >= (GROWING_NS if sequence != self.newest.sequence else IDLE_NS)

    def write(self, now_ns: int, sequence: int, digest: bytes | None, *, final: bool = False) -> Head:
        """Write a head.

        Args:
            now_ns: wall time.
            sequence: number of the newest sealed segment; 0 when there is none.
            digest: hash of its footer.
            final: whether this is an orderly end.

        Raises:
            StateDirectoryError: it cannot be written; the call may be repeated.
        """
        head = Head(
            host=self._host,
            number=self._next,
            written_ns=now_ns,
            sequence=sequence,
            digest=digest or NOTHING,
            previous=self.newest.own_digest if self.newest else NOTHING,
            final=final,
        ).signed(self._signer)
        path = self._directory / head_name(head.number)
        with on_disk("write", path):
            replace_content(path, head.pack())
        self._numbers.append(head.number)
        self.newest, self._next, self._fresh = head, head.number + 1, False
        self._forget()
        return head

    def _forget(self) -> None:
        while len(self._numbers) > KEPT:
            path = self._directory / head_name(self._numbers.pop(0))
            with on_disk("remove", path):
                path.unlink(missing_ok=True)


def numbers_in(directory: Path) -> list[int]:
    """Give the numbers of the heads in a directory, in order.

    Raises:
        StateDirectoryError: it cannot be read.
    """
    with on_disk("read", directory):
        return sorted(number for path in directory.iterdir() if (number := number_of(path.name)) is not None)


def newest_head(directory: Path) -> Head | None:
    """Give the newest head in a directory; None for one that is damaged: the next says so by naming no head before it.

    Raises:
        StateDirectoryError: it cannot be read.
    """
    numbers = numbers_in(directory)
    if not numbers:
        return None
    path = directory / head_name(numbers[-1])
    with on_disk("read", path):
        data = read_regular(path, HEAD.size)
    try:
        return Head.parse(data)
    except MalformedHeadError:
        return None


def head_name(number: int) -> str:
    """Give the file name of a head."""
    return f"head-{number:012d}{SUFFIX}"


def number_of(name: str) -> int | None:
    """Give a head's number from its file name; None for another file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None
