"""What the bytes on a TLS connection's socket tell of things said that no TLS call told.

What lives here: TLS record framing (RFC 8446, section 5.1) and sums over ciphertext. What must not: decryption,
records of ours, verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from capd.daemon.assembly import tls

CONTENT_TYPES: Final = range(20, 25)
"""change_cipher_spec to heartbeat (RFC 6520)."""
UNFINISHED_BYTES_MAX: Final = (16 * 1024, 34 * 1024)
"""Ciphertext of calls that moved no plaintext, sent and received: a handshake takes less. A call that was cut off before
its first whole record, which has more, told its peer nothing; one record may be received that nobody asked for."""
UNFINISHED: Final = "unfinished call"
"""Of a GAP: a TLS call moved records, but no end of it was seen that tells what was in them."""
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
    """

    left: int = 0
    head: bytes = b""

    def take(self, payload: bytes | memoryview) -> bool:
        """Follow the next bytes; False when they are no TLS records, and whatever comes next may be one again."""
        at = 0
        while at < len(payload):
            if self.left:
                step = min(self.left, len(payload) - at)
                self.left -= step
                at += step
                continue
            step = min(tls.RECORD_HEADER_BYTES - len(self.head), len(payload) - at)
            self.head += bytes(payload[at : at + step])
            at += step
            if not _plausible(self.head):
                self.skip()
                return False
            if len(self.head) == tls.RECORD_HEADER_BYTES:
                self.left, self.head = int.from_bytes(self.head[3:], "big"), b""
        return True

    def skip(self) -> None:
        """Go on behind bytes that were not seen: they were whole records."""
        self.left, self.head = 0, b""


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
    """

    framing: list[Framing] = field(default_factory=lambda: [Framing(), Framing()])
    since_ns: int = 0
    unfinished: list[int] = field(default_factory=lambda: [0, 0])

    def begun(self, time_ns: int) -> None:
        """Note when TLS began."""
        self.since_ns = self.since_ns or time_ns

    def untold(self) -> list[tuple[int, int]]:
        """Give the directions in which calls moved ciphertext and told nothing, and how much."""
        limits = zip(self.unfinished, UNFINISHED_BYTES_MAX, strict=True)
        return [(direction, size) for direction, (size, limit) in enumerate(limits) if size > limit]

    def late(self, attached_ns: list[int], plaintext_ns: int) -> bool:
        """Say whether probes were put on a TLS library between the beginning and the first plaintext (boot clock)."""
        return any(0 < self.since_ns < attached <= plaintext_ns + ATTACH_NS for attached in attached_ns)
