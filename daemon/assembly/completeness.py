"""Whether a session's record is all that was said.

What lives here: the rules that turn what is known of a session into a verdict with reasons. What must not: anything that finds
out; a rule reads only what is recorded, so that a person can check it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from capd.daemon.assembly.state import DIRECTION_WORDS, DIRECTIONS, Loss, SessionState
from capd.daemon.assembly.wire import OUTSIDE
from capd.recording.record import Value

HANDSHAKE_BYTES_MAX: Final = 16 * 1024
"""Wire bytes of a direction that a TLS handshake explains: long certificate chains stay below it."""
FOREIGN: Final = "its socket was made outside the run: what was said on it before is not known"
"""Of a unix or UDP socket that was inherited or handed over: TCP counts what it moved, these do not."""
UNTOLD: Final = "nothing was told of its socket, nor how much it moved"
"""Its begin is missing: lost, or forgotten."""
URING: Final = "a process used io_uring, which nobody counts on such a socket"
"""Of a unix or UDP socket in the classic tier."""
ENCRYPTED_PROTOCOLS: Final = frozenset({"ssh", "tls", "quic"})
"""Protocols that hide what is said by themselves."""

Verdict = Literal["complete", "partial", "opaque"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """The verdict on one session, shown wherever it is shown."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()

    def body(self) -> dict[str, Value]:
        """Give it as records and the index hold it."""
        return {"verdict": self.verdict, "reasons": list(self.reasons)}


def judge(state: SessionState, *, closed: bool) -> Completeness:
    """Judge a session: `opaque` if it was encrypted and no plaintext seen, else `partial` with all reasons, else `complete`."""
    reasons = [] if closed else ["still open"]
    if state.mid_stream and FOREIGN not in state.reasons:
        reasons.append("started before capture")
    reasons += [_words(reason, loss) for reason, loss in state.losses.items()]
    reasons += state.reasons
    if state.ciphertext.outside and state.tls_streams and OUTSIDE not in reasons:
        reasons.append(OUTSIDE)
    if closed and not reasons and state.socket and state.transport is None:
        reasons.append(UNTOLD)
    if state.uring and state.transport != "tcp":
        reasons.append(URING)
    hidden = _hidden(state)
    if hidden is not None:
        return Completeness(verdict="opaque", reasons=(hidden, *reasons))
    return Completeness(verdict="partial" if reasons else "complete", reasons=tuple(reasons))


def _hidden(state: SessionState) -> str | None:
    if state.encrypted and not any(state.plaintext):
        explained = bool(state.tls_streams) and max(state.wire) <= HANDSHAKE_BYTES_MAX
        return None if explained else "encrypted, no plaintext seen: TLS"
    if state.protocol in ENCRYPTED_PROTOCOLS and not state.encrypted:
        return f"encrypted, no plaintext seen: {state.protocol}"
    return None


def _words(reason: str, loss: Loss) -> str:
    parts = [f"{loss.bytes[at]} bytes of the {DIRECTION_WORDS[at]}" for at in DIRECTIONS if loss.bytes[at]]
    if loss.unknown:
        parts.append("an unknown number of bytes")
    return f"{reason}: {' and '.join(parts)} missing" if parts else reason
