"""Which layer the bytes of a session's socket belong to: what was said, or the TLS around it.

What lives here: where TLS begins on a socket, and where it is over, byte exact. What must not: records, positions, decoders.

TLS begins with a ClientHello at the beginning of a call. A few bytes that may be the first of one wait for those behind them,
so that it makes no difference how the calls cut them.

TLS is over in a direction where bytes stand that are no TLS record, though one would have to begin there. That they are what
was said in clear, and not the middle of a record, is certain in two cases: whole records were followed up to them (a TLS
library's farewell is not part of a TLS call, so its bytes are carried); or they come right behind a TLS call that told its
plaintext, and the TLS stream is over: freed, or its process runs another program, or they are another process's. A call that
sends has told whole records. One that receives may have read ahead, unless it took the record's header alone first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from capd.daemon.assembly import tls
from capd.daemon.assembly.decoding import opener
from capd.daemon.assembly.recorded import APPLICATION, WIRE
from capd.daemon.assembly.state import REQUEST, SessionState
from capd.daemon.assembly.streams import Chunk
from capd.daemon.assembly.wire import OUTSIDE
from capd.probes.layouts import Role


class Piece(NamedTuple):
    """A chunk, or a part of one.

    Attributes:
        chunk: what was moved.
        layer: where it belongs.
        outside: on the wire layer: it is no TLS.
    """

    chunk: Chunk
    layer: str
    outside: bool = False


@dataclass(slots=True)
class Layers:
    """The layers of one session's socket.

    Attributes:
        state: the session; whether it is encrypted, and its name, are written here.
        undecided: chunks of one direction that may be the beginning of a ClientHello.
    """

    state: SessionState
    undecided: list[Chunk] = field(default_factory=list)

    def of(self, chunk: Chunk) -> list[Piece]:
        """Give what became decided with a chunk of the socket, in order."""
        direction = chunk.direction
        if self.state.encrypted and not self.state.ciphertext.clear[direction]:
            return self._within_tls(chunk)
        if self.undecided and (self.undecided[0].direction != direction or not chunk.length):
            return [*self.decide(), *self.of(chunk)]
        if self._tls_begins(chunk):
            return self._all(WIRE, chunk)
        if self._may_begin_tls(chunk):
            self.undecided.append(chunk.kept())
            return []
        return self._all(APPLICATION, chunk)

    def decide(self, *, encrypted: bool = False) -> list[Piece]:
        """Give what is undecided, without waiting for more.

        Args:
            encrypted: it was TLS, as what follows shows.
        """
        if not self.undecided:
            return []
        if encrypted or sum(chunk.captured for chunk in self.undecided) >= tls.RECORD_HEADER_BYTES:
            self._turn()
        return self._all(WIRE if self.state.encrypted else APPLICATION)

    def waits(self, chunk: Chunk) -> bool:
        """Say whether a chunk can only be decided when it is known whether its TLS stream is over."""
        ciphertext = self.state.ciphertext
        if not (chunk.captured and self._provable(chunk)) or ciphertext.clear[chunk.direction]:
            return False
        framing = ciphertext.framing[chunk.direction]
        if framing.followed or not self._told_whole(chunk.direction) or self._is_over(chunk):
            return False
        return replace(framing).take(chunk.payload) == 0

    # -- where TLS begins ------------------------------------------------------------------------------------------------------

    def _tls_begins(self, chunk: Chunk) -> bool:
        """Say whether TLS begins with this chunk, or has begun with what is undecided; and remember it."""
        state = self.state
        if self._opens(chunk.direction):
            start = self._start(chunk)
            if tls.begins_client_hello(start):
                state.name = state.name or tls.server_name(bytes(start))
                self._turn()
                return True
        first = state.application[chunk.direction] == 0
        if first and (state.mid_stream or state.tls_streams or state.losses) and tls.begins_record(self._start(chunk)):
            self._turn()
            return True
        return False

    def _may_begin_tls(self, chunk: Chunk) -> bool:
        if chunk.datagram or chunk.captured < chunk.length or self.state.transport == "udp":
            return False
        return self._opens(chunk.direction) and tls.may_begin_client_hello(self._start(chunk))

    def _opens(self, direction: int) -> bool:
        """Whether the side that may send a ClientHello speaks in a direction."""
        return self.state.role == Role.UNKNOWN or direction == opener(self.state)

    def _start(self, chunk: Chunk) -> bytes | memoryview:
        """Give what is undecided and what comes now."""
        if not self.undecided:
            return chunk.payload
        return b"".join([*(bytes(held.payload) for held in self.undecided), bytes(chunk.payload)])

    def _turn(self) -> None:
        """TLS begins, for the first time or once more."""
        self.state.encrypted = True
        self.state.ciphertext.clear = [False, False]
        for framing in self.state.ciphertext.framing:
            framing.skip()

    def _turn_back(self, direction: int) -> None:
        """TLS begins once more in a direction that said nothing in clear: the other, that did, is over with it."""
        ciphertext = self.state.ciphertext
        for other, clear in enumerate(ciphertext.clear):
            if clear and other != direction:
                ciphertext.clear[other] = False
                ciphertext.framing[other].skip()

    def _all(self, layer: str, *last: Chunk) -> list[Piece]:
        """Give what is undecided, and a last chunk, in a layer."""
        chunks = [*self.undecided, *last]
        self.undecided = []
        if layer == APPLICATION:
            return [Piece(chunk, layer) for chunk in chunks]
        return [piece for chunk in chunks for piece in self._within_tls(chunk)]

    # -- where it is over ------------------------------------------------------------------------------------------------------

    def _within_tls(self, chunk: Chunk) -> list[Piece]:
        state, direction = self.state, chunk.direction
        framing = state.ciphertext.framing[direction]
        if not self._provable(chunk):
            framing.skip()
            return [Piece(chunk, WIRE)]
        told = self._told_whole(direction)
        framing.begins = False
        records = framing.take(chunk.payload)
        if framing.begins and self._opens(direction):
            self._turn_back(direction)
        if records == len(chunk.payload):
            return [Piece(chunk, WIRE)]
        sure = records >= 0 and (framing.followed or (told and records == 0 and self._is_over(chunk)))
        if sure and OUTSIDE not in state.reasons:
            state.ciphertext.clear[direction] = True
            before, behind = _split(chunk, records)
            return [*([Piece(before, WIRE)] if records else []), *self.of(behind)]
        if not state.tls_streams:
            state.ciphertext.outside = True
            return [Piece(chunk, WIRE)]
        if OUTSIDE not in state.reasons:
            state.reasons.append(OUTSIDE)
        return [Piece(chunk, WIRE, outside=True)]

    def _provable(self, chunk: Chunk) -> bool:
        """Whether all bytes up to and with a chunk are there."""
        return chunk.captured == chunk.length and not self.state.losses

    def _told_whole(self, direction: int) -> bool:
        """Whether the latest TLS call moved whole records, and told what was in them."""
        ciphertext = self.state.ciphertext
        if ciphertext.unfinished[direction] or not self.state.plaintext[direction]:
            return False
        return ciphertext.framing[direction].between and (direction == REQUEST or ciphertext.stepwise[direction])

    def _is_over(self, chunk: Chunk) -> bool:
        """Whether no TLS stream of the session can have moved a chunk."""
        state = self.state
        if (chunk.pid, chunk.process_start_ns) not in state.tls_processes.values():
            return True
        ended_ns = state.ciphertext.ended_ns
        # Not `tls_streams`: one that is tied already, and spoke only behind the chunk, has not moved it.
        return all(stream in ended_ns and ended_ns[stream] <= chunk.time_ns for stream in state.tls_processes)


def _split(chunk: Chunk, size: int) -> tuple[Chunk, Chunk]:
    """Give the first `size` bytes of a chunk, and the rest."""
    payload, rest = chunk.payload[:size], chunk.payload[size:]
    before = replace(chunk, length=size, captured=size, payload=payload)
    return before, replace(chunk, position=chunk.position + size, length=len(rest), captured=len(rest), payload=rest)
