"""Records of deletion: signed words of a host that it let segments go because a policy said so.

What lives here: their form (docs/formats/deletions.md). What must not: policies, deleting, judging.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from capd.recording.segment.trailer import Signer

VERSION: Final = 1
DOMAIN: Final = b"capd deletion 1\0"
"""What a signature is for stands before what is signed."""
SEGMENTS_MAX: Final = 4096
"""In one record: some half a megabyte."""
RECORD_BYTES_MAX: Final = 1 << 20
SUFFIX: Final = ".deletion"
_NAME: Final = re.compile(r"(\d{12})-(\d{12})\.deletion")


class MalformedDeletionError(Exception):
    """The bytes are no record of deletion, or one of a version that this capd does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """One segment that was let go.

    Attributes:
        sequence: its number.
        digest: SHA-256 of its footer, which the segment after it names.
        policy: name of the retention class that it was kept for.
    """

    sequence: int
    digest: bytes
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Segments without a hole between them that a host let go at one time.

    Attributes:
        host: whose they were.
        written_ns: wall time.
        segments: in order.
        key_id, signature: who signed, and of what `message` gives; empty before it is signed.
    """

    host: UUID
    written_ns: int
    segments: Sequence[Deleted]
    key_id: bytes = b""
    signature: bytes = field(default=b"", repr=False)

    @property
    def message(self) -> bytes:
        """What is signed."""
        return DOMAIN + _canonical(self._fields())

    @property
    def name(self) -> str:
        """What it is called: a function of what was let go."""
        return f"{self.segments[0].sequence:012d}-{self.segments[-1].sequence:012d}{SUFFIX}"

    def signed(self, signer: Signer) -> Deletion:
        """Give it with a signature."""
        named = replace(self, key_id=signer.key_id)
        return replace(named, signature=signer.sign(named.message))

    def pack(self) -> bytes:
        """Give the bytes of the object."""
        return _canonical({**self._fields(), "signature": self.signature.hex()}) + b"\n"

    def _fields(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "host": str(self.host),
            "written_ns": self.written_ns,
            "key": self.key_id.hex(),
            "segments": [{"sequence": one.sequence, "footer": one.digest.hex(), "policy": one.policy} for one in self.segments],
        }

    @classmethod
    def parse(cls, data: bytes) -> Deletion:
        """Read the bytes of an object; the signature is not checked.

        Raises:
            MalformedDeletionError: they are none.
        """
        try:
            found = json.loads(data)
            if found["version"] != VERSION:
                raise MalformedDeletionError(f"it has version {found['version']}")
            segments = [
                Deleted(sequence=int(one["sequence"]), digest=bytes.fromhex(one["footer"]), policy=str(one["policy"]))
                for one in found["segments"]
            ]
            numbers = [one.sequence for one in segments]
            if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                raise MalformedDeletionError("its segments do not follow each other")
            return cls(
                host=UUID(found["host"]),
                written_ns=int(found["written_ns"]),
                segments=segments,
                key_id=bytes.fromhex(found["key"]),
                signature=bytes.fromhex(found["signature"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise MalformedDeletionError("it is no record of deletion") from error


def is_deletion(name: str) -> bool:
    """Tell whether an object of this name is a record of deletion."""
    return _NAME.fullmatch(name) is not None


def range_of(name: str) -> tuple[int, int] | None:
    """Give the first and the last segment that a record of deletion of this name is about; None: it is no such name."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
