"""Ids: time-ordered UUIDs that can be computed again from the same facts.

What lives here: how ids of sessions and runs are made. What must not: clocks and randomness; both come in as arguments.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

UNIX_MS_BITS: Final = 48
HEX_DIGITS: Final = 32
SEED_BITS: Final = 74
"""rand_a (12) and rand_b (62) of RFC 9562 section 5.7: all bits that are neither time nor version nor variant."""
_RAND_B_BITS: Final = 62
_VERSION: Final = 7
_VARIANT: Final = 0b10


def uuid7_from(unix_ms: int, seed: bytes) -> UUID:
    """Make the UUIDv7 (RFC 9562 section 5.7) of a moment and a seed: the same arguments give the same id.

    Args:
        unix_ms: milliseconds since 1970, UTC.
        seed: anything that tells this id from others of the same millisecond; hashed with BLAKE2b, so of any length.

    Raises:
        ValueError: the time does not fit into 48 bits.
    """
    if not 0 <= unix_ms < 1 << UNIX_MS_BITS:
        raise ValueError(f"{unix_ms} ms is no time that a UUIDv7 can hold")
    from hashlib import blake2b  # noqa: PLC0415 - it loads OpenSSL, and who reads makes no ids

    random = int.from_bytes(blake2b(seed, digest_size=16).digest(), "big") >> (128 - SEED_BITS)
    rand_a = random >> _RAND_B_BITS
    rand_b = random & (1 << _RAND_B_BITS) - 1
    return UUID(int=unix_ms << 80 | _VERSION << 76 | rand_a << 64 | _VARIANT << 62 | rand_b)


def unix_ms_of(identity: UUID) -> int:
    """Give the milliseconds since 1970 that a UUIDv7 was made from."""
    return identity.int >> 80


def session_seed(*, host: UUID, boot: UUID, socket: int, boottime_ns: int, layer: int = 0) -> bytes:
    """Give the seed of a session's id: facts that are in the journal, so that reading it again gives the same id.

    Args:
        host: the installation.
        boot: the kernel's boot id; socket ids repeat over boots.
        socket: the socket's id, or the TLS stream's for a session without a socket.
        boottime_ns: time of the session's first event on CLOCK_BOOTTIME.
        layer: 0 when `socket` is a socket's id, 1 when it is a TLS stream's: the two count separately.
    """
    return host.bytes + boot.bytes + socket.to_bytes(8, "big") + boottime_ns.to_bytes(8, "big") + bytes([layer])


def session_id(*, host: UUID, boot: UUID, socket: int, boottime_ns: int, unix_ns: int, layer: int = 0) -> UUID:
    """Give a session's id from its first event; `unix_ns` is that event's wall time, from its journal block's header.

    A clock that is set to 1970 puts what was before that earlier still: then it is of no time.
    """
    seed = session_seed(host=host, boot=boot, socket=socket, boottime_ns=boottime_ns, layer=layer)
    return uuid7_from(max(unix_ns, 0) // 1_000_000, seed)


def identities_from(text: str) -> tuple[UUID, UUID] | None:
    """Give the first and last id that begin with a text, dashes or not; None when no id begins so."""
    digits = text.lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{1,{HEX_DIGITS}}}", digits):
        return None
    return UUID(digits.ljust(HEX_DIGITS, "0")), UUID(digits.ljust(HEX_DIGITS, "f"))
