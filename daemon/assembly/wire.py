"""What the bytes on a TLS connection's socket tell of things said that no TLS call told.

What lives here: TLS record framing (RFC 8446, section 5.1) and sums over ciphertext. What must not: decryption,
records of ours, verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.daemon.assembly import tls

CONTENT_TYPES: Final = range(20, 25)
"""change_cipher_spec to heartbeat (RFC 6520)."""
HANDSHAKE: Final = 22
"""Of a record; once TLS is set up, only a renegotiation of TLS 1.2 has it."""
UNFINISHED_BYTES_MAX: Final = (16 * 1024, 34 * 1024)
"""Ciphertext of calls that moved no plaintext, sent and received: a handshake takes less. A call that was cut off before
its first whole record, which has more, told its peer nothing; one record may be received that nobody asked for."""
UNFINISHED: Final = "unfinished call"
"""Of a GAP: a TLS call moved records, but no end of it was seen that tells what was in them."""
UNTOLD: Final = "TLS outside TLS calls"
"""Of a GAP: the socket carried more TLS records beside TLS calls than handshakes take, and nothing tells what was in them."""
CARRIED_BYTES_MAX: Final = 16 * 1024
"""Of each TLS stream in each direction: a handshake and its end take less (completeness.HANDSHAKE_BYTES_MAX)."""
OVERHEAD_BYTES_MAX: Final = 100
"""Of one record around what was said: 5 of header, and with CBC and SHA-384 16, 48 and 16 (RFC 5246 6.2.3.2); AEADs need 30."""
OUTSIDE: Final = "bytes outside TLS records"
"""They are kept as wire bytes, and are not in what was said."""
ATTACH_NS: Final = 50_000_000
"""How long before the note of an attachment its probes may have been at work already."""


@dataclass(slots=True, kw_only=True)
class Framing:
    """Where one direction stands between TLS records.

    Attributes:
        left: bytes until the next record begins.
        head: the part of a record header that has come.
        followed: whether whole records were followed to where it stands, so that it is known for sure.
        records, carried: how many records were met, and their bytes.
        begins: a record of a handshake was met that is not encrypted, or looks so.
    """

    left: int = 0
    head: bytes = b""
    followed: bool = False
    records: int = 0
    carried: int = 0
    begins: bool = False

    @property
    def between(self) -> bool:
        """Whether it stands where a record begins."""
        return not self.left and not self.head

    def take(self, payload: bytes | memoryview) -> int:
        """Follow the next bytes.

        Returns:
            How many of them are TLS records. When it is not all of them, what comes next may be a record again; when it is
            negative, what is none began in bytes that were taken before.
        """
        at = begun = 0
        while at < len(payload):
            if self.left:
                step = min(self.left, len(payload) - at)
                self.left -= step
                self.followed = self.followed or not self.left
                at += step
                continue
            begun = at - len(self.head)
            step = min(tls.RECORD_HEADER_BYTES - len(self.head), len(payload) - at)
            self.head += bytes(payload[at : at + step])
            at += step
            if not _plausible(self.head):
                self.left, self.head = 0, b""
                return begun
            if len(self.head) == tls.RECORD_HEADER_BYTES:
                self.begins = self.begins or self.head[0] == HANDSHAKE
                self.left, self.head = int.from_bytes(self.head[3:], "big"), b""
                self.records += 1
                self.carried += tls.RECORD_HEADER_BYTES + self.left
        return at

    def skip(self) -> None:
        """Go on behind bytes that were not seen, as if they were whole records."""
        self.left, self.head, self.followed = 0, b"", False


def _plausible(head: bytes) -> bool:
    size = int.from_bytes(head[3:], "big") if len(head) == tls.RECORD_HEADER_BYTES else 0
    version = head[1:3] + b"\0" * (3 - len(head))
    return (
        head[0] in CONTENT_TYPES
        and (len(head) < 2 or version[0] == tls.VERSION_MAJOR)  # noqa: PLR2004  # offsets in the header
        and version[1] <= tls.VERSION_MINOR_MAX
        and size <= tls.RECORD_BYTES_MAX
    )


@dataclass(slots=True, kw_only=True)
class Ciphertext:
    """What is known of a session's encrypted bytes.

    Attributes:
        framing: of each direction.
        since_ns: boot clock when TLS began; 0 before.
        unfinished: ciphertext moved within TLS calls, in each direction, since the last one that told its plaintext.
        stepwise: whether the first ciphertext of the latest call of each direction was a record header alone: such a library
            takes no byte behind the record that it gives out.
        ended_ns: boot clock when each TLS stream ended: freed, or its process ended or runs another program.
        clear: whether each direction speaks in clear again.
        nested: ciphertext that TLS calls moved themselves, in each direction.
        outside: bytes outside TLS records came before a TLS stream was known of.
    """

    framing: list[Framing] = field(default_factory=lambda: [Framing(), Framing()])
    since_ns: int = 0
    unfinished: list[int] = field(default_factory=lambda: [0, 0])
    stepwise: list[bool] = field(default_factory=lambda: [False, False])
    ended_ns: dict[int, int] = field(default_factory=dict)
    clear: list[bool] = field(default_factory=lambda: [False, False])
    nested: list[int] = field(default_factory=lambda: [0, 0])
    outside: bool = False

    def begun(self, time_ns: int) -> None:
        """Note when TLS began."""
        self.since_ns = self.since_ns or time_ns

    def moved(self, direction: int, size: int) -> None:
        """Note ciphertext that a TLS call moved, and that was not carried."""
        if not self.unfinished[direction]:
            self.stepwise[direction] = size == tls.RECORD_HEADER_BYTES
        self.unfinished[direction] += size
        self.nested[direction] += size
        self.framing[direction].skip()
        self.clear[direction] = False

    def told(self, direction: int) -> None:
        """Note that a TLS call told its plaintext."""
        self.unfinished[direction] = 0

    def missing(self, plaintext: Sequence[int], streams: int) -> list[tuple[int, str, str]]:
        """Give where TLS carried something that no TLS call told: the direction, why, and what is known of it."""
        if not streams:
            return []
        calls, beside = (
            "bytes of ciphertext, and no TLS call that tells what was in them",
            "bytes of TLS records that no TLS call moved, nor told of",
        )
        return [
            *((direction, UNFINISHED, f"{size} {calls}") for direction, size in self.untold()),
            *((direction, UNTOLD, f"{size} {beside}") for direction, size in self.unexplained(plaintext, streams)),
        ]

    def untold(self) -> list[tuple[int, int]]:
        """Give the directions in which calls moved ciphertext and told nothing, and how much."""
        limits = zip(self.unfinished, UNFINISHED_BYTES_MAX, strict=True)
        return [(direction, size) for direction, (size, limit) in enumerate(limits) if size > limit]

    def unexplained(self, plaintext: Sequence[int], streams: int) -> list[tuple[int, int]]:
        """Give the directions in which more TLS records moved beside TLS calls than is known of, and how much.

        What a library reads from memory, and writes there, its program moves itself, so that it is carried: as much is
        explained by plaintext that no call of a TLS library moved.

        Args:
            plaintext: what TLS calls told, in each direction.
            streams: how many TLS streams there were.
        """
        found = []
        for direction, framing in enumerate(self.framing):
            told = max(0, plaintext[direction] - self.nested[direction])
            # Each record of what was said has a byte of it at least.
            around = min(framing.records, told) * OVERHEAD_BYTES_MAX
            known = told + around + max(1, streams) * CARRIED_BYTES_MAX
            if framing.carried > known:
                found.append((direction, framing.carried - told))
        return found

    def late(self, attached_ns: list[int], plaintext_ns: int) -> bool:
        """Say whether probes were put on a TLS library between the beginning and the first plaintext (boot clock)."""
        return any(0 < self.since_ns < attached <= plaintext_ns + ATTACH_NS for attached in attached_ns)
